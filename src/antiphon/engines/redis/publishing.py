"""``Publishing``: what a node's part of the engine does with what is sent, kept in a log or not, until there is a receipt."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable
from math import inf
from time import monotonic
from typing import TYPE_CHECKING, Any

from ...exceptions import EngineUnavailable
from ...types import Keep, Receipt
from .append import RENEW_SHARE, Append, Publication, append_command, receipt_of
from .connection import ReplyError
from .keys import Keys
from .link import Link
from .outbox import publish_head
from .queue import RedisQueues

if TYPE_CHECKING:
    from .cluster import ClusterRouter
    from .shards import ShardRouter

__all__ = ["Publishing"]

# Heads of publish commands that are remembered.
_HEADS_MAX = 20_000
# What a server says that is no primary, or not yet.
_NO_PRIMARY = ("READONLY", "LOADING", "MASTERDOWN", "CLUSTERDOWN")
# What it says when it can write nothing down.
_FULL = ("OOM", "MISCONF", "NOREPLICAS")


class Publishing:
    """One node's sends. ``_router`` is there once the loop has had its first turn."""

    def __init__(self, keys: Keys, *, sharded: bool) -> None:
        self.keys = keys
        self.queues: RedisQueues
        self._sharded = sharded
        self._router: ShardRouter | ClusterRouter | None = None
        self._started: asyncio.Event = asyncio.Event()
        self._heads: dict[str, tuple[bytes, bytes]] = {}
        self._renewed: dict[bytes, float] = {}  # channel -> when its log's time to live began anew, as far as we know
        self._settling: set[asyncio.Task[None]] = set()

    async def _router_now(self) -> ShardRouter | ClusterRouter:
        """Return the router, which is there once the loop has had its turn. Raises EngineUnavailable after ``close``."""
        await self._started.wait()
        if self._router is None:
            raise EngineUnavailable("the layer was closed")
        return self._router

    def publish(self, topic: str, payload: bytes) -> asyncio.Future[Receipt]:
        """Publish; the message has its place in line when this returns."""
        try:
            channel, head = self._heads[topic]
        except KeyError:
            if len(self._heads) >= _HEADS_MAX:
                self._heads.clear()
            channel = self.keys.channel(topic)
            head = publish_head(channel, sharded=self._sharded)
            self._heads[topic] = channel, head
        wire = b"%b%d\r\n%b\r\n" % (head, len(payload), payload)
        if self._router is None:
            return asyncio.ensure_future(self._publish_later(channel, payload, wire))
        return self._router.publish(channel, payload, wire)

    async def _publish_later(self, channel: bytes, payload: bytes, wire: bytes) -> Receipt:
        return await (await self._router_now()).publish(channel, payload, wire)

    def append(self, topic: str, payload: bytes, keep: Keep) -> Awaitable[Receipt]:
        """Publish, and keep in the topic's log, in one step; the message has its place in line when this returns."""
        channel = self.keys.channel(topic)
        append = Append(asyncio.get_running_loop().create_future(), channel, payload, keep)
        renew = (now := monotonic()) > self._renewed.get(channel, -inf) + RENEW_SHARE * keep.ttl_s
        if renew:
            if len(self._renewed) >= _HEADS_MAX:
                self._renewed.clear()
            self._renewed[channel] = now
        wire = append_command(channel, payload, keep, sharded=self._sharded, renew=renew)
        if self._router is None:
            return asyncio.ensure_future(self._append_later(append, wire))
        self._router.send(append, wire)
        return append.future

    async def _append_later(self, append: Append, wire: bytes) -> Receipt:
        (await self._router_now()).send(append, wire)
        return await append.future

    def published(self, link: Link, publication: Publication, reply: Any) -> None:
        """Take the reply to a publish that is not just a number, or may have to go to worker channels too."""
        future, channel, payload = publication[:3]
        if isinstance(reply, ReplyError):
            self._refused(link, publication, str(reply), reply)
            return
        receipt = receipt_of(reply)
        topic = self.keys.topic(channel)
        bindings = self.queues.bindings
        settled = topic not in bindings.topics and (not bindings.stale or (bindings.loaded and self._home_is_down()))
        if settled or receipt.state in ("duplicate", "suppressed"):
            if not future.done():
                future.set_result(receipt)
            return
        task = asyncio.ensure_future(self._settle(future, topic, payload, receipt))
        self._settling.add(task)
        task.add_done_callback(self._settling.discard)
        task.add_done_callback(lambda _: _unsettled(future))

    def _refused(self, link: Link, publication: Publication, why: str, error: ReplyError) -> None:
        if isinstance(publication, Append) and why.startswith("NOSCRIPT"):
            link.refused_script(publication)
            return
        if self._router is not None and self._router.refused(link, publication, error):
            return
        future = publication[0]
        self._renewed.pop(publication[1], None)
        if not future.done():
            kept = isinstance(publication, Append) and why.startswith(_FULL)
            fate = "; the group's history cannot be written, so nothing was published" if kept else ""
            future.set_exception(link.error(f"it refuses to publish: {why}{fate}"))
        if why.startswith(_NO_PRIMARY):
            link.drop(why)

    def _home_is_down(self) -> bool:
        # Where the registry of worker channels lives: nobody can change it now, so what was read holds.
        try:
            return self._router is None or not self._router.link_of(self.keys.bound).up
        except EngineUnavailable:
            return True

    async def _settle(self, future: asyncio.Future[Receipt], topic: str, payload: bytes, receipt: Receipt) -> None:
        """Put a published message into the worker channels that are members of its group."""
        try:
            await self.queues.forward(topic, payload)
        except Exception as exc:
            if not future.done():
                future.set_exception(exc)
        else:
            if not future.done():
                future.set_result(receipt)


def _unsettled(future: asyncio.Future[Receipt]) -> None:
    # Cancelled, perhaps before its first step: whoever waits for the receipt is told all the same.
    if not future.done():
        future.set_exception(
            EngineUnavailable("the layer was closed. The message was published; worker channels may not have got it")
        )
