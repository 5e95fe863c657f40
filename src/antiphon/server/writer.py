"""Writes at the end of a turn of the loop what its sockets were given in it: one write a socket, in slices.

A message to many sockets is put to each (0.2 us) and written later (some us, nearly all of it the kernel's), so a room
of any size never keeps the loop longer than ``SLICE_S``; and messages that meet in one turn leave in one write.
"""

from __future__ import annotations

import asyncio
from collections import deque
from time import monotonic
from typing import Protocol
from weakref import WeakKeyDictionary

__all__ = ["Turn", "Written", "turn_of"]

# As the hub's slices: so long may one callback keep the loop from its other sockets.
SLICE_S = 0.005


class Written(Protocol):
    """A socket that holds bytes back until the end of the turn."""

    def flush(self) -> None:
        """Write them."""


class Turn:
    """The sockets of one loop that hold something back. Each puts itself in line once, by ``waiting`` and ``begin``."""

    __slots__ = ("_loop", "waiting")

    def __init__(self, loop: asyncio.AbstractEventLoop) -> None:
        self._loop = loop
        self.waiting: deque[Written] = deque()

    def __repr__(self) -> str:
        return f"<Turn {len(self.waiting)} sockets>"

    def add(self, socket: Written) -> None:
        """Put a socket in line."""
        if not self.waiting:
            self._loop.call_soon(self._write)
        self.waiting.append(socket)

    def _write(self) -> None:
        waiting = self.waiting
        until = monotonic() + SLICE_S
        take = waiting.popleft
        while waiting:
            for _ in range(min(len(waiting), 16)):
                take().flush()
            if monotonic() >= until:
                break
        if waiting:
            self._loop.call_soon(self._write)


_turns: WeakKeyDictionary[asyncio.AbstractEventLoop, Turn] = WeakKeyDictionary()


def turn_of(loop: asyncio.AbstractEventLoop) -> Turn:
    """Return the turn of a loop."""
    turn = _turns.get(loop)
    if turn is None:
        turn = _turns[loop] = Turn(loop)
    return turn
