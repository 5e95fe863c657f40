"""One worker channel in memory: a queue with competing readers on any loops of the process. Knows no layer.

Readers wait for a signal and take the message afterwards, in one step: a reader that is cancelled after the signal
has taken nothing, so nothing is lost. Deques change atomically; the lock guards what spans two steps.
"""

from __future__ import annotations

import threading
import time
from collections import deque
from typing import NamedTuple

from ...bell import Bell
from ..base import Leased

__all__ = ["MemoryQueue"]


class _Entry(NamedTuple):
    payload: bytes
    deadline_s: float
    delivery_count: int


class MemoryQueue:
    """The messages of one worker channel; ``expired`` counts those that nobody took in time."""

    def __init__(self, name: str) -> None:
        self.name = name
        self.expired = 0
        self.readers = 0  # kept by the bus, under its lock
        self._lock = threading.Lock()
        self._entries: deque[_Entry] = deque()
        self._leased: dict[int, _Entry] = {}
        self._token = 0
        self._bell = Bell()

    def __repr__(self) -> str:
        return f"<MemoryQueue {self.name!r} {len(self._entries)} waiting, {len(self._leased)} leased>"

    def __len__(self) -> int:
        return len(self._entries)

    @property
    def idle(self) -> bool:
        """Nothing waits, nothing is leased, nobody reads."""
        # Not the bell's count: a reader that was woken and has not run yet is in no bell.
        return not self._entries and not self._leased and not self.readers

    def put(self, payload: bytes, capacity: int, expiry_s: float) -> bool:
        """Append; False when ``capacity`` messages wait or are unacknowledged."""
        now = time.monotonic()
        with self._lock:
            self._drop_expired(now)
            if len(self._entries) + len(self._leased) >= capacity:
                return False
            self._entries.append(_Entry(payload, now + expiry_s, 0))
        self._bell.ring()
        return True

    async def lease(self) -> Leased:
        """Wait for the first message and take it."""
        while True:
            with self._lock:
                self._drop_expired(time.monotonic())
                if self._entries:
                    entry = self._entries.popleft()
                    self._token += 1
                    self._leased[self._token] = entry
                    return Leased(entry.payload, self._token, entry.delivery_count + 1)
                signal = self._bell.add()
            try:
                await signal
            finally:
                self._bell.discard(signal)

    def ack(self, token: int) -> None:
        """Confirm a leased message."""
        with self._lock:
            self._leased.pop(token, None)

    def release(self, token: int) -> None:
        """Give a leased message back, to the front."""
        with self._lock:
            entry = self._leased.pop(token, None)
            if entry is None:
                return
            self._entries.appendleft(entry._replace(delivery_count=entry.delivery_count + 1))
        self._bell.ring()

    def clear(self) -> None:
        """Forget what waits and what is leased; tokens go on, so a late ``ack`` never meets a later lease."""
        with self._lock:
            self._entries.clear()
            self._leased.clear()

    def sweep(self, now: float) -> None:
        """Drop what nobody took in time."""
        with self._lock:
            self._drop_expired(now)

    def _drop_expired(self, now: float) -> None:
        while self._entries and self._entries[0].deadline_s <= now:
            self._entries.popleft()
            self.expired += 1
