"""``MemoryBus``: the process's state: who subscribes to what, the logs, the worker channels. Knows no envelope.

Publishing on the loop of a member delivers inside the call; other loops get what is theirs through one FIFO a node.
Tables are replaced, never changed in place, so publishing takes no lock. Appending to a log does: an entry gets its
place and goes into every FIFO in one step, so that all nodes see the entries in the order of their offsets.
"""

from __future__ import annotations

import os
import threading
import time
import weakref
from asyncio import _get_running_loop
from collections.abc import Callable, Collection, Sequence

from ...exceptions import CrossProcessError
from ...names import DEAD
from ...types import Arrival, Keep, Page, Position, Receipt
from ..base import Leased
from .engine import MemoryEngine
from .history import MemoryLogs
from .presence import MemoryPresence
from .queue import MemoryQueue
from .siblings import Siblings

__all__ = ["MemoryBus"]

_RECEIPTS = tuple(Receipt(nodes) for nodes in range(33))
# What the queue of what cannot be handled holds, and for how long.
DEAD_CAPACITY = 1000
DEAD_EXPIRY_S = 86400.0


class MemoryBus:
    """The process's state: who subscribes to what, and the worker channels. Safe from any thread."""

    def __init__(self, name: str = "default", *, max_deliveries: int = 5) -> None:
        self.name = name
        self.siblings = Siblings(name)
        self.forked_from: int | None = None
        self.max_deliveries = max_deliveries
        # Learns what a worker channel loses: reason, queue, how many, the topic if it came by one. Called without locks.
        self.on_drop: Callable[[str, str, int, str | None], None] | None = None
        self._reset()
        _buses.add(self)

    waits_for_nobody = True

    def __repr__(self) -> str:
        return f"<MemoryBus {self.name!r} {len(self._engines)} nodes, {len(self.queues)} queues>"

    def _reset(self) -> None:
        self._lock = threading.RLock()
        self._engines: tuple[MemoryEngine, ...] = ()
        self._topics: dict[str, tuple[MemoryEngine, ...]] = {}
        self._logs = MemoryLogs()
        self.presence = MemoryPresence()
        self.queues: dict[str, MemoryQueue] = {}
        self._bindings: dict[str, dict[str, tuple[int, float, float]]] = {}
        self._swept_s = 0.0

    # Nodes

    def node_engine(self) -> MemoryEngine:
        """Return a new, unopened part for one node."""
        return MemoryEngine(self)

    def attach(self, engine: MemoryEngine) -> None:
        """Take in a node."""
        with self._lock:
            # A closed loop's node is reaped at the next touch.
            for other in self._engines:
                if not other.alive:
                    other.detach()
            self._engines += (engine,)
        self.siblings.announce()

    def detach(self, engine: MemoryEngine, topics: Collection[str]) -> None:
        """Forget a node."""
        with self._lock:
            self._engines = tuple(other for other in self._engines if other is not engine)
            self.unsubscribe(engine, topics)

    def subscribe(self, engine: MemoryEngine, topics: Collection[str]) -> None:
        """Let ``engine`` get what is published on ``topics``."""
        with self._lock:
            for topic in topics:
                engines = self._topics.get(topic, ())
                if engine not in engines:
                    self._topics[topic] = (*engines, engine)

    def unsubscribe(self, engine: MemoryEngine, topics: Collection[str]) -> None:
        """End that."""
        with self._lock:
            for topic in topics:
                rest = tuple(other for other in self._topics.get(topic, ()) if other is not engine)
                if rest:
                    self._topics[topic] = rest
                else:
                    self._topics.pop(topic, None)

    def only_subscriber(self, topic: str) -> MemoryEngine | None:
        """Return the one node that gets what is published on ``topic``, if it is one and no queue does."""
        engines = self._topics.get(topic)
        if engines is None or len(engines) != 1 or topic in self._bindings:
            return None
        return engines[0]

    def publish(self, topic: str, payload: bytes) -> Receipt:
        """Hand ``payload`` to every node and queue that wants ``topic``."""
        if not self._engines:
            self.require_reach()
        engines = self._topics.get(topic, ())
        here = _get_running_loop()
        for engine in engines:
            if engine._loop is here:
                engine._sink.arrive(topic, payload)  # type: ignore[union-attr]  # attached: it has a sink
            else:
                engine.arrive_later(Arrival(topic, payload))
        if self._bindings and topic in self._bindings:
            self._publish_to_queues(topic, payload)
        count = len(engines)
        return _RECEIPTS[count] if count < len(_RECEIPTS) else Receipt(count)

    def publish_blocking(self, topic: str, payload: bytes) -> Receipt:
        """Publish from a thread without a loop: the same, for nothing here ever waits."""
        return self.publish(topic, payload)

    def append_blocking(self, topic: str, payload: bytes, keep: Keep) -> Receipt:
        """Publish and keep: as ``publish``, and the entry's place and its way to every node are one step."""
        if not self._engines:
            self.require_reach()
        here = _get_running_loop()
        with self._lock:
            position, state = self._logs.append(topic, payload, keep)
            if state != "sent":
                return Receipt(0, position, state)
            engines = self._topics.get(topic, ())
            arrival = Arrival(topic, payload, position, position.offset - 1)
            for engine in engines:
                engine.put(arrival)
        for engine in engines:
            if engine._loop is here:
                engine.take_now()
            else:
                engine.schedule()
        if self._bindings and topic in self._bindings:
            self._publish_to_queues(topic, payload)
        return Receipt(len(engines), position)

    def read_blocking(self, topic: str, since: Position | None, limit: int, *, reverse: bool = False) -> Page:
        """Read the log of a topic, from any thread."""
        with self._lock:
            return self._logs.read(topic, since, limit, reverse=reverse)

    def tops_blocking(self, topics: Sequence[str]) -> list[Position]:
        """Return the position of the last message of each log, from any thread."""
        with self._lock:
            return [self._logs.top(topic) for topic in topics]

    def forget_logs(self) -> None:
        """Lose every log: positions in them are good no more."""
        with self._lock:
            self._logs.forget()

    def require_reach(self) -> None:
        """Raise CrossProcessError when the members can only be in another process."""
        if self._engines:
            return
        if self.forked_from is not None:
            self._refuse(f"this process was forked from process {self.forked_from}, where the connections are")
        others = self.siblings.alive()
        if others:
            self._refuse(f"the connections of this project are in process {', '.join(map(str, others))}")

    def _refuse(self, why: str) -> None:
        raise CrossProcessError(
            f"the in-memory layer does not cross processes, and {why}. Use a layer that does: "
            "antiphon.layers.EmbeddedChannelLayer (one machine) or antiphon.layers.RedisChannelLayer."
        )

    # Worker channels

    def _queue(self, name: str) -> MemoryQueue:
        # Under the lock, until the caller put or counted itself a reader: else the queue may be forgotten in between.
        queue = self.queues.get(name)
        if queue is None:
            queue = self.queues[name] = MemoryQueue(name, self.max_deliveries)
        return queue

    def put_now(self, queue: str, payload: bytes, capacity: int, expiry_s: float, topic: str | None = None) -> bool:
        """Append to a worker channel; False when it is full."""
        if not self._engines and self.forked_from is not None:
            self.require_reach()
        with self._lock:
            target = self._queue(queue)
            done = target.put(payload, capacity, expiry_s, topic)
        self._report(target)
        return done

    async def put(
        self, queue: str, payload: bytes, capacity: int, expiry_s: float, *, topic: str | None = None
    ) -> bool:
        """Append to a worker channel; False when it is full."""
        return self.put_now(queue, payload, capacity, expiry_s, topic)

    async def lease(self, queue: str) -> Leased:
        """Wait for a message of a worker channel and take it."""
        self.sweep()
        with self._lock:
            target = self._queue(queue)
            target.readers += 1
        try:
            return await target.lease()
        finally:
            with self._lock:
                target.readers -= 1
                self._forget_idle(target)
            self._report(target)

    async def ack(self, queue: str, token: int) -> None:
        """Confirm a leased message."""
        target = self.queues.get(queue)
        if target is not None:
            target.ack(token)
            self._forget_idle(target)

    async def release(self, queue: str, token: int, *, unread: bool = False) -> None:
        """Give a leased message back, to its place; to the dead queue when it was given out too often."""
        target = self.queues.get(queue)
        dead = target.release(token, unread=unread) if target is not None else None
        if target is None or dead is None:
            return
        self._forget_idle(target)
        if not self.put_now(queue + DEAD, dead.payload, DEAD_CAPACITY, DEAD_EXPIRY_S, dead.topic):
            self._drop("over_capacity", queue + DEAD, 1)
        self._drop("dead", queue, 1)

    async def put_back(self, queue: str, leased: Leased) -> None:
        """Undo an ``ack``."""
        with self._lock:
            self._queue(queue).put_back(leased)

    def _forget_idle(self, queue: MemoryQueue) -> None:
        with self._lock:
            if queue.idle and self.queues.get(queue.name) is queue:
                del self.queues[queue.name]

    def _report(self, queue: MemoryQueue) -> None:
        self._drop("expired", queue.name, queue.take_expired())

    def _drop(self, reason: str, queue: str, count: int, topic: str | None = None) -> None:
        if count and self.on_drop is not None:
            self.on_drop(reason, queue, count, topic)

    def sweep(self) -> None:
        """Drop what nobody read in time from every worker channel; at most once a second."""
        now = time.monotonic()
        if now - self._swept_s < 1.0:
            return
        self._swept_s = now
        for queue in tuple(self.queues.values()):
            self._report(queue)
            self._forget_idle(queue)
        with self._lock:
            for topic, bound in list(self._bindings.items()):
                for name in [name for name, (_, _, until) in bound.items() if until <= now]:
                    del bound[name]
                if not bound:
                    del self._bindings[topic]

    async def bind(self, topic: str, queue: str, capacity: int, expiry_s: float, ttl_s: float) -> None:
        """Let what is published on ``topic`` also go to ``queue``, for ``ttl_s`` seconds."""
        with self._lock:
            self._bindings.setdefault(topic, {})[queue] = (capacity, expiry_s, time.monotonic() + ttl_s)

    async def unbind(self, topic: str | None, queue: str) -> None:
        """End that; from every topic when ``topic`` is None."""
        with self._lock:
            for name in [topic] if topic is not None else list(self._bindings):
                bound = self._bindings.get(name)
                if bound is not None:
                    bound.pop(queue, None)
                    if not bound:
                        del self._bindings[name]

    async def bound(self, topic: str) -> list[str]:
        """Return the queues that are bound to ``topic``."""
        now = time.monotonic()
        with self._lock:
            return [name for name, (_, _, until) in self._bindings.get(topic, {}).items() if until > now]

    def bindings(self) -> dict[str, list[str]]:
        """Return topic -> queues, a copy."""
        with self._lock:
            return {topic: list(bound) for topic, bound in self._bindings.items()}

    def _publish_to_queues(self, topic: str, payload: bytes) -> None:
        now = time.monotonic()
        for name, (capacity, expiry_s, until) in tuple(self._bindings.get(topic, {}).items()):
            # As the group_send of Channels: a full worker channel is no error, but it is counted.
            if until > now and not self.put_now(name, payload, capacity, expiry_s, topic):
                self._drop("over_capacity", name, 1, topic)

    # The rest

    def flush(self) -> None:
        """Forget what waits in every worker channel, and every binding."""
        with self._lock:
            # Emptied, not replaced: readers wait on these very objects, and would never hear of a put into others.
            for queue in tuple(self.queues.values()):
                queue.clear()
                self._forget_idle(queue)
            self._bindings = {}
            self._logs.forget()
            self.presence.clear()

    def after_fork(self) -> None:
        """Drop everything inherited: it belongs to the parent, as do the locks that other threads may hold."""
        if self._engines:
            self.forked_from = os.getppid()
        self._reset()
        self.siblings.after_fork()


_buses: weakref.WeakSet[MemoryBus] = weakref.WeakSet()


def _after_fork() -> None:
    for bus in tuple(_buses):
        bus.after_fork()


if hasattr(os, "register_at_fork"):
    os.register_at_fork(after_in_child=_after_fork)
