"""``MemoryEngine``: one node's part in the memory engine; the process's state is in ``bus.py``. Knows no envelope."""

from __future__ import annotations

import asyncio
from collections import deque
from collections.abc import Collection, Sequence
from typing import TYPE_CHECKING

from ...types import Arrival, Keep, Page, Position, Receipt
from ..base import Sink

if TYPE_CHECKING:
    from .bus import MemoryBus
    from .presence import MemoryPresence

__all__ = ["MemoryEngine"]


class MemoryEngine:
    """One node's part: its subscriptions, and the FIFO through which other threads reach its loop."""

    max_payload_bytes = 1 << 62  # memory sets no bound of its own

    def __init__(self, bus: MemoryBus) -> None:
        self.bus = bus
        self._loop: asyncio.AbstractEventLoop | None = None
        self._sink: Sink | None = None
        self._inbox: deque[Arrival] = deque()
        self._scheduled = False
        self._topics: set[str] = set()

    def __repr__(self) -> str:
        return f"<MemoryEngine {len(self._topics)} topics>"

    async def open(self, sink: Sink) -> None:
        """Attach to the running loop."""
        self.attach(sink, asyncio.get_running_loop())

    def attach(self, sink: Sink, loop: asyncio.AbstractEventLoop) -> None:
        """Attach to ``loop``: memory has nothing to wait for."""
        self._sink, self._loop = sink, loop
        self.bus.attach(self)

    async def close(self) -> None:
        """Detach and forget every subscription."""
        self.detach()

    def detach(self) -> None:
        """Detach and forget every subscription; from any thread."""
        self.bus.detach(self, tuple(self._topics))
        self._topics.clear()
        self._inbox.clear()

    @property
    def presence(self) -> MemoryPresence:
        """Who is in which group."""
        return self.bus.presence

    @property
    def alive(self) -> bool:
        """Whether the node's loop can still run anything."""
        return self._loop is not None and not self._loop.is_closed()

    def subscribe(self, topics: Collection[str]) -> None:
        """Subscribe; what is published from now on arrives."""
        self._topics.update(topics)
        self.bus.subscribe(self, topics)

    def unsubscribe(self, topics: Collection[str]) -> None:
        """End subscriptions."""
        self._topics.difference_update(topics)
        self.bus.unsubscribe(self, topics)

    def publish(self, topic: str, payload: bytes) -> Receipt:
        """Publish to every node of the process that subscribes."""
        return self.bus.publish(topic, payload)

    def append(self, topic: str, payload: bytes, keep: Keep) -> Receipt:
        """Publish, and keep in the topic's log."""
        return self.bus.append_blocking(topic, payload, keep)

    async def read(self, topic: str, since: Position | None, limit: int, *, reverse: bool = False) -> Page:
        """Read the log of a topic."""
        return self.bus.read_blocking(topic, since, limit, reverse=reverse)

    async def tops(self, topics: Sequence[str]) -> list[Position]:
        """Return the position of the last message of each log."""
        return self.bus.tops_blocking(topics)

    def arrive_later(self, arrival: Arrival) -> None:
        """Hand one message to the node from another loop or thread, through the FIFO."""
        self._inbox.append(arrival)
        self.schedule()

    def put(self, arrival: Arrival) -> None:
        """Put one message into the FIFO, for ``take_now`` or ``schedule``."""
        self._inbox.append(arrival)

    def schedule(self) -> None:
        """Have the loop take what is in the FIFO."""
        if not self._scheduled:
            self._scheduled = True
            try:
                self._loop.call_soon_threadsafe(self._drain)  # type: ignore[union-attr]  # attached: it has a loop
            except RuntimeError:  # the loop is closed: its node is gone with it
                self.detach()

    def take_now(self) -> None:
        """Take what is in the FIFO, on the node's own loop."""
        self._drain()

    def _drain(self) -> None:
        # The flag first: what is appended from here on schedules a new drain, or is taken by this one.
        self._scheduled = False
        # One by one: a handler that appends to a log takes what is before its own message first. And not "while":
        # threads that send without a pause would keep the loop here for ever.
        for _ in range(len(self._inbox)):
            try:
                arrival = self._inbox.popleft()
            except IndexError:  # taken by a handler, or detached meanwhile
                return
            if self._sink is not None:
                self._sink.deliver((arrival,))
