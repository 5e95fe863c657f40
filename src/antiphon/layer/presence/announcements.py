"""``Announcements``: who has joined and left groups, on the way to their members. Knows no store and no lease.

One message a user, as long as they are few. When a node dies, ten thousand leave a group at once: then one message names
many of them, or every mailbox of the group would overflow. What the engine does not take now is kept, and sent when it
does.
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Awaitable, Callable, Iterable
from typing import Any

from ...engines.base import Present
from ...exceptions import EngineUnavailable, MessageTooLarge

__all__ = ["JOIN", "LEAVE", "Announcements", "each_user", "key_of"]

logger = logging.getLogger("antiphon.layer")

JOIN, LEAVE = "presence.join", "presence.leave"

# More changes of one group than this at once go many in one message, at most so many.
SINGLES_MAX = 20
TOGETHER_MAX = 200
# So many groups at once.
GROUPS = 64
# While so much waits to be sent, nobody who sweeps goes on.
ROOM = 2000
# What waits while the engine is away; beyond it nothing is taken, which is logged.
WAITING_MAX = 100_000
PAUSE_S = 0.5


def key_of(present: Present) -> str | None:
    """Return the user's key; None for a connection of nobody we know."""
    return present.user[1:] if present.user[:1] == "u" else None


def each_user(message: dict[str, Any]) -> list[dict[str, Any]]:
    """Return what an announcement says as one message a user: {"type", "group", "user", "channel", "info"}."""
    return [{"type": message["type"], "group": message["group"], **user} for user in message["users"]]


class Announcements:
    """What one node has to announce, in order for each group.

    ``announce(group, kind, message)``: sends it. ``info_of(group, present)``: what the application said of a connection.
    """

    def __init__(
        self,
        announce: Callable[[str, str, dict[str, Any]], Awaitable[Any]],
        info_of: Callable[[str, Present], dict[str, Any]],
    ) -> None:
        self.sent = 0
        self._announce = announce
        self._info_of = info_of
        self._waiting: dict[str, list[tuple[str, Present]]] = {}
        self._count = 0
        self._task: asyncio.Task[None] | None = None
        self._room = asyncio.Event()
        self._room.set()
        self._complained = False
        self._together = TOGETHER_MAX

    def __repr__(self) -> str:
        return f"<Announcements {self._count} waiting, {self.sent} sent>"

    def add(self, group: str, kind: str, presents: Iterable[Present]) -> None:
        """Announce that users have joined or left; returns at once."""
        presents = list(presents)
        fitting = presents[: max(0, WAITING_MAX - self._count)]
        if len(fitting) < len(presents):
            logger.warning("%d of group %r are not told of: too many wait", len(presents) - len(fitting), group)
        if not fitting:
            return
        self._waiting.setdefault(group, []).extend((kind, present) for present in fitting)
        self._count += len(fitting)
        if self._count > ROOM:
            self._room.clear()
        if self._task is None:
            self._task = asyncio.get_running_loop().create_task(self._run(), name="antiphon announcements")

    async def room(self) -> None:
        """Wait until most of what was added is sent."""
        await self._room.wait()

    async def close(self, limit_s: float) -> None:
        """Send what can be sent within ``limit_s``; the rest is dropped."""
        if self._task is not None:
            await asyncio.wait((self._task,), timeout=limit_s)
        if self._task is not None:
            self._task.cancel()
            await asyncio.wait((self._task,))
        self._room.set()

    async def _run(self) -> None:
        try:
            while self._waiting:
                groups = list(self._waiting)[:GROUPS]
                done = await asyncio.gather(*(self._send(group) for group in groups))
                self._complained = self._complained and not all(done)
                if not all(done):
                    await asyncio.sleep(PAUSE_S)
                if self._count <= ROOM:
                    self._room.set()
        finally:
            self._task = None

    async def _send(self, group: str) -> bool:
        """Send the first messages of one group; False: the engine does not take them now."""
        line = self._waiting[group]
        kind = line[0][0]
        alike = next((at for at, (other, _) in enumerate(line) if other != kind), len(line))
        together = alike > SINGLES_MAX
        size = min(alike, self._together) if together else 1
        users = [self._said(group, present) for _, present in line[:size]]
        message = {"type": kind, "group": group, "users": users, **({} if together else users[0])}
        try:
            await self._announce(group, kind, message)
        except MessageTooLarge:
            if size > 1:
                self._together = max(1, size // 2)
                return True
            logger.exception("%s of a user of group %r could not be told", kind, group)
        except EngineUnavailable as exc:
            if not self._complained:
                self._complained = True
                logger.warning("Who joined and left groups cannot be told now: %s", exc)
            return False
        except Exception:
            logger.exception("%s of %d users of group %r could not be told", kind, size, group)
        self.sent += 1
        self._count -= size
        del line[:size]
        if not line:
            del self._waiting[group]
        return True

    def _said(self, group: str, present: Present) -> dict[str, Any]:
        return {"user": key_of(present), "channel": present.channel, "info": self._info_of(group, present)}
