"""What leaves for one client: kept for a turn of the loop, then written past the transport as long as the kernel takes it.

Bytes only. The transport is written to when the kernel is full, or where it must be (TLS, Windows); until it has passed
on what it holds, everything goes through it, so the order is always that of the calls.
"""

from __future__ import annotations

import asyncio
import os
from collections.abc import Sequence
from typing import cast

from ..wire.deflate import Setting
from ..wire.prebuilt import FrameSocket, Prebuilt
from .writer import Turn, turn_of

__all__ = ["ASKED", "CLOSING", "CONNECTING", "DENYING", "DONE", "LOST", "OPEN", "Outgoing"]

# The life of a socket: its request is read; the application decides, or denies; it is open; a close frame was sent and
# the client's is waited for; all is said, and nothing more is read; it is gone.
ASKED, CONNECTING, DENYING, OPEN, CLOSING, DONE, LOST = range(7)
_STATES = ("asked", "connecting", "denying", "open", "closing", "done", "lost")

# What one socket is given in one turn is written at the turn's end, or once it is so much.
_TURN_BYTES = 1 << 16


class Outgoing(asyncio.Protocol):
    """The outgoing half of a socket, as far as bytes go."""

    __slots__ = (
        "_drain",
        "_fd",
        "_held_bytes",
        "_limit_bytes",
        "_out",
        "_paused",
        "_setting",
        "_state",
        "_turn",
        "full",
        "loop",
        "straight",
        "transport",
    )

    transport: asyncio.Transport

    def __init__(self, loop: asyncio.AbstractEventLoop, limit_bytes: int) -> None:
        self.loop = loop
        self._state = ASKED
        self._turn: Turn = turn_of(loop)
        self._out: bytes | list[bytes] | None = None  # what this turn's end will write
        self._held_bytes = 0  # of it, where it is much
        self._limit_bytes = limit_bytes
        self._fd = -1  # where bytes are written past the transport; -1: not past it
        self._paused = False  # the kernel takes no more, and the transport holds the rest
        self._drain: asyncio.Future[None] | None = None  # of drained()
        self._setting: Setting | None = None  # of permessage-deflate, if negotiated
        self.straight = -1  # where a plain frame may be written right now
        self.full = False  # more than the limit waits

    def __repr__(self) -> str:
        return f"<{type(self).__name__} {_STATES[self._state]}{' paused' if self._paused else ''}>"

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        """Take over a transport."""
        self.transport = cast("asyncio.Transport", transport)
        if os.name == "posix" and transport.get_extra_info("sslcontext") is None:
            # Paused as soon as the transport keeps anything: until then, and only then, the kernel is written to at
            # once. The limit for what may wait is ours.
            self._fd = transport.get_extra_info("socket").fileno()
            self.transport.set_write_buffer_limits(high=0, low=0)
        else:
            self.transport.set_write_buffer_limits(high=self._limit_bytes)

    def connection_lost(self, exc: Exception | None) -> None:
        """Learn that the transport is gone."""
        self._state = LOST
        self._fd = -1
        self._out = None
        self._paused = self.full = False
        self.straight = -1
        self._release()

    def pause_writing(self) -> None:
        """Learn that the client reads slower than it is written to."""
        self._paused = True
        self.aim()

    def resume_writing(self) -> None:
        """Learn that it has caught up."""
        self._paused = False
        self.aim()
        self._release()

    def _release(self) -> None:
        drain, self._drain = self._drain, None
        if drain is not None and not drain.done():
            drain.set_result(None)

    def aim(self) -> None:
        """Find out anew where plain frames go, and whether more is taken at all: something has changed."""
        plain = self._state == OPEN and not self._paused and self._setting is None
        self.straight = self._fd if plain else -1
        self.full = self._paused and self.transport.get_write_buffer_size() > self._limit_bytes

    def limit(self, send_buffer_bytes: int) -> None:
        """Set how much may wait for the client."""
        self._limit_bytes = send_buffer_bytes
        if self._fd < 0 and self._state < LOST:
            self.transport.set_write_buffer_limits(high=send_buffer_bytes)

    def write(self, message: Prebuilt) -> bool:
        """Send a message at the end of this turn; False: more than the limit waits for the client already.

        After the end it goes nowhere, as what was sent a moment before the end may.
        """
        turn = self._turn
        if turn.batch is not None:
            turn.spread()
        if self._state != OPEN:
            return True
        setting = self._setting
        data = message.frame if setting is None else message.compressed(setting)
        out = self._out
        if out is None:
            if self.full:
                return False
            self._out = data
            if turn.waiting:
                turn.waiting.append(self)
            else:
                turn.add(self)
            return True
        if self._held_bytes > _TURN_BYTES:
            self.flush()
            return self.write(message)
        if type(out) is list:
            out.append(data)
        else:
            self._out = [cast("bytes", out), data]
        self._held_bytes += len(data)
        return True

    def write_all(self, message: Prebuilt, sockets: Sequence[FrameSocket]) -> None:
        """Send a message to many sockets of this loop, none of which is ``full``."""
        self._turn.add_all(message, cast("Sequence[Outgoing]", sockets))

    def hold_back(self, data: bytes) -> None:
        """Send a frame of our own behind what this turn has."""
        self._turn.spread()
        if self._out is None:
            self._out = data
            self._turn.add(self)
        elif type(self._out) is list:
            self._out.append(data)
        else:
            self._out = [cast("bytes", self._out), data]

    def flush(self) -> None:
        """Write what this turn has brought."""
        out = self._out
        if out is None:
            return
        self._out = None
        if type(out) is list:
            out = b"".join(out)
            self._held_bytes = 0
        data = cast("bytes", out)
        if self._fd >= 0 and not self._paused:
            try:
                written = os.write(self._fd, data)
            except OSError:  # full, or broken: the transport finds out which, and says so
                written = 0
            if written == len(data):
                return
            data = data[written:]
        self.pass_on(data)

    def pass_on(self, data: bytes) -> None:
        """Have the transport write what could not be written straight."""
        self.transport.write(data)
        if self._paused:
            self.full = self.transport.get_write_buffer_size() > self._limit_bytes

    async def drained(self) -> None:
        """Wait until no more than the limit waits for the client, or it has gone."""
        while self.full and self._state == OPEN:
            if self._drain is None:
                self._drain = self.loop.create_future()
            await asyncio.shield(self._drain)
