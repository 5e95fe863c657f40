"""``SentinelWatch``: hears from the sentinels of a service that its primary has changed. Decides nothing.

A primary that hangs answers nobody, and one that was demoted by order goes on for seconds as if nothing had happened;
the sentinels know at once. Their word makes the link ask where the primary is, no more.
"""

from __future__ import annotations

import asyncio
import contextlib
import itertools
import logging
import random
from collections.abc import Callable
from typing import Any

from ...exceptions import EngineUnavailable
from .connection import Connection, ReplyError, until_ended
from .hosts import SentinelHost

__all__ = ["SentinelWatch"]

logger = logging.getLogger("antiphon.engine")

PAUSE_S = (0.2, 1.0)
CONNECT_S = 1.0


class SentinelWatch:
    """A subscription to ``+switch-master`` at one sentinel after another. Lives on one loop."""

    def __init__(self, host: SentinelHost, on_switch: Callable[[], None], ping_interval_s: float) -> None:
        self.host = host
        self._on_switch = on_switch
        self._ping_interval_s = ping_interval_s
        self._task = asyncio.get_running_loop().create_task(self._run(), name=f"antiphon sentinels of {host.service}")

    def __repr__(self) -> str:
        return f"<SentinelWatch {self.host.service!r} at {len(self.host.sentinels)} sentinels>"

    async def _run(self) -> None:
        sentinels = list(self.host.sentinels)
        random.shuffle(sentinels)  # not every node at the first
        for sentinel in itertools.cycle(sentinels):
            connection: Connection | None = None
            try:
                async with asyncio.timeout(CONNECT_S):
                    connection = await Connection.open(sentinel, self._push, _nothing_published)
                    hello: list[bytes | str | int] = ["HELLO", 3]
                    if sentinel.password:
                        hello += ["AUTH", sentinel.username or "default", sentinel.password]
                    await until_ended(connection, connection.call(*hello))
                    await until_ended(connection, connection.fence((b"SUBSCRIBE", b"+switch-master")))
                self._on_switch()  # what happened while nobody listened
                while True:
                    with contextlib.suppress(TimeoutError):
                        async with asyncio.timeout(self._ping_interval_s):
                            await asyncio.shield(connection.ended)
                        break
                    async with asyncio.timeout(self._ping_interval_s):
                        await until_ended(connection, connection.call("PING"))
            except (OSError, TimeoutError, ReplyError, EngineUnavailable) as exc:
                logger.debug("Sentinel %s: %s", sentinel.name, exc)
            except Exception:  # nobody foresaw it; without this watch a fail-over is noticed by PING alone
                logger.exception("Sentinel %s cannot be listened to", sentinel.name)
            finally:
                if connection is not None:
                    connection.give_up("closed by us")
            await asyncio.sleep(random.uniform(*PAUSE_S))  # noqa: S311  # jitter

    def _push(self, push: list[Any]) -> None:
        # <service> <old host> <old port> <new host> <new port>
        if push[0] == b"message" and push[2].split(b" ", 1)[0] == self.host.service.encode():
            self._on_switch()

    async def close(self) -> None:
        """End."""
        self._task.cancel()
        await asyncio.wait([self._task])


def _nothing_published(publication: object, reply: object) -> None:
    """Take the reply to a publish: a sentinel is sent none."""
