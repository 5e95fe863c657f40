"""``RedisEngine``: one node's part of the Redis engine. Knows no envelope.

A topic is one pub/sub channel, on one link. Who the links are and which channel lives on which is the router's to
say: ``shards.py`` for one server or several, ``cluster.py`` for a cluster.
"""

from __future__ import annotations

import asyncio
import contextlib
import logging
from asyncio import _get_running_loop
from collections.abc import Callable, Collection, Sequence
from time import monotonic
from typing import TYPE_CHECKING, Any

from ...exceptions import EngineUnavailable
from ...types import Page, Position
from ..base import Leased, Sink
from .administration import flush, link_states, measure
from .cluster import ClusterRouter
from .connection import Connection, ReplyError, until_ended
from .history import RedisLogs, arrival
from .hosts import Address
from .link import Link
from .presence import RedisPresence
from .publishing import Publishing
from .queue import RedisQueues
from .scripts import Script
from .shards import ShardRouter
from .startup import check_server

if TYPE_CHECKING:
    from .bus import RedisBus

__all__ = ["RedisEngine"]

logger = logging.getLogger("antiphon.engine")

# How long the subscription of a topic without members is kept: a page that reloads finds it there.
LINGER_S = 2.0


class RedisEngine(Publishing):
    """One node's part: its links and subscriptions. Made on any thread; lives on the node's loop from ``attach`` on."""

    waits_for_nobody = False
    max_payload_bytes = 512 << 20  # what RESP allows; the layer's own bound is far below

    def __init__(self, bus: RedisBus) -> None:
        super().__init__(bus.keys, sharded=bus.cluster)
        self.bus = bus
        self.node = ""
        self.on_up: list[Callable[[], None]] = []
        self.queues = RedisQueues(
            self,
            bus.keys,
            lease_s=bus.lease_s,
            max_deliveries=bus.max_deliveries,
            sharded=bus.cluster,
            on_bindings=self.watch_bindings,
        )
        self.max_deliveries = bus.max_deliveries
        self._sink: Sink | None = None
        self._loop: asyncio.AbstractEventLoop | None = None
        self._logs = RedisLogs(bus, self.script)
        self.presence = RedisPresence(self, bus.keys)
        self._topics: dict[bytes, str] = {}
        self._listeners: dict[bytes, Callable[[bytes], None]] = {}
        self._lingering: dict[bytes, float] = {}
        self._sweeper: asyncio.TimerHandle | None = None
        self._closed = False

    def __repr__(self) -> str:
        links = ", ".join(map(repr, self.links))
        return f"<RedisEngine {len(self._topics)} topics, {links or 'not started'}>"

    @property
    def links(self) -> list[Link]:
        """The links, up or not."""
        return self._router.links if self._router is not None else []

    # Begin and end

    async def open(self, sink: Sink) -> None:
        """Attach to the running loop."""
        self.attach(sink, asyncio.get_running_loop(), "")

    def attach(self, sink: Sink, loop: asyncio.AbstractEventLoop, node: str, topics: Collection[str] = ()) -> None:
        """Live on ``loop`` from now on, as ``node``, subscribed to ``topics``; connecting goes on by itself."""
        self._sink, self._loop, self.node = sink, loop, node
        self.bus.engines.add(self)
        if _get_running_loop() is loop:
            self._start(topics)
        else:
            loop.call_soon_threadsafe(self._start, topics)

    def _start(self, topics: Collection[str]) -> None:
        if self._closed:
            self._started.set()
            return
        self._router = (ClusterRouter if self.bus.cluster else ShardRouter)(self, self.bus)
        self.subscribe(topics)
        self._started.set()

    async def close(self) -> None:
        """End the links. Waits until what is leased is given back."""
        self._closed = True
        self.bus.engines.discard(self)
        if self._loop is None or self._loop.is_closed():
            return
        if self._loop is not asyncio.get_running_loop():
            if self._loop.is_running():
                await asyncio.wrap_future(asyncio.run_coroutine_threadsafe(self._close(), self._loop))
            return
        await self._close()

    async def _close(self) -> None:
        self._started.set()
        if self._sweeper is not None:
            self._sweeper.cancel()
        with contextlib.suppress(EngineUnavailable):
            await self.queues.close()
        for task in tuple(self._settling):
            task.cancel()
        if self._router is not None:
            await self._router.close()
        self._topics.clear()
        self._listeners.clear()

    # Subscribing

    def subscribe(self, topics: Collection[str]) -> asyncio.Future[None] | None:
        """Subscribe. None when all are subscribed already; else a future, which fails after ``timeout_s``."""
        channels = []
        for topic in topics:
            channel = self.keys.channel(topic)
            self._lingering.pop(channel, None)
            self._topics[channel] = topic
            channels.append(channel)
        return self._subscribe(channels)

    def _subscribe(self, channels: list[bytes]) -> asyncio.Future[None] | None:
        if self._router is None:
            # Attached from another thread a moment ago: the loop has not had its turn yet.
            return asyncio.ensure_future(self._subscribe_later(channels))
        return self._router.subscribe(channels)

    async def _subscribe_later(self, channels: list[bytes]) -> None:
        future = (await self._router_now()).subscribe(channels)
        if future is not None:
            await asyncio.shield(future)

    def unsubscribe(self, topics: Collection[str]) -> None:
        """End subscriptions, a little later: a topic that is wanted again by then costs no round trip."""
        until = monotonic() + LINGER_S
        for topic in topics:
            self._lingering[self.keys.channel(topic)] = until
        if self._sweeper is None and self._loop is not None and not self._closed:
            self._sweeper = self._loop.call_later(LINGER_S, self._sweep)

    def _sweep(self) -> None:
        self._sweeper = None
        now = monotonic() + 0.1
        over = []
        for channel, until in self._lingering.items():  # in the order of their ends
            if until > now:
                break
            over.append(channel)
        for channel in over:
            del self._lingering[channel]
            self._topics.pop(channel, None)
        if self._router is not None:
            self._router.unsubscribe(over)
        if self._lingering and self._loop is not None:
            first = next(iter(self._lingering.values()))
            self._sweeper = self._loop.call_later(max(first - now + 0.1, 0.1), self._sweep)

    async def listen(self, channel: bytes, callback: Callable[[bytes], None]) -> None:
        """Call ``callback`` with what is published on a raw channel, until ``unlisten``."""
        self._listeners[channel] = callback
        future = self._subscribe([channel])
        if future is not None:
            await asyncio.shield(future)

    def unlisten(self, channel: bytes) -> None:
        """End that."""
        if self._listeners.pop(channel, None) is not None and self._router is not None:
            self._router.unsubscribe([channel])

    # What links call

    def message(self, channel: bytes, payload: bytes) -> None:
        """Take one message."""
        topic = self._topics.get(channel)
        if topic is not None:
            if payload[:1] == b"P":
                self._sink.deliver((arrival(topic, payload),))  # type: ignore[union-attr]  # attached: it has a sink
            else:
                self._sink.arrive(topic, payload)  # type: ignore[union-attr]  # as above
        else:
            listener = self._listeners.get(channel)
            if listener is not None:
                listener(payload)

    def lost(self, channels: Collection[bytes], reason: str, good_until: float) -> None:
        """Pass on what a link cannot vouch for."""
        topics = [
            topic for channel in channels if (topic := self._topics.get(channel)) and channel not in self._lingering
        ]
        if topics and self._sink is not None:
            self._sink.lost(topics, reason, good_until)

    def link_changed(self, link: Link, up: bool) -> None:
        """Pass on a link's state; whoever waits for links hears of it."""
        if self._sink is not None:
            self._sink.link(link.name, up)
        if up:
            self.watch_bindings()
            for callback in tuple(self.on_up):
                callback()
        else:
            self._renewed.clear()
            if self._router is not None:
                self._router.link_down(link)

    def invalidated(self, link: Link) -> None:
        """Learn that the table of worker channels in groups has changed."""
        self.queues.bindings.invalidate()

    def watch_bindings(self) -> None:
        """Have every publish's reply looked at while some group has worker channels, or nobody knows."""
        bindings = self.queues.bindings
        settling = bindings.stale or bool(bindings.topics)
        for link in self.links:
            if link.connection is not None:
                link.connection.settling = settling

    def gone(self, link: Link, channel: bytes) -> None:
        """Learn that a channel's slot has moved away from a link."""
        if self._router is not None:
            self._router.moved(link, channel)

    def elsewhere(self, link: Link, channels: list[bytes], future: asyncio.Future[None]) -> None:
        """Take over who waits for channels that moved while they were being subscribed."""
        if self._router is not None:
            self._router.elsewhere(link, channels, future)

    async def greeted(self, link: Link, connection: Connection, address: Address) -> None:
        """Look at a server once a process, when it is first reached."""
        if address.name in self.bus.checked:
            return
        self.bus.checked.add(address.name)

        async def call(*command: bytes | str | int) -> Any:
            return await until_ended(connection, connection.call(*command))

        for warning in await check_server(call, address, self.keys, cluster=self.bus.cluster):
            logger.warning("%s", warning)

    # Logs

    async def read(self, topic: str, since: Position | None, limit: int, *, reverse: bool = False) -> Page:
        """Read a topic's log, as ``HistoryEngine.read``."""
        return await self._logs.read(topic, since, limit, reverse=reverse)

    async def tops(self, topics: Sequence[str]) -> list[Position]:
        """Return where logs end, as ``HistoryEngine.tops``."""
        return await self._logs.tops(topics)

    # Scripts, worker channels

    async def script(self, script: Script, key: bytes, keys: Sequence[bytes], args: Sequence[bytes | str | int]) -> Any:
        """Run a script where ``key`` lives. Raises EngineUnavailable when the link is down for ``timeout_s``."""
        router = await self._router_now()
        command, text = "EVALSHA", script.sha
        attempts = 6
        while True:
            link = await router.found(key)
            attempts -= 1
            try:
                return await link.call(command, text, len(keys), *keys, *args)
            except ReplyError as exc:
                if str(exc).startswith("NOSCRIPT") and attempts:
                    command, text = "EVAL", script.text
                elif not attempts or not await router.follow(link, key, exc):
                    raise link.error(f"it refuses a script: {exc}") from exc

    async def put(
        self, queue: str, payload: bytes, capacity: int, expiry_s: float, *, topic: str | None = None
    ) -> bool:
        """Append to a worker channel; False when it is full."""
        return await self.queues.put(queue, payload, capacity, expiry_s, topic=topic)

    async def lease(self, queue: str) -> Leased:
        """Wait for a message of a worker channel and take it."""
        return await self.queues.lease(queue)

    async def ack(self, queue: str, token: int) -> None:
        """Confirm a leased message."""
        await self.queues.ack(queue, token)

    async def release(self, queue: str, token: int, *, unread: bool = False) -> None:
        """Give a leased message back, to its place; ``unread``: that was no delivery."""
        await self.queues.release(queue, token, unread=unread)

    async def put_back(self, queue: str, leased: Leased) -> None:
        """Undo an ``ack``."""
        await self.queues.put_back(queue, leased)

    async def bind(self, topic: str, queue: str, capacity: int, expiry_s: float, ttl_s: float) -> None:
        """Let what is published on ``topic`` also go to ``queue``, for ``ttl_s`` seconds."""
        await self.queues.bind(topic, queue, capacity, expiry_s, ttl_s)

    async def unbind(self, topic: str | None, queue: str) -> None:
        """End that; from every topic when ``topic`` is None."""
        await self.queues.unbind(topic, queue)

    async def bound(self, topic: str) -> list[str]:
        """Return the queues that are bound to ``topic``."""
        return await self.queues.bound(topic)

    # Administration

    async def flush(self) -> None:
        """Delete our keys."""
        await self._router_now()
        await flush(self.links, self.keys.pattern)
        self.queues.bindings.invalidate()

    async def health(self) -> list[dict[str, Any]]:
        """Ask every link's server for a sign of life; return the links' states."""
        await self._router_now()
        await measure(self.links)
        return self.link_states()

    def link_states(self) -> list[dict[str, Any]]:
        """Return the links' states, without asking anybody."""
        return link_states(self.links, self._router.mapless if self._router is not None else "")
