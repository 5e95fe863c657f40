"""Whether the server of one link lives and is the primary still; if not, ends the connection. Knows no channel.

A server that is primary no more answers PING, too, and hears nothing of what others publish: so it is asked for its
``ROLE``. Where a primary can move, whoever says where it is must say the same as before.
"""

from __future__ import annotations

import asyncio
import time
from collections.abc import Awaitable, Callable
from math import inf
from time import monotonic
from typing import Any

from ...exceptions import EngineUnavailable
from .connection import Connection, ReplyError
from .hosts import Address
from .settings import LinkSettings

__all__ = ["Heartbeat"]


class Heartbeat:
    """One link's. From ``start()`` to ``stop()`` it watches one connection; what it knows outlives that.

    With ``moves``, an answer counts only when ``find()`` still returns the address.
    """

    def __init__(self, find: Callable[[], Awaitable[Address]], settings: LinkSettings, *, moves: bool) -> None:
        self.latency_s: float | None = None
        self._loop = asyncio.get_running_loop()
        self._find = find
        self._settings = settings
        self._moves = moves
        self._connection: Connection | None = None
        self._address: Address | None = None
        self._good_s = monotonic()  # when the last command that the primary answered had been sent
        self._asked: asyncio.Future[Any] | None = None  # the ROLE that is not answered yet
        self._asked_s = -inf
        self._next_s = inf
        self._checking: asyncio.Task[None] | None = None

    def __repr__(self) -> str:
        state = "stopped" if self._connection is None else "idle" if self._asked is None else "asking"
        return f"<Heartbeat {state}, good until {monotonic() - self._good_s:.1f} s ago>"

    @property
    def asking(self) -> bool:
        """Whether the server is to answer now."""
        return self._asked is not None

    @property
    def good_until(self) -> float:
        """Until when nothing can have been missed (epoch seconds)."""
        return time.time() - (monotonic() - self._good_s)

    def answered(self, sent_s: float) -> None:
        """Learn that the primary has answered a command that was sent then (monotonic)."""
        self._good_s = sent_s

    def start(self, connection: Connection, address: Address | None) -> None:
        """Watch a connection that came up."""
        self._connection, self._address = connection, address
        self._next_s = monotonic() + self._settings.ping_interval_s

    def stop(self) -> None:
        """Forget the connection: it has ended."""
        self._connection = self._asked = None

    def beat(self, now: float) -> None:
        """Ask when it is time; end a connection whose answer is overdue."""
        connection = self._connection
        if connection is None:
            return
        if self._asked is None:
            if now >= self._next_s:
                self._ask(connection, now)
        elif now - self._asked_s > self._settings.pong_timeout_s:
            connection.abort(f"no answer to ROLE within {self._settings.pong_timeout_s:g} s")

    def _ask(self, connection: Connection, now: float) -> None:
        future = connection.call("ROLE")
        self._asked, self._asked_s = future, now

        def replied(done: asyncio.Future[Any]) -> None:
            error = None if done.cancelled() else done.exception()
            if self._asked is not done:
                return  # of a connection that has ended
            self._asked = None
            if done.cancelled() or (error is not None and not isinstance(error, ReplyError)):
                return  # the connection ends
            self.latency_s = monotonic() - now
            self._next_s = monotonic() + self._settings.ping_interval_s
            # An ACL may forbid ROLE: a refusal is a sign of life, too.
            role = done.result()[0] if error is None and isinstance(done.result(), list) else b"master"
            if role != b"master":
                connection.abort(f"it is a {role.decode()} now, not the primary")
            elif self._moves:
                self.check_address(now)
            else:
                self.answered(now)

        future.add_done_callback(replied)

    def check_address(self, answered_s: float = -inf) -> None:
        """Go where the primary is, if that is elsewhere by now; if not, vouch for the time until ``answered_s``."""
        if self._connection is not None and (self._checking is None or self._checking.done()):
            self._checking = self._loop.create_task(self._check_address(self._connection, answered_s))

    async def _check_address(self, connection: Connection, answered_s: float) -> None:
        try:
            address = await self._find()
        except (OSError, TimeoutError, EngineUnavailable):
            return  # nobody knows
        if connection is not self._connection:
            return
        if address == self._address:
            self.answered(max(self._good_s, answered_s))
        else:
            connection.abort(f"the primary is {address.name} now")

    async def close(self) -> None:
        """End."""
        self.stop()
        if self._checking is not None:
            self._checking.cancel()
            await asyncio.wait([self._checking])
