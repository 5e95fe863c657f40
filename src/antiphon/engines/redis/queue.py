"""``RedisQueues``: the worker channels of one node, on the server. The engine's QueueEngine; knows no envelope.

The scripts in ``scripts.py`` are the queues; here is who calls them when. What a node has leased it renews as long as
its loop runs; a process that dies gives everything back by no longer doing so.
"""

from __future__ import annotations

import asyncio
import contextlib
import logging
from collections.abc import Callable, Sequence

from ...exceptions import EngineUnavailable
from ..base import Leased
from .bindings import Bindings, Bound
from .desk import Desk, ScriptRunner
from .keys import Keys
from .scripts import BIND, BOUND, UNBIND

__all__ = ["RedisQueues"]

logger = logging.getLogger("antiphon.engine")

# How long the end may take, for each step of it.
CLOSE_S = 1.0
UNBIND_BATCH = 500


class RedisQueues:
    """Worker channels of one node.

    ``lease_s``: after so long without a renewal a message goes to another reader. ``max_deliveries``: how often it may
    be given out before it goes to ``<queue>.dead``, which holds ``dead_capacity`` for ``dead_expiry_s``. ``sharded``:
    wake-ups go by SPUBLISH, as in a cluster.

    ``on_drop(reason, queue, count)``, when set, learns what is lost: ``expired``, ``dead`` (moved to the dead queue, as
    is also logged there), ``over_capacity`` (of a queue that is a member of a group, or of a dead queue).
    ``bindings``: which queues are members of groups.
    """

    def __init__(
        self,
        engine: ScriptRunner,
        keys: Keys,
        *,
        lease_s: float = 30.0,
        max_deliveries: int = 5,
        dead_capacity: int = 1000,
        dead_expiry_s: float = 86400.0,
        sharded: bool = False,
        on_bindings: Callable[[], None] | None = None,
    ) -> None:
        self.engine = engine
        self.keys = keys
        self.lease_s = lease_s
        self.max_deliveries = max_deliveries
        self.dead_capacity = dead_capacity
        self.dead_expiry_s = dead_expiry_s
        self.publish = "SPUBLISH" if sharded else "PUBLISH"
        self.on_drop: Callable[[str, str, int], None] | None = None
        self.bindings = Bindings(self._read_bound, on_bindings or _nothing)
        self._desks: dict[str, Desk] = {}
        self._timer: asyncio.TimerHandle | None = None
        self._ticking: asyncio.Task[None] | None = None
        self._closed = False
        engine.on_up.append(self._link_up)

    def __repr__(self) -> str:
        return f"<RedisQueues {list(self._desks.values())!r}>"

    # Messages

    async def put(
        self, queue: str, payload: bytes, capacity: int, expiry_s: float, *, topic: str | None = None
    ) -> bool:
        """Append; False when ``capacity`` messages wait or are unacknowledged. ``topic``: what it was packed for."""
        return await self._desk(queue).put(_pack(queue, payload, topic), capacity, expiry_s)

    async def lease(self, queue: str) -> Leased:
        """Wait for the first message and take it. Cancelling loses nothing; a link that is down is waited for."""
        if self._closed:
            raise EngineUnavailable(f"worker channel {queue!r}: the layer was closed")
        return await self._desk(queue).lease()

    async def ack(self, queue: str, token: int) -> None:
        """Confirm a leased message. When this raises EngineUnavailable it is tried again until the server has it."""
        await self._desk(queue).ack(token)

    async def release(self, queue: str, token: int, *, unread: bool = False) -> None:
        """Give a leased message back, to its place in line; ``unread``: that was no delivery."""
        await self._desk(queue).release(token, unread=unread)

    async def put_back(self, queue: str, leased: Leased) -> None:
        """Undo an ``ack``: its reader was cancelled before it could return the message."""
        await self._desk(queue).put(_pack(queue, leased.payload, leased.topic), 0, leased.expiry_s, leased)

    def _desk(self, queue: str) -> Desk:
        desk = self._desks.get(queue)
        if desk is None:
            desk = self._desks[queue] = Desk(self, queue)
            if self._timer is None and not self._closed:
                self._timer = asyncio.get_running_loop().call_later(self.lease_s / 3, self._tick)
        return desk

    def dropped(self, reason: str, queue: str, count: int) -> None:
        """Account for messages that nobody gets."""
        if self.on_drop is not None:
            self.on_drop(reason, queue, count)
        else:
            logger.warning("Worker channel %r: %d messages dropped: %s", queue, count, reason)

    def _link_up(self) -> None:
        self.bindings.invalidate()
        for desk in tuple(self._desks.values()):
            desk.stir()

    def _tick(self) -> None:
        self._timer = None
        if self._closed:
            return
        if self._ticking is None:
            self._ticking = asyncio.ensure_future(self._renew())
        if self._desks:
            self._timer = asyncio.get_running_loop().call_later(self.lease_s / 3, self._tick)

    async def _renew(self) -> None:
        try:
            for desk in tuple(self._desks.values()):
                if desk.idle:
                    del self._desks[desk.name]
                    desk.unlisten()
            # All at once: a link that is down must not keep the others' leases from being renewed.
            await asyncio.gather(*(self._renew_desk(desk) for desk in tuple(self._desks.values())))
        finally:
            self._ticking = None

    async def _renew_desk(self, desk: Desk) -> None:
        try:
            await desk.tick()
        except EngineUnavailable as exc:
            logger.warning("Worker channel %r: its leases cannot be renewed now: %s", desk.name, exc)
        except Exception:
            logger.exception("Worker channel %r: its leases could not be renewed", desk.name)

    # Groups

    async def bind(self, topic: str, queue: str, capacity: int, expiry_s: float, ttl_s: float) -> None:
        """Let what is published on ``topic`` also go to ``queue``, for ``ttl_s`` seconds."""
        member = Bound.pack(topic, queue, capacity, expiry_s)
        written = await self.engine.script(BIND, self.keys.bound, [self.keys.bound], [round(ttl_s * 1000), member])
        if int(written):
            self.bindings.invalidate()  # the server says so too, but perhaps after our next publish

    async def unbind(self, topic: str | None, queue: str) -> None:
        """End that; from every topic when ``topic`` is None."""
        members = await self.bindings.of_queue(queue)
        if topic is not None:
            members = [member for member in members if member.partition(b"\0")[0] == topic.encode()]
        for start in range(0, len(members), UNBIND_BATCH):
            batch = members[start : start + UNBIND_BATCH]
            await self.engine.script(UNBIND, self.keys.bound, [self.keys.bound], batch)
        if members:
            self.bindings.invalidate()

    async def bound(self, topic: str) -> list[str]:
        """Return the queues that are bound to ``topic``."""
        return [bound.queue for bound in await self.bindings.queues(topic)]

    async def forward(self, topic: str, payload: bytes) -> None:
        """Put a message that was published on ``topic`` into the queues that are bound to it."""
        bound = await self.bindings.queues(topic)
        if bound:
            await asyncio.gather(*(self._forward(topic, payload, entry) for entry in bound))

    async def _forward(self, topic: str, payload: bytes, bound: Bound) -> None:
        if not await self.put(bound.queue, payload, bound.capacity, bound.expiry_s, topic=topic):
            self.dropped("over_capacity", bound.queue, 1)

    async def _read_bound(self) -> Sequence[bytes]:
        reply: Sequence[bytes] = await self.engine.script(BOUND, self.keys.bound, [self.keys.bound], [])
        return reply

    # The end

    async def close(self) -> None:
        """End every reader, and give back what nobody has seen. What is being handled comes back when its lease ends."""
        self._closed = True
        if self._timer is not None:
            self._timer.cancel()
        with contextlib.suppress(ValueError):
            self.engine.on_up.remove(self._link_up)
        desks, self._desks = tuple(self._desks.values()), {}
        await asyncio.gather(*(desk.close(CLOSE_S) for desk in desks))
        if self._ticking is not None:
            self._ticking.cancel()
        self.bindings.close()


def _pack(queue: str, payload: bytes, topic: str | None) -> bytes:
    name = (topic if topic is not None else "q:" + queue).encode()
    return len(name).to_bytes(2, "big") + name + payload


def _nothing() -> None:
    pass
