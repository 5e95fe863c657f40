"""Deadlines of many sockets on one timer. Knows no socket beyond the one call it makes.

A timer a connection would cost more memory than the connection's own object, and waking for each more time than a
ping. All deadlines of one length fall due in the order in which they were set, so a dict, which keeps that order, is
a queue that needs no sorting.
"""

from __future__ import annotations

import asyncio
from typing import Protocol
from weakref import WeakKeyDictionary

__all__ = ["Clock", "Watched", "clock_of"]


class Watched(Protocol):
    """What has a deadline. ``deadline_s``: the length of the one that runs, 0 for none; the clock's to set."""

    deadline_s: float

    def overdue(self) -> None:
        """Learn that the deadline has passed. It runs no more."""


class Clock:
    """The deadlines of one loop: at most one of each watched object."""

    __slots__ = ("_due_s", "_loop", "_queues", "_timer")

    def __init__(self, loop: asyncio.AbstractEventLoop) -> None:
        self._loop = loop
        self._queues: dict[float, dict[Watched, float]] = {}
        self._timer: asyncio.TimerHandle | None = None
        self._due_s = 0.0

    def __repr__(self) -> str:
        return f"<Clock {sum(map(len, self._queues.values()))} deadlines>"

    def watch(self, watched: Watched, seconds: float | None) -> None:
        """Set a deadline in place of the one before; None: without one."""
        self.forget(watched)
        if seconds is None:
            return
        queue = self._queues.get(seconds)
        if queue is None:
            queue = self._queues[seconds] = {}
        due_s = queue[watched] = self._loop.time() + seconds
        watched.deadline_s = seconds
        if self._timer is None:
            self._arm(due_s)
        elif due_s < self._due_s:
            self._timer.cancel()
            self._arm(due_s)

    def forget(self, watched: Watched) -> None:
        """End a deadline, if one runs."""
        seconds = watched.deadline_s
        if seconds:
            watched.deadline_s = 0.0
            queue = self._queues.get(seconds)
            if queue is not None:
                queue.pop(watched, None)
                if not queue:
                    del self._queues[seconds]

    def _arm(self, due_s: float) -> None:
        self._due_s = due_s
        self._timer = self._loop.call_at(due_s, self._look)

    def _look(self) -> None:
        self._timer = None
        now = self._loop.time()
        overdue: list[Watched] = []
        for queue in self._queues.values():
            for watched, due_s in queue.items():
                if due_s > now:
                    break
                overdue.append(watched)
        for watched in overdue:
            # An earlier one of these may have ended or renewed it.
            queue = self._queues.get(watched.deadline_s, {})
            if queue.get(watched, now + 1.0) <= now:
                self.forget(watched)
                watched.overdue()
        if self._timer is None and self._queues:
            self._arm(min(next(iter(queue.values())) for queue in self._queues.values()))


_clocks: WeakKeyDictionary[asyncio.AbstractEventLoop, Clock] = WeakKeyDictionary()


def clock_of(loop: asyncio.AbstractEventLoop) -> Clock:
    """Return the clock of a loop."""
    clock = _clocks.get(loop)
    if clock is None:
        clock = _clocks[loop] = Clock(loop)
    return clock
