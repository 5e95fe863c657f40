"""``WorkerChannels``: the part of a layer for worker channels, and ``Lease``, one message of one. Knows no engine.

A message is leased, handled and acknowledged; whoever is cancelled in between, in whichever await, gives it back.
"""

from __future__ import annotations

import asyncio
import contextlib
import logging
from collections.abc import Coroutine
from concurrent.futures import Future
from types import TracebackType
from typing import Any, Self, TypeVar

from ..engines.base import Leased, QueueEngine
from ..envelope import HeadedEnvelope, unpack
from ..exceptions import ChannelFull, EngineUnavailable, InvalidChannelLayerError
from ..names import DEAD, is_local, queue_topic, require_channel
from ..types import Message
from .drops import Drop
from .nodes import Nodes

__all__ = ["Lease", "WorkerChannels"]

logger = logging.getLogger("antiphon.layer")

T = TypeVar("T")

# How long a reader that is cancelled may take to give back what it had.
UNDO_S = 1.0


class Lease:
    """One message of a worker channel, for as long as it is being handled: see ``ChannelLayer.lease``.

    ``message``, ``channel``; ``delivery_count``: 1 for the first time, more when it came back; ``last``: released, it
    goes to ``<channel>.dead``. As ``async with``: what ends well is acknowledged, what raises or is cancelled is
    released.
    """

    __slots__ = ("_queues", "_settled", "_token", "channel", "delivery_count", "last", "message")

    def __init__(self, queues: QueueEngine, channel: str, message: Message, leased: Leased, *, last: bool) -> None:
        self.channel = channel
        self.last = last
        self.message = message
        self.delivery_count = leased.delivery_count
        self._queues = queues
        self._token = leased.token
        self._settled = False

    def __repr__(self) -> str:
        state = "settled" if self._settled else "held"
        return f"<Lease of {self.channel!r} #{self._token} delivery {self.delivery_count} {state}>"

    async def ack(self) -> None:
        """Confirm that the message was handled. Calling it again does nothing.

        When it raises EngineUnavailable the engine goes on trying, as long as this process lives.
        """
        if not self._settled:
            self._settled = True
            await _to_its_end(self._queues.ack(self.channel, self._token))

    async def release(self) -> None:
        """Give the message back, to its place in line: somebody gets it again. Calling it again does nothing."""
        if not self._settled:
            self._settled = True
            await _to_its_end(self._queues.release(self.channel, self._token))

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, exc: BaseException | None, traceback: TracebackType | None
    ) -> None:
        await (self.ack() if kind is None else self.release())


class WorkerChannels(Nodes):
    """Worker channels: names without "!", read by competing readers in any processes the engine reaches."""

    async def lease(self, channel: str) -> Lease:
        """Wait for the next message of a worker channel and take it until it is acknowledged or released.

        It counts as being in the channel until then. One that is released, or whose process dies, is given to somebody
        again; after ``max_deliveries`` it goes to the worker channel ``<channel>.dead``. Cancelling loses nothing.
        """
        require_channel(channel)
        if is_local(channel):
            raise TypeError(f"lease: expected a worker channel, a name without '!'; got {channel!r}")
        queues = self._queues()
        while True:
            leased = await queues.lease(channel)
            # No await between here and the return: whoever is cancelled before has taken nothing, after it has it all.
            message = self._decoded(channel, leased)
            if message is not None:
                last = leased.delivery_count >= queues.max_deliveries and not channel.endswith(DEAD)
                return Lease(queues, channel, message, leased, last=last)
            await _to_its_end(queues.ack(channel, leased.token))

    async def _take(self, channel: str) -> Message:
        """Wait for the next message of a worker channel, acknowledge it and return it. Cancelling loses nothing."""
        queues = self._queues()
        while True:
            leased = await queues.lease(channel)
            if queues.waits_for_nobody:
                await queues.ack(channel, leased.token)
            else:
                await self._ack_or_put_back(queues, channel, leased)
            message = self._decoded(channel, leased)
            if message is not None:
                return message

    async def _ack_or_put_back(self, queues: QueueEngine, channel: str, leased: Leased) -> None:
        acking = asyncio.ensure_future(_quietly(queues.ack(channel, leased.token)))
        try:
            await asyncio.shield(acking)
        except asyncio.CancelledError:
            # Acknowledged or about to be, and nobody will see it. Waited for here: the loop may end with us.
            await asyncio.wait((asyncio.ensure_future(_put_back(queues, channel, leased, acking)),), timeout=UNDO_S)
            raise

    def _decoded(self, channel: str, leased: Leased) -> Message | None:
        """Return the message; None for one that is not for this channel, or that nobody can read: that is counted."""
        try:
            envelope = unpack(leased.payload, leased.topic or queue_topic(channel))
            if channel in envelope.extra.get("x", ()):
                return None  # it was sent to a group, except to this channel
            self._open(envelope)
            return envelope.message()  # type: ignore[no-any-return]
        except ValueError:
            self._lose("undecodable", channel)
            return None

    def _open(self, envelope: HeadedEnvelope) -> None:
        """Decrypt a body. Raises ValueError where there is nothing to decrypt, or no key."""
        if self._cipher is not None:
            if not envelope.encrypted:
                raise ValueError("the body is not encrypted, and this layer has symmetric_encryption_keys")
            envelope.body = self._cipher.open(envelope.topic, envelope.header, envelope.body)
        elif envelope.encrypted:
            raise ValueError("the body is encrypted, and this layer has no symmetric_encryption_keys")

    async def _put(self, channel: str, payload: bytes) -> None:
        capacity = self.get_capacity(channel)
        if not await self._queues().put(channel, payload, capacity, self.expiry, topic=queue_topic(channel)):
            raise ChannelFull(channel)

    def _queues(self) -> QueueEngine:
        """Return the engine's worker channels, for the running loop."""
        if isinstance(self._engine, QueueEngine):
            return self._engine  # the same for every loop
        node = self._node()
        if not isinstance(node.engine, QueueEngine):
            raise InvalidChannelLayerError(
                f"{type(self).__name__} has no worker channels; antiphon.layers.InMemoryChannelLayer and "
                "RedisChannelLayer have"
            )
        return node.engine if node.loop is asyncio.get_running_loop() else _Elsewhere(node.engine, node.loop)

    def _dropped(self, reason: str, channel: str, count: int, topic: str | None = None) -> None:
        """Count what a worker channel lost: the engine reports it here."""
        self._retired["dropped"] += count
        group = topic[2:] if topic is not None and topic[:2] == "g:" else None
        self.drops.add(Drop(reason, group, channel, count))


class _Elsewhere:
    """The worker channels of a node, from another loop: one that ``async_to_sync`` made, say."""

    def __init__(self, engine: QueueEngine, loop: asyncio.AbstractEventLoop) -> None:
        self._engine = engine
        self._loop = loop

    waits_for_nobody = False

    @property
    def max_deliveries(self) -> int:
        return self._engine.max_deliveries

    def __repr__(self) -> str:
        return f"<worker channels of {self._engine!r}, from another loop>"

    async def put(
        self, queue: str, payload: bytes, capacity: int, expiry_s: float, *, topic: str | None = None
    ) -> bool:
        return await self._there(self._engine.put(queue, payload, capacity, expiry_s, topic=topic))

    async def lease(self, queue: str) -> Leased:
        # Who asks may be gone when the message comes. Claiming the future is the one moment that decides it, for both.
        claim: Future[Leased] = Future()
        leasing: list[asyncio.Task[Leased]] = []

        async def fetch() -> None:
            if claim.cancelled():
                return
            leasing.append(asyncio.ensure_future(self._engine.lease(queue)))
            try:
                leased = await leasing[0]
            except BaseException as exc:
                if claim.set_running_or_notify_cancel():
                    claim.set_exception(exc if isinstance(exc, Exception) else EngineUnavailable(repr(exc)))
                return
            if claim.set_running_or_notify_cancel():
                claim.set_result(leased)
            else:
                await self._engine.release(queue, leased.token, unread=True)

        asyncio.run_coroutine_threadsafe(fetch(), self._loop)
        try:
            return await asyncio.wrap_future(claim)
        except asyncio.CancelledError:
            if claim.cancel():
                self._loop.call_soon_threadsafe(lambda: [task.cancel() for task in leasing])
            elif claim.exception(UNDO_S) is None:
                token = claim.result().token
                asyncio.run_coroutine_threadsafe(self._engine.release(queue, token, unread=True), self._loop)
            raise

    async def ack(self, queue: str, token: int) -> None:
        await self._there(self._engine.ack(queue, token))

    async def release(self, queue: str, token: int, *, unread: bool = False) -> None:
        await self._there(self._engine.release(queue, token, unread=unread))

    async def put_back(self, queue: str, leased: Leased) -> None:
        await self._there(self._engine.put_back(queue, leased))

    async def bind(self, topic: str, queue: str, capacity: int, expiry_s: float, ttl_s: float) -> None:
        await self._there(self._engine.bind(topic, queue, capacity, expiry_s, ttl_s))

    async def unbind(self, topic: str | None, queue: str) -> None:
        await self._there(self._engine.unbind(topic, queue))

    async def bound(self, topic: str) -> list[str]:
        return await self._there(self._engine.bound(topic))

    async def _there(self, call: Coroutine[Any, Any, T]) -> T:
        return await asyncio.wrap_future(asyncio.run_coroutine_threadsafe(call, self._loop))


async def _to_its_end(call: Coroutine[Any, Any, None]) -> None:
    """Await a call that goes on when we are cancelled."""
    await asyncio.shield(asyncio.ensure_future(call))


async def _quietly(call: Coroutine[Any, Any, None]) -> None:
    with contextlib.suppress(EngineUnavailable):  # the engine goes on trying
        await call


async def _put_back(queues: QueueEngine, channel: str, leased: Leased, acking: asyncio.Future[None]) -> None:
    try:
        await acking
        await queues.put_back(channel, leased)
    except EngineUnavailable as exc:
        logger.warning("A message of worker channel %r could not be given back now: %s", channel, exc)
