"""``RedisChannelLayer``: a layer over Redis or Valkey. The engine itself is imported when a layer is made."""

from __future__ import annotations

import asyncio
import logging
import sys
import time
from asyncio import _get_running_loop
from collections.abc import Awaitable, Collection, Coroutine, Iterable, Mapping, Sequence
from functools import partial
from re import Pattern
from typing import TYPE_CHECKING, Any
from weakref import WeakKeyDictionary

from asgiref.sync import markcoroutinefunction

from .. import framework
from ..exceptions import EngineUnavailable, MissingExtra, OptionError
from ..names import control_topic
from ..options import unknown_key
from ..types import Keep, Message, Receipt
from .background import background_loop, is_temporary, will_be_temporary
from .gate import Gate
from .losses import Losses
from .node import Node
from .remote import RemoteChannelLayer

if TYPE_CHECKING:
    from ..engines.redis.bus import RedisBus
    from ..engines.redis.publisher import Begun

__all__ = ["OWN_OPTIONS", "SHARED_OPTIONS", "RedisChannelLayer"]

logger = logging.getLogger("antiphon.layer")
links_logger = logging.getLogger("antiphon.engine")

_SHORT_KEY = 16
_told_short = False


class RedisChannelLayer(RemoteChannelLayer):
    """A channel layer over Redis 6.2 and later, or Valkey: one server, several as shards, Sentinel, or a cluster.

    ``hosts``: a list of servers, each a URL (``redis://``, ``rediss://``, ``unix://``), a ``(host, port)`` pair, a dict
    with ``address`` or redis-py's connection arguments, or one with ``master_name`` and ``sentinels``. Several are
    shards; with ``cluster=True`` they are the nodes to ask first.
    ``prefix``: what every key and pub/sub channel starts with.
    ``symmetric_encryption_keys``: secrets; the first encrypts, all decrypt.
    ``publish_retry``: seconds for which a publish with an unknown outcome is sent again (never delivered twice); 0: it
    raises. ``timeout_s``: how long a publish, a ``group_add`` or a call to another node may take.
    ``ping_interval_s``: how often a silent server is asked for a sign of life, and how long it may take to give it.
    ``lease_s``: seconds after which a worker channel's message whose reader died is given to another;
    ``max_deliveries``: how often, before it goes to ``<channel>.dead``.
    The other options as in :class:`~antiphon.layers.ChannelLayer`.
    """

    def __init__(
        self,
        hosts: Any = None,
        prefix: str = "asgi",
        expiry: float = 60,
        group_expiry: float = 86400,
        capacity: int = 100,
        channel_capacity: Mapping[Pattern[str] | str, int] | None = None,
        symmetric_encryption_keys: Sequence[str | bytes] | None = None,
        random_prefix_length: int = 12,
        serializer_format: str = "msgpack",
        *,
        cluster: bool = False,
        publish_retry: float = 0.0,
        ping_interval_s: float = 5.0,
        lease_s: float = 30.0,
        max_deliveries: int = 5,
        timeout_s: float = 5.0,
        **kwargs: Any,
    ) -> None:
        for name in kwargs.keys() - SHARED_OPTIONS:
            raise OptionError(unknown_key(name, SHARED_OPTIONS | OWN_OPTIONS, f"option of {type(self).__name__}"))
        if not isinstance(cluster, bool):
            raise OptionError(f"cluster: expected True or False; got {cluster!r}")
        for name, value in (("ping_interval_s", ping_interval_s), ("lease_s", lease_s)):
            if not isinstance(value, (int, float)) or isinstance(value, bool) or value <= 0:
                raise OptionError(f"{name}: expected a number of seconds above 0; got {value!r}")
        if not isinstance(publish_retry, (int, float)) or isinstance(publish_retry, bool) or publish_retry < 0:
            raise OptionError(f"publish_retry: expected a number of seconds, 0 or more; got {publish_retry!r}")
        if not isinstance(max_deliveries, int) or isinstance(max_deliveries, bool) or max_deliveries < 1:
            raise OptionError(f"max_deliveries: expected a positive int; got {max_deliveries!r}")
        if serializer_format not in ("msgpack", "json"):
            raise OptionError(
                f"serializer_format: expected 'msgpack' (or 'json', with no effect); got {serializer_format!r}"
            )
        if serializer_format != "msgpack":
            logger.info("serializer_format has no effect: a body is msgpack on every engine")
        self.prefix = prefix
        self._bus = self._make_bus(
            hosts,
            prefix=prefix,
            cluster=cluster,
            timeout_s=timeout_s,
            publish_retry_s=publish_retry,
            ping_interval_s=ping_interval_s,
            lease_s=lease_s,
            max_deliveries=max_deliveries,
        )
        super().__init__(
            self._bus,
            expiry=expiry,
            group_expiry=group_expiry,
            capacity=capacity,
            channel_capacity=channel_capacity,
            timeout_s=timeout_s,
            **kwargs,
        )
        self.losses = Losses()
        self._down_since: WeakKeyDictionary[Node, dict[str, float]] = WeakKeyDictionary()  # what was warned of
        if symmetric_encryption_keys:
            from .cipher import Cipher

            self._cipher = Cipher(symmetric_encryption_keys)
            _warn_of_short(symmetric_encryption_keys)
        self._bus.publisher.on_bound = self._forward_blocking
        if random_prefix_length != 12:
            logger.info("random_prefix_length has no effect: every sealed body has a nonce of its own")

    def _make_bus(self, hosts: Any, **options: Any) -> RedisBus:
        try:
            from ..engines.redis.bus import RedisBus
            from ..engines.redis.hosts import parse_hosts
        except ModuleNotFoundError as exc:
            raise MissingExtra.of(exc.name or "redis", "redis", type(self).__name__) from exc
        return RedisBus(parse_hosts(hosts, cluster=options["cluster"]), **options)

    def __repr__(self) -> str:
        return f"<{type(self).__name__} {self.prefix!r} {self._bus!r} {len(self._nodes)} nodes>"

    def _make_node(self, loop: asyncio.AbstractEventLoop) -> Node:
        engine = self._bus.node_engine()
        gate = Gate(self._cipher, self._bus.publish_retry_s + 2 * self._bus.timeout_s)
        node = Node(loop, engine, self.drops, self.expiry, gate)
        node.hub.on_lost = partial(self._on_lost, node)
        node.hub.on_link = partial(self.link_changed, node)
        engine.queues.on_drop = self._dropped
        self._attach_logs(node)
        self._attach_presence(node)
        self._attach_control(node)
        engine.attach(node.hub, loop, node.id, (node.inbox, control_topic()))
        return node

    def _on_lost(self, node: Node, topics: Collection[str], reason: str, good_until: float) -> None:
        self.losses.add(node.id, topics, reason, good_until, node.loop.call_soon)
        super()._on_lost(node, topics, reason, good_until)

    def link_changed(self, node: Node, name: str, up: bool) -> None:
        """Learn that a link of a node went up or down; it is logged here. A subclass may do more."""
        told = self._down_since.setdefault(node, {})
        if not up:
            if not framework.current().under_test():
                told[name] = time.monotonic()
                links_logger.warning("Engine link %s of node %s is down; connections stay open", name, node.id)
        elif name in told:
            # As loud as the line before it: whoever was told of the trouble is told of its end.
            down_s = time.monotonic() - told.pop(name)
            links_logger.warning("Engine link %s of node %s is up again after %.1f s", name, node.id, down_s)
        else:
            links_logger.info("Engine link %s of node %s is up", name, node.id)
        if up and node.presence is not None:
            node.presence.check()  # the server may have come back without what it knew

    @markcoroutinefunction
    def group_send(
        self,
        group: str,
        message: Message,
        *,
        exclude: Iterable[str] = (),
        exclude_author: Any = None,
        idempotency_key: str | None = None,
        version: int = 0,
        version_epoch: str = "",
    ) -> Coroutine[Any, Any, Receipt]:
        """Send to every channel of a group, except those in ``exclude``: see ``ChannelLayer.group_send``."""
        if _get_running_loop() is None and will_be_temporary(sys._getframe(1)):
            # The message leaves now: the server answers while a thread and a loop are made to wait for it.
            terms = self.terms(idempotency_key, version, version_epoch)
            body, extra, keep = self._checked(group, message, exclude, exclude_author, terms)
            topic = "g:" + group
            payload = self._pack(topic, body, extra)
            return _finish(self._bus.publisher.begin(topic, payload, *(() if keep is None else (keep,))))
        if exclude_author is None and idempotency_key is None and not version:
            return _group_send(self, group, message, exclude=exclude)
        return _group_send(
            self,
            group,
            message,
            exclude=exclude,
            exclude_author=exclude_author,
            idempotency_key=idempotency_key,
            version=version,
            version_epoch=version_epoch,
        )

    def _publish_without_node(
        self, topic: str, body: bytes, extra: dict[str, Any] | None, keep: Keep | None
    ) -> Receipt | Awaitable[Receipt]:
        if is_temporary(asyncio.get_running_loop()):
            # The loop is gone after this call: no use to connect for it, and nobody else runs on it.
            lane = self._borrow_lane()
            try:
                payload = self._pack(topic, body, extra, lane)
                if keep is not None:
                    return self._bus.append_blocking(topic, payload, keep)
                return self._bus.publish_blocking(topic, payload)
            finally:
                self._spare_lanes.append(lane)
        self._node()
        return self._publish(topic, body, extra, keep)

    async def _publish_copies(
        self, topics: list[str], body: bytes, extra: dict[str, Any], keeps: Sequence[Keep | None]
    ) -> Receipt:
        if not is_temporary(asyncio.get_running_loop()):
            self._node()
        return await super()._publish_copies(topics, body, extra, keeps)

    def _forward_blocking(self, topic: str, payload: bytes, queues: Sequence[str]) -> None:
        """Put what synchronous code published into the worker channels of its group."""
        forwarded = asyncio.run_coroutine_threadsafe(self._forward(topic, payload), background_loop())
        try:
            forwarded.result(self.timeout_s * 2)
        except TimeoutError as exc:
            raise EngineUnavailable("published, but its group's worker channels did not take it in time") from exc

    async def _forward(self, topic: str, payload: bytes) -> None:
        await self._node().engine.queues.forward(topic, payload)  # type: ignore[attr-defined]  # a RedisEngine

    async def bindings(self) -> dict[str, list[str]]:
        """Return the worker channels that are members of groups: group -> worker channels."""
        node = self._node()

        async def read() -> dict[str, list[str]]:
            table = node.engine.queues.bindings  # type: ignore[attr-defined]  # a RedisEngine
            await table.queues("")  # of no topic: it only brings the table up to date
            now = time.monotonic()
            found = {
                topic[2:]: sorted(queue for queue, bound in queues.items() if bound.until_s > now)
                for topic, queues in table.topics.items()
            }
            return {group: queues for group, queues in found.items() if queues}

        return await self._on(node, read)

    async def close(self) -> None:
        """End every node of this process, and its connections. The layer may be used again; it starts anew."""
        await super().close()
        self._bus.publisher.close()

    async def health(self) -> dict[str, Any]:
        """Ask the engine's servers for a sign of life: {"ok", "engine", "links", "nodes", "lost"}.

        ``links``: [{"name", "up", "since_s", "server", "latency_s", "reason"}] of the node that answers.
        """
        node = self._node()
        links = await self._on(node, node.engine.health)  # type: ignore[attr-defined]  # a RedisEngine
        return {
            "ok": bool(links) and all(link["up"] for link in links),
            "engine": "redis",
            "links": links,
            "nodes": len(self._alive()),
            "lost": self.losses.count,
        }

    def stats(self) -> dict[str, Any]:
        """Return the counters and gauges of this process."""
        stats = super().stats()
        nodes = self._alive()
        links = [link for node in nodes for link in node.engine.link_states()]  # type: ignore[attr-defined]
        stats["lost"] = self.losses.count
        stats["duplicates"] = sum(node.hub.gate.duplicates for node in nodes if node.hub.gate is not None)
        stats["links"] = {"up": sum(link["up"] for link in links), "down": sum(not link["up"] for link in links)}
        return stats

    def after_fork(self) -> None:
        """Drop everything inherited."""
        super().after_fork()
        self._bus.publisher.on_bound = self._forward_blocking


_group_send = RemoteChannelLayer.group_send  # a super() a call is a tenth of what a send costs


async def _finish(begun: Begun) -> Receipt:
    return begun.receipt()


def _warn_of_short(keys: Sequence[str | bytes]) -> None:
    """Warn, once a process, of secrets that can be guessed."""
    global _told_short
    short = [number for number, key in enumerate(keys) if len(key) < _SHORT_KEY]
    if short and not _told_short:
        _told_short = True
        logging.getLogger("antiphon.security").warning(
            "symmetric_encryption_keys[%d] is shorter than %d characters and can be guessed;"
            " secrets.token_urlsafe(32) makes a good one",
            short[0],
            _SHORT_KEY,
        )


SHARED_OPTIONS = {"overflow", "channel_overflow", "max_message_bytes", "groups"}
OWN_OPTIONS = {
    "hosts", "prefix", "expiry", "group_expiry", "capacity", "channel_capacity", "symmetric_encryption_keys",
    "random_prefix_length", "serializer_format", "cluster", "publish_retry", "ping_interval_s", "lease_s",
    "max_deliveries", "timeout_s",
}  # fmt: skip
