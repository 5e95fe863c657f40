"""``Bindings``: which worker channels are members of which groups, as one node knows it. Knows no connection.

The registry is one ZSET on the server. Its whole content is kept here, so that a publish to a group without worker
channels, which nearly all are, costs one look into a dict. The server announces changes; ``MAX_AGE_S`` bounds how long
an old table is believed where it does not.
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Awaitable, Callable, Sequence
from time import monotonic
from typing import NamedTuple

from ...exceptions import EngineUnavailable

__all__ = ["Bindings", "Bound"]

logger = logging.getLogger("antiphon.engine")

MAX_AGE_S = 30.0
# After a failed read, what was known is used for so long before the next attempt.
RETRY_S = 1.0


class Bound(NamedTuple):
    """A worker channel's membership. ``until_s``: by this process's monotonic clock."""

    member: bytes
    queue: str
    capacity: int
    expiry_s: float
    until_s: float

    @staticmethod
    def pack(topic: str, queue: str, capacity: int, expiry_s: float) -> bytes:
        """Return what stands in the registry. The queue's bounds travel along: who publishes may not know them."""
        return b"\0".join((topic.encode(), queue.encode(), b"%d" % capacity, b"%d" % round(expiry_s * 1000)))


class Bindings:
    """The table. ``stale``: it may have changed. ``topics``: topic -> queue -> Bound, for a look without waiting."""

    def __init__(self, read: Callable[[], Awaitable[Sequence[bytes]]], on_change: Callable[[], None]) -> None:
        self.stale = True
        self.loaded = False  # read at least once
        self.topics: dict[str, dict[str, Bound]] = {}
        self._read = read
        self._on_change = on_change
        self._changes = 0
        self._reading: asyncio.Task[None] | None = None
        self._retry_s = 0.0
        self._timer: asyncio.TimerHandle | None = None
        self._closed = False

    def __repr__(self) -> str:
        return f"<Bindings of {len(self.topics)} topics{' (stale)' if self.stale else ''}>"

    def invalidate(self) -> None:
        """Learn that the registry has changed, or may have."""
        self._changes += 1
        if not self.stale:
            self.stale = True
            self._on_change()

    async def queues(self, topic: str) -> list[Bound]:
        """Return what is bound to ``topic`` now; reads the registry first if it may have changed."""
        if self.stale:
            await self._refresh()
        bound = self.topics.get(topic)
        if not bound:
            return []
        now = monotonic()
        for entry in [entry for entry in bound.values() if entry.until_s <= now]:
            del bound[entry.queue]
        if not bound:
            del self.topics[topic]
            self._on_change()
        return list(bound.values())

    async def of_queue(self, queue: str) -> list[bytes]:
        """Return the registry's members for one queue, read now."""
        self.invalidate()
        self._retry_s = 0.0
        await self._refresh(strict=True)
        return [bound[queue].member for bound in self.topics.values() if queue in bound]

    def close(self) -> None:
        """Forget everything."""
        self._closed = True
        if self._timer is not None:
            self._timer.cancel()
        if self._reading is not None:
            self._reading.cancel()
        self.stale = True
        self.topics = {}

    async def _refresh(self, *, strict: bool = False) -> None:
        while self.stale and monotonic() >= self._retry_s:
            # One that is done may not have been told yet: to await it would not let the loop have a turn.
            if self._reading is None or self._reading.done():
                self._reading = asyncio.ensure_future(self._read_now())
                self._reading.add_done_callback(self._read_done)
            try:
                await asyncio.shield(self._reading)
            except EngineUnavailable as exc:
                # What is published has arrived at every node; better to go by what was known than to fail it.
                first = monotonic() >= self._retry_s  # of those that waited for this one reading
                self._retry_s = monotonic() + RETRY_S
                if strict:
                    raise
                if first and not self._closed:
                    logger.warning("Which worker channels belong to groups cannot be read now: %s", exc)
                return

    def _read_done(self, done: asyncio.Task[None]) -> None:
        if self._reading is done:
            self._reading = None
        if not done.cancelled():
            done.exception()  # whoever waited has seen it

    async def _read_now(self) -> None:
        changes = self._changes
        reply = await self._read()
        ahead_s = float(reply[0]) / 1000 - monotonic()
        topics: dict[str, dict[str, Bound]] = {}
        for member, until_ms in zip(reply[1::2], reply[2::2], strict=True):
            parts = member.split(b"\0")
            if len(parts) != 4:
                continue  # not ours
            topic, queue = parts[0].decode(), parts[1].decode()
            until_s = float(until_ms) / 1000 - ahead_s
            bound = topics.setdefault(topic, {})
            # Twice there when its capacity was changed meanwhile: the later one holds.
            if queue not in bound or bound[queue].until_s < until_s:
                bound[queue] = Bound(member, queue, int(parts[2]), int(parts[3]) / 1000, until_s)
        self.topics = topics
        self.loaded = True
        if changes == self._changes:
            self.stale = False
            if self._timer is not None:
                self._timer.cancel()
            self._timer = asyncio.get_running_loop().call_later(MAX_AGE_S, self.invalidate)
        self._on_change()
