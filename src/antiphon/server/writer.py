"""Writes at the end of a turn of the loop what its sockets were given in it: one write a socket, in slices.

A message to many sockets is put down once, with the list of them, and written later (some us each, nearly all of it the
kernel's), so a room of any size never keeps the loop longer than ``SLICE_S``. What meets another message in its turn is
held by each socket for itself, and leaves with it in one write.
"""

from __future__ import annotations

import asyncio
from collections import deque
from collections.abc import Sequence
from os import write
from time import monotonic
from typing import Protocol
from weakref import WeakKeyDictionary

from ..wire.prebuilt import Prebuilt
from .clock import clock_of

__all__ = ["Turn", "Written", "turn_of"]

# As the hub's slices: so long may one callback keep the loop from its other sockets.
SLICE_S = 0.005
# Sockets that are written between two looks at the clock.
_STRIDE = 16


class Written(Protocol):
    """A socket that holds bytes back until the end of the turn.

    ``straight``: the descriptor to write plain frames to, -1 where that is not the way.
    """

    straight: int

    def write(self, message: Prebuilt, /) -> bool:
        """Send a message behind what it holds."""

    def flush(self) -> None:
        """Write what it holds."""

    def pass_on(self, data: bytes, /) -> None:
        """Have the transport write what could not be written straight."""


class Turn:
    """What the sockets of one loop have to write: each that holds something, or one message of many."""

    __slots__ = ("_loop", "batch", "clock", "waiting")

    def __init__(self, loop: asyncio.AbstractEventLoop) -> None:
        self._loop = loop
        self.clock = clock_of(loop)  # beside it, so that a socket keeps one reference
        self.waiting: deque[Written] = deque()
        # One message and those who are to get it, as long as it is all there is to write.
        self.batch: tuple[Prebuilt, Sequence[Written]] | None = None

    def __repr__(self) -> str:
        return f"<Turn {len(self.batch[1]) if self.batch else len(self.waiting)} sockets>"

    def add(self, socket: Written) -> None:
        """Put a socket in line."""
        if not self.waiting:
            self._loop.call_soon(self._write)
        self.waiting.append(socket)

    def add_all(self, message: Prebuilt, sockets: Sequence[Written]) -> None:
        """Send a message to many sockets, none of which is full."""
        if not self.waiting and self.batch is None:
            self.batch = (message, sockets)
            self._loop.call_soon(self._write)
            return
        self.spread()
        for socket in sockets:
            socket.write(message)

    def spread(self) -> None:
        """Let each socket hold its message itself: something else is to be written behind it."""
        if self.batch is not None:
            (message, sockets), self.batch = self.batch, None
            for socket in sockets:
                _write_behind(socket, message)

    def _write(self) -> None:
        until = monotonic() + SLICE_S
        if self.batch is not None:
            (message, sockets), self.batch = self.batch, None
            rest = _write_to_all(message, sockets, until)
            if rest:
                self.batch = (message, rest)
        waiting = self.waiting
        while waiting and self.batch is None:
            for _ in range(min(len(waiting), _STRIDE)):
                waiting.popleft().flush()
            if monotonic() >= until:
                break
        if waiting or self.batch is not None:
            self._loop.call_soon(self._write)


def _write_to_all(message: Prebuilt, sockets: Sequence[Written], until: float) -> Sequence[Written]:
    """Write one message to sockets until the time is over; return those that remain."""
    frame, done = message.frame, 0
    size = len(frame)
    while True:
        for socket in sockets[done : done + _STRIDE]:
            if socket.straight < 0:
                _write_behind(socket, message)
                continue
            try:
                written = write(socket.straight, frame)
            except OSError:  # full, or broken: the transport finds out which, and says so
                written = 0
            if written != size:
                socket.pass_on(frame[written:])
        done += _STRIDE
        if done >= len(sockets) or monotonic() >= until:
            return sockets[done:]


def _write_behind(socket: Written, message: Prebuilt) -> None:
    # It was taken when the socket was not full. If it is now, one message more does no harm, and a lost one would.
    if not socket.write(message):
        socket.pass_on(message.frame)


_turns: WeakKeyDictionary[asyncio.AbstractEventLoop, Turn] = WeakKeyDictionary()


def turn_of(loop: asyncio.AbstractEventLoop) -> Turn:
    """Return the turn of a loop."""
    turn = _turns.get(loop)
    if turn is None:
        turn = _turns[loop] = Turn(loop)
    return turn
