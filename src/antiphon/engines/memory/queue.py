"""One worker channel in memory: a queue with competing readers on any loops of the process. Knows no layer.

A reader waits for a signal and takes the message afterwards, in one step: cancelled after the signal it has taken
nothing, and passes the signal on. One message wakes one reader. The lock guards what spans two steps.
"""

from __future__ import annotations

import asyncio
import heapq
import itertools
import threading
import time
from collections import deque
from typing import NamedTuple

from ...names import DEAD
from ..base import Leased

__all__ = ["MemoryQueue"]

# Of all queues of the process: a queue is forgotten when it is empty, and a late ``ack`` must not meet a message of the
# next one of that name.
_numbers = itertools.count(1)


class _Entry(NamedTuple):
    number: int  # the place in line; the token of a lease
    payload: bytes
    topic: str
    expiry_s: float
    deadline_s: float
    delivery_count: int


class MemoryQueue:
    """The messages of one worker channel. ``max_deliveries``: how often one may be given out before it is dead."""

    def __init__(self, name: str, max_deliveries: int = 5) -> None:
        self.name = name
        self.max_deliveries = 0 if name.endswith(DEAD) else max_deliveries
        self.readers = 0  # kept by the bus, under its lock
        self._lock = threading.Lock()
        self._line: list[_Entry] = []  # a heap: what comes back goes to its own place
        self._leased: dict[int, _Entry] = {}
        self._expired = 0
        self._waiting: deque[tuple[asyncio.Future[None], asyncio.AbstractEventLoop]] = deque()

    def __repr__(self) -> str:
        return f"<MemoryQueue {self.name!r} {len(self._line)} waiting, {len(self._leased)} leased>"

    def __len__(self) -> int:
        return len(self._line)

    @property
    def idle(self) -> bool:
        """Nothing waits, nothing is leased, nobody reads."""
        # Not those that wait for a signal: a reader that was woken and has not run yet is none of them.
        return not self._line and not self._leased and not self.readers

    def put(self, payload: bytes, capacity: int, expiry_s: float, topic: str | None = None) -> bool:
        """Append; False when ``capacity`` messages wait or are unacknowledged."""
        now = time.monotonic()
        with self._lock:
            self._drop_expired(now)
            if len(self._line) + len(self._leased) >= capacity:
                return False
            topic = topic if topic is not None else "q:" + self.name
            heapq.heappush(self._line, _Entry(next(_numbers), payload, topic, expiry_s, now + expiry_s, 0))
        self._wake()
        return True

    async def lease(self) -> Leased:
        """Wait for the first message and take it."""
        while True:
            with self._lock:
                self._drop_expired(time.monotonic())
                if self._line:
                    entry = heapq.heappop(self._line)
                    entry = entry._replace(delivery_count=entry.delivery_count + 1)
                    self._leased[entry.number] = entry
                    return Leased(entry.payload, entry.number, entry.delivery_count, entry.topic, entry.expiry_s)
                loop = asyncio.get_running_loop()
                signal = loop.create_future()
                self._waiting.append((signal, loop))
            try:
                await signal
            except asyncio.CancelledError:
                with self._lock:
                    try:
                        self._waiting.remove((signal, loop))
                        signalled = False
                    except ValueError:
                        signalled = True
                if signalled:
                    self._wake()  # it was for a message that is still there
                raise

    def ack(self, token: int) -> None:
        """Confirm a leased message."""
        with self._lock:
            self._leased.pop(token, None)

    def release(self, token: int, *, unread: bool = False) -> Leased | None:
        """Give a leased message back, to its place in line; return it instead when it was given out too often."""
        with self._lock:
            entry = self._leased.pop(token, None)
            if entry is None:
                return None
            if unread:
                entry = entry._replace(delivery_count=entry.delivery_count - 1)
            elif 0 < self.max_deliveries <= entry.delivery_count:
                return Leased(entry.payload, entry.number, entry.delivery_count, entry.topic, entry.expiry_s)
            self._line_up(entry)
        self._wake()
        return None

    def put_back(self, leased: Leased) -> None:
        """Undo an ``ack``."""
        count = leased.delivery_count - 1
        with self._lock:
            self._line_up(_Entry(leased.token, leased.payload, leased.topic, leased.expiry_s, 0, count))
        self._wake()

    def clear(self) -> None:
        """Forget what waits and what is leased."""
        with self._lock:
            self._line.clear()
            self._leased.clear()

    def take_expired(self) -> int:
        """Drop what nobody took in time; return how many it were since the last call."""
        with self._lock:
            self._drop_expired(time.monotonic())
            count, self._expired = self._expired, 0
        return count

    def _line_up(self, entry: _Entry) -> None:
        # Its whole expiry is before it again: the time with a reader was no waiting.
        heapq.heappush(self._line, entry._replace(deadline_s=time.monotonic() + entry.expiry_s))

    def _drop_expired(self, now: float) -> None:
        while self._line and self._line[0].deadline_s <= now:
            heapq.heappop(self._line)
            self._expired += 1

    def _wake(self) -> None:
        here = asyncio._get_running_loop()
        while True:
            with self._lock:
                if not self._waiting:
                    return
                signal, loop = self._waiting.popleft()
            if loop is here:
                if not signal.done():
                    signal.set_result(None)
                    return
            else:
                try:
                    loop.call_soon_threadsafe(self._finish, signal)
                except RuntimeError:  # that loop is closed: nobody waits there any more
                    continue
                return

    def _finish(self, signal: asyncio.Future[None]) -> None:
        if signal.done():  # cancelled on the way here; it could not be found in the line, so it passes the signal on
            return
        signal.set_result(None)
