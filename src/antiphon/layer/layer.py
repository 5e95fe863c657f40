"""``ChannelLayer``: what an application holds. It checks, encodes once, and hands one publish to the engine.

It owns one node for each event loop that owns channels, and one lane for each loop or thread that sends. A loop that
``async_to_sync`` made for one call never becomes a node: it borrows the background node. Knows no particular engine.
"""

from __future__ import annotations

import asyncio
import threading
import time
from asyncio import _get_running_loop
from collections.abc import Awaitable, Callable, Coroutine, Iterable, Mapping, Sequence
from functools import partial
from re import Pattern
from time import time_ns
from typing import Any, ClassVar, TypeVar

from .. import framework, names
from ..codec import encode
from ..engines.base import ProcessEngine, QueueEngine
from ..envelope import MESSAGE, pack, unpack
from ..exceptions import ChannelFull, InvalidChannelLayerError, MessageTooLarge, NodeUnreachable, OptionError
from ..framework import user_key
from ..names import group_topic, is_local, known_groups, node_of, require_channel, require_group, user_topic
from ..types import Message, Receipt
from ..wire.codes import REASONS
from .background import background_loop, is_temporary
from .base import BaseChannelLayer
from .capture import Sent, record, recorders
from .drops import Drop, Drops
from .mailbox import POLICIES, Mailbox
from .members import Channels, Count
from .node import Lane, Node

__all__ = ["ChannelLayer"]

T = TypeVar("T")

# Receipts of messages that one node took and none of its members dropped: the common ones, made once.
_RECEIPTS_MAX = 257
_RECEIPTS = tuple(Receipt(1, None, "sent", delivered, 0) for delivered in range(_RECEIPTS_MAX))


def receipt_of(delivered: int, dropped: int) -> Receipt:
    """Return the receipt of a message that was delivered on this loop, and nowhere else, inside the call."""
    if not dropped and delivered < _RECEIPTS_MAX:
        return _RECEIPTS[delivered]
    return Receipt(1, None, "sent", delivered, dropped)


class ChannelLayer(BaseChannelLayer):
    """A channel layer over an engine.

    ``expiry``: seconds a message may wait in a channel. ``group_expiry``: seconds a worker channel stays in a group
    after its last ``group_add``. ``capacity``: messages a channel holds; ``channel_capacity``: the same by glob or
    compiled pattern. ``overflow``: what happens when a channel of a group is full (``drop_new``, ``drop_old``,
    ``close``); ``channel_overflow``: the same by pattern. ``max_message_bytes``: bound of an encoded message.
    ``timeout_s``: how long a call to another node may take.
    """

    extensions: ClassVar[Sequence[str]] = ["groups", "flush"]

    def __init__(
        self,
        engine: ProcessEngine,
        *,
        expiry: float = 60,
        group_expiry: float = 86400,
        capacity: int = 100,
        channel_capacity: Mapping[Pattern[str] | str, int] | None = None,
        overflow: str = "drop_new",
        channel_overflow: Mapping[Pattern[str] | str, str] | None = None,
        max_message_bytes: int = 1 << 20,
        timeout_s: float = 5.0,
    ) -> None:
        super().__init__(expiry=expiry, capacity=capacity, channel_capacity=channel_capacity)
        for name, value in (("expiry", expiry), ("group_expiry", group_expiry), ("timeout_s", timeout_s)):
            _require(isinstance(value, (int, float)) and value > 0, name, "a number of seconds above 0", value)
        for name, value in (("capacity", capacity), ("max_message_bytes", max_message_bytes)):
            _require(isinstance(value, int) and value > 0, name, "a positive int", value)
        for policy in (overflow, *(channel_overflow or {}).values()):
            _require(policy in POLICIES, "overflow", " or ".join(map(repr, POLICIES)), policy)
        for value in (channel_capacity or {}).values():
            _require(isinstance(value, int) and value > 0, "channel_capacity", "positive ints", value)
        self.channel_capacity = self.compile_capacities(channel_capacity or {})
        self.channel_overflow = self.compile_capacities(channel_overflow or {})
        self.group_expiry = group_expiry
        self.overflow = overflow
        self.max_message_bytes = max_message_bytes
        self.timeout_s = timeout_s
        self.drops = Drops()
        self._engine = engine
        self._nodes: dict[asyncio.AbstractEventLoop, Node] = {}
        self._by_id: dict[str, Node] = {}
        self._lock = threading.Lock()
        self._lanes = threading.local()
        self._sent = [0]
        self._idle_channels = 0
        self._retired: dict[str, float] = dict.fromkeys(("arrived", "delivered", "dropped", "undecodable"), 0)

    def __repr__(self) -> str:
        return f"<{type(self).__name__} {len(self._nodes)} nodes>"

    # Sending

    async def send(self, channel: str, message: Message) -> Receipt:
        """Send to one channel.

        Raises ChannelFull when a worker channel, or a channel of this node, holds ``capacity`` messages; elsewhere a
        drop is counted where it happens. TypeError for a wrong name or message, MessageTooLarge beyond the bound.
        """
        require_channel(channel)
        body = self._encode(message)
        if recorders:
            record(Sent("channel", channel, message, layer=self._alias()))
        if not is_local(channel):
            await self._put(channel, self._pack(body))
            return Receipt(delivered=1, dropped=0)
        node = self._owner(channel)
        if node is not None and node.loop is asyncio.get_running_loop():
            return self._put_here(node, channel, body)
        topic = node.inbox if node is not None else names.inbox_topic(node_of(channel) or "")
        receipt = await _finished(self._publish(topic, body, {"c": channel}))
        if receipt.nodes == 0:
            self._lose("no_channel", channel)
        return receipt

    async def group_send(self, group: str, message: Message, *, exclude: Iterable[str] = ()) -> Receipt:
        """Send to every channel of a group, except those in ``exclude``.

        Never raises ChannelFull: what a full channel drops is counted, by its overflow policy. TypeError for a wrong
        name or message, MessageTooLarge beyond the bound, EngineUnavailable when the engine cannot take it.
        """
        if type(group) is not str or group not in known_groups:
            require_group(group)
        body = self._encode(message)
        extra = {"x": _channels(exclude)} if exclude else None
        if recorders:
            record(Sent("group", group, message, tuple(extra["x"]) if extra else (), layer=self._alias()))
        receipt = self._publish("g:" + group, body, extra)
        return receipt if isinstance(receipt, Receipt) else await receipt

    async def groups_send(self, groups: Iterable[str], message: Message, *, exclude: Iterable[str] = ()) -> Receipt:
        """Send to every channel of several groups; one that is in more of them gets the message once."""
        topics = _groups(groups)
        body = self._encode(message)
        excluded = _channels(exclude)
        if recorders:
            record(Sent("group", tuple(t[2:] for t in topics), message, tuple(excluded), layer=self._alias()))
        if not topics:
            return Receipt(nodes=0, delivered=0, dropped=0)
        extra: dict[str, Any] = {"t": topics} if len(topics) > 1 else {}
        if excluded:
            extra["x"] = excluded
        return await self._publish_copies(topics, body, extra)

    async def send_many(self, sends: Iterable[tuple[str, Message]]) -> list[Receipt]:
        """Send several messages, [(group, message), …], in order; return a receipt for each.

        All are checked and encoded before the first leaves: a wrong one leaves nothing half done.
        """
        sends = list(sends)
        checked = []
        for group, message in sends:
            require_group(group)
            checked.append((group, self._encode(message)))
        if recorders:
            for group, message in sends:
                record(Sent("group", group, message, layer=self._alias()))
        # Every one has its place in line before the first is waited for.
        return [await _finished(receipt) for receipt in [self._publish("g:" + g, body, None) for g, body in checked]]

    async def user_send(self, user: Any, message: Message, *, exclude: Iterable[str] = ()) -> Receipt:
        """Send to all connections of a user whose consumer class has ``user_channel = True``.

        ``user``: a user object, or its primary key.
        """
        key = user_key(user)
        body = self._encode(message)
        excluded = _channels(exclude)
        if recorders:
            record(Sent("user", key, message, tuple(excluded), layer=self._alias()))
        return await _finished(self._publish(user_topic(key), body, {"x": excluded} if excluded else None))

    def require_reach(self) -> None:
        """Raise CrossProcessError if the members can only be where this engine does not reach."""

    def publish_blocking(self, topics: list[str], body: bytes, extra: dict[str, Any] | None) -> Receipt:
        """Publish from a thread without a loop; ``body`` as ``encode`` made it. The plain functions use it."""
        payload = self._pack(body, extra)
        return _sum([self._engine.publish_blocking(topic, payload) for topic in topics])

    # Receiving

    async def new_channel(self, prefix: str = "specific.") -> str:
        """Return the name of a new channel of this node; read it with ``receive``."""
        node = self._node()
        channel = node.channel_name(prefix if prefix.endswith(".") else prefix + ".", hand_made=True)
        require_channel(channel)
        self._open_hand_made(node, channel)
        return channel

    async def receive(self, channel: str) -> Message:
        """Wait for the next message of a channel. Cancelling it loses nothing.

        A worker channel may have many readers in many processes, and each message goes to one of them.
        """
        require_channel(channel)
        if is_local(channel):
            node = self._owner(channel) or self._adopt(channel)
            mailbox = node.hub.mailboxes.get(channel)
            if mailbox is None:
                mailbox = self._open_hand_made(node, channel)
            while True:
                envelope = await mailbox.get(node.hub.expired_elsewhere)
                if envelope is node.hub.sample:
                    node.hub.took(envelope)
                try:
                    return envelope.message()  # type: ignore[no-any-return]
                except ValueError:
                    node.hub.undecodable += 1
                    node.hub.dropped += 1
                    self.drops.add(Drop("undecodable", envelope.group, mailbox.receiver))
        queues = self._queues()
        while True:
            leased = await queues.lease(channel)
            await queues.ack(channel, leased.token)
            try:
                return unpack(leased.payload).message()  # type: ignore[no-any-return]
            except ValueError:
                self._lose("undecodable", channel)

    # Groups

    async def group_add(self, group: str, channel: str) -> None:
        """Add a channel to a group; what is sent from now on reaches it. Adding it again changes nothing."""
        require_group(group)
        require_channel(channel)
        if not is_local(channel):
            await self._queues().bind(
                group_topic(group), channel, self.get_capacity(channel), self.expiry, self.group_expiry
            )
            return
        node = self._owner(channel) or self._adopt(channel)
        mailbox = node.hub.mailboxes.get(channel)
        if mailbox is None:
            if not self._may_reopen(channel):
                return  # its connection has ended: there is nobody to add
            mailbox = self._open_hand_made(node, channel)
        await self._on(node, lambda: node.join(group_topic(group), mailbox))

    async def group_discard(self, group: str, channel: str) -> None:
        """Remove a channel from a group, if it is in it."""
        require_channel(channel)
        require_group(group)
        await self._discard(group_topic(group), channel)

    async def group_discard_all(self, channel: str) -> None:
        """Remove a channel from every group it is in."""
        require_channel(channel)
        await self._discard(None, channel)

    async def group_channels(self, group: str, *, scope: str = "all") -> Channels:
        """Return the channels of a group: a list with ``complete``.

        ``scope``: ``all`` nodes, or ``node`` for this one alone, which is free.
        """
        require_group(group)
        topic = group_topic(group)
        found = [channel for node in self._in_scope(scope) for channel in tuple(node.hub.members.get(topic, ()))]
        if scope == "all" and isinstance(self._engine, QueueEngine):
            found += await self._engine.bound(topic)
        return Channels(found, complete=True)

    async def group_count(self, group: str, *, scope: str = "all") -> Count:
        """Return how many channels a group has: an int with ``complete``."""
        require_group(group)
        topic = group_topic(group)
        count = sum(len(node.hub.members.get(topic, ())) for node in self._in_scope(scope))
        if scope == "all" and isinstance(self._engine, QueueEngine):
            count += len(await self._engine.bound(topic))
        return Count(count, complete=True)

    # Ending connections

    async def close_channel(self, channel: str, reason: str = "revoked") -> bool:
        """Close the connection behind a channel, with a reason of ``antiphon.wire.codes``; False: there is none."""
        require_channel(channel)
        _require_reason(reason)
        node = self._owner(channel)
        mailbox = node.hub.mailboxes.get(channel) if node is not None else None
        if node is None or mailbox is None:
            return False

        async def close() -> None:
            mailbox.ask_close(reason)

        await self._on(node, close)
        return True

    async def close_user(self, user: Any, reason: str = "revoked") -> int:
        """Close all connections of a user (object or key); return how many."""
        return await self._close_identity("user", user_key(user), reason)

    async def close_session(self, session_key: str, reason: str = "unauthenticated") -> int:
        """Close all connections of a session; return how many."""
        return await self._close_identity("session", session_key, reason)

    async def _close_identity(self, kind: str, key: str, reason: str) -> int:
        _require_reason(reason)

        async def close(node: Node) -> int:
            boxes = node.hub.by_identity(kind, key)
            for box in boxes:
                box.ask_close(reason)
            return len(boxes)

        return sum([await self._on(node, partial(close, node)) for node in self._alive()])

    # The layer itself

    async def flush(self) -> None:
        """Forget every group, and every message that waits. Connections stay open."""

        async def clear(node: Node) -> None:
            for mailbox in tuple(node.hub.mailboxes.values()):
                mailbox.queue.clear()
                node.leave_all(mailbox)
                if mailbox.owner is None and not mailbox.readers:
                    node.close(mailbox)

        for node in self._alive():
            await self._on(node, partial(clear, node))

    async def close(self) -> None:
        """End every node of this process. The layer may be used again; it starts anew."""
        with self._lock:
            nodes, self._nodes, self._by_id = list(self._nodes.values()), {}, {}
        for node in nodes:
            self._retire(node)
            node.end()
            await node.engine.close()

    def stats(self) -> dict[str, Any]:
        """Return the counters and gauges of this process, as documented in ``docs/logging.md``."""
        nodes = self._alive()
        total = {
            name: int(kept + sum(getattr(node.hub, name) for node in nodes)) for name, kept in self._retired.items()
        }
        newest = max(nodes, key=lambda node: node.hub.arrived, default=None)
        return {
            "nodes": len(nodes),
            "channels": sum(len(node.hub.mailboxes) for node in nodes),
            "groups": len({topic for node in nodes for topic in tuple(node.hub.members) if topic[:2] == "g:"}),
            "waiting": sum(node.hub.waiting() for node in nodes),
            "sent": self._sent[0] + sum(node.lane.n for node in nodes),
            **total,
            "idle_channels": self._idle_channels + sum(node.idle_channels for node in nodes),
            "drops": dict(self.drops.by_reason),
            "drops_by_group": {f"{group}:{reason}": n for (reason, group), n in self.drops.by_group.items()},
            "lag_s": {
                "last": newest.hub.lag_s if newest else 0.0,
                "mean": newest.hub.lag_mean_s if newest else 0.0,
                "max": max((node.hub.lag_max_s for node in nodes), default=0.0),
            },
        }

    # For consumers

    def open_mailbox(self, owner: str, *, capacity: int | None, overflow: str | None) -> tuple[Node, Mailbox]:
        """Open the mailbox of a consumer on the running loop; the consumer closes it with ``node.close``."""
        node = self._node(lasting=False)
        channel = node.channel_name("specific.")
        mailbox = Mailbox(
            channel,
            node.loop,
            capacity=capacity or self.get_capacity(channel),
            expiry_s=self.expiry,
            policy=overflow or self.get_overflow(channel),
            owner=owner,
        )
        node.open(mailbox)
        return node, mailbox

    def get_overflow(self, channel: str) -> str:
        """Return the overflow policy of a channel: the first pattern that matches, else ``overflow``."""
        for pattern, policy in self.channel_overflow:
            if pattern.match(channel):
                return str(policy)
        return self.overflow

    def encode(self, message: Message) -> bytes:
        """Check and encode a message; the errors are those of ``group_send``."""
        return self._encode(message)

    # Inside

    def _encode(self, message: Message) -> bytes:
        if type(message) is not dict or type(message.get("type")) is not str:
            _check_message(message)
        body = encode(message)
        if len(body) > self.max_message_bytes:
            raise MessageTooLarge(
                f"message {message.get('type')!r}: {len(body)} bytes encoded, max_message_bytes is "
                f"{self.max_message_bytes}. Send a reference to large data, or raise the option."
            )
        return body

    def _pack(self, body: bytes, extra: dict[str, Any] | None = None, lane: Lane | None = None) -> bytes:
        if lane is None:
            lane = self._lane()
            self._sent[0] += 1
        lane.n = n = lane.n + 1
        return pack(MESSAGE, lane.id, n, time_ns() // 1000, body, extra)

    def _lane(self) -> Lane:
        # The lane of this thread: a thread of synchronous code, or one whose loop owns no channel.
        lane: Lane | None = getattr(self._lanes, "lane", None)
        if lane is None:
            lane = self._lanes.lane = Lane()
        return lane

    def _publish(self, topic: str, body: bytes, extra: dict[str, Any] | None) -> Receipt | Awaitable[Receipt]:
        node = self._nodes.get(_get_running_loop())  # type: ignore[arg-type]  # None is nobody's loop
        if node is None:
            return self._engine.publish_blocking(topic, self._pack(body, extra))
        hub = node.hub
        delivered, dropped = hub.delivered, hub.dropped
        receipt = node.engine.publish(topic, self._pack(body, extra, node.lane))
        if type(receipt) is Receipt and receipt.nodes == 1:
            # One node, and it is this one if its counts moved: then they moved by this message.
            delivered, dropped = hub.delivered - delivered, hub.dropped - dropped
            return receipt_of(delivered, dropped) if delivered or dropped else receipt
        return receipt

    async def _publish_copies(self, topics: list[str], body: bytes, extra: dict[str, Any]) -> Receipt:
        node = self._nodes.get(asyncio.get_running_loop())
        if node is None:
            return self.publish_blocking(topics, body, extra)
        payload = self._pack(body, extra, node.lane)
        receipts = []
        for topic in topics:
            receipt = node.engine.publish(topic, payload)
            receipts.append(receipt if isinstance(receipt, Receipt) else await receipt)
        return _sum(receipts)

    def _put_here(self, node: Node, channel: str, body: bytes) -> Receipt:
        mailbox = node.hub.mailboxes.get(channel)
        if mailbox is None:
            if not self._may_reopen(channel):
                node.hub.count_missing(channel)
                return Receipt(1, None, "sent", 0, 1)
            mailbox = self._open_hand_made(node, channel)
        if len(mailbox.queue) >= mailbox.capacity and not node.hub.make_room(mailbox):
            raise ChannelFull(channel)
        envelope = unpack(self._pack(body, None, node.lane), node.inbox, time.monotonic())
        taken = node.hub.put(mailbox, envelope)
        node.hub.delivered += taken
        return Receipt(1, None, "sent", int(taken), int(not taken))

    async def _put(self, channel: str, payload: bytes) -> None:
        if not await self._queues().put(channel, payload, self.get_capacity(channel), self.expiry):
            raise ChannelFull(channel)

    async def _discard(self, topic: str | None, channel: str) -> None:
        if not is_local(channel):
            await self._queues().unbind(topic, channel)
            return
        node = self._owner(channel)
        mailbox = node.hub.mailboxes.get(channel) if node is not None else None
        if node is None or mailbox is None:
            return

        async def leave() -> None:
            if topic is None:
                node.leave_all(mailbox)
            else:
                node.leave(topic, mailbox)

        await self._on(node, leave)

    def _queues(self) -> QueueEngine:
        if not isinstance(self._engine, QueueEngine):
            raise InvalidChannelLayerError(
                f"{type(self).__name__} has no worker channels; antiphon.layers.InMemoryChannelLayer has"
            )
        return self._engine

    # Nodes

    def _node(self, *, lasting: bool = True) -> Node:
        """Return the node of the running loop; of the background loop when this one will not last."""
        loop = asyncio.get_running_loop()
        node = self._nodes.get(loop)
        if node is not None:
            return node
        if lasting and is_temporary(loop):
            loop = background_loop()
        with self._lock:
            node = self._nodes.get(loop)
            if node is None:
                for other in [other for other in self._nodes if other.is_closed()]:
                    gone = self._nodes.pop(other)
                    del self._by_id[gone.id]
                    self._retire(gone)
                node = self._make_node(loop)
                self._nodes[loop] = self._by_id[node.id] = node
        return node

    def _make_node(self, loop: asyncio.AbstractEventLoop) -> Node:
        raise NotImplementedError  # an engine's layer opens its node here

    def _retire(self, node: Node) -> None:
        self._sent[0] += node.lane.n
        for name in self._retired:
            self._retired[name] += getattr(node.hub, name)
        self._idle_channels += node.idle_channels

    def _alive(self) -> list[Node]:
        return [node for node in tuple(self._nodes.values()) if not node.loop.is_closed()]

    def _in_scope(self, scope: str) -> list[Node]:
        if scope == "all":
            return self._alive()
        if scope == "node":
            return [self._node()]
        raise ValueError(f"scope: expected 'all' or 'node'; got {scope!r}")

    def _owner(self, channel: str) -> Node | None:
        """Return the node of this process that owns a channel."""
        node = self._by_id.get(node_of(channel) or "")
        return node if node is not None and not node.loop.is_closed() else None

    def _adopt(self, channel: str) -> Node:
        raise NodeUnreachable(f"no node {node_of(channel)!r} to ask for channel {channel!r}")

    def _may_reopen(self, channel: str) -> bool:
        return False

    def _open_hand_made(self, node: Node, channel: str) -> Mailbox:
        mailbox = Mailbox(
            channel,
            node.loop,
            capacity=self.get_capacity(channel),
            expiry_s=self.expiry,
            policy=self.get_overflow(channel),
        )
        node.open(mailbox)
        return mailbox

    async def _on(self, node: Node, call: Callable[[], Coroutine[Any, Any, T]]) -> T:
        """Run a coroutine on a node's loop, from whichever loop this is."""
        if node.loop is asyncio.get_running_loop() or not node.loop.is_running():
            # A loop that stands still cannot be in the middle of anything: its tables may be touched from here.
            return await call()
        future = asyncio.run_coroutine_threadsafe(call(), node.loop)
        try:
            return await asyncio.wait_for(asyncio.wrap_future(future), self.timeout_s)
        except TimeoutError:
            raise NodeUnreachable(f"node {node.id} did not answer within timeout_s ({self.timeout_s} s)") from None

    def _lose(self, reason: str, channel: str) -> None:
        # What no node of this process can count.
        self._retired["dropped"] += 1
        self._retired["undecodable"] += reason == "undecodable"
        self.drops.add(Drop(reason, None, channel))

    def _alias(self) -> str | None:
        from .registry import channel_layers  # the registry imports layers, not the other way round

        return next((alias for alias, layer in channel_layers.backends.items() if layer is self), None)

    def after_fork(self) -> None:
        """Drop everything inherited: nodes and lanes are the parent's."""
        self._nodes, self._by_id = {}, {}
        self._lock = threading.Lock()
        self._lanes = threading.local()
        self.drops.after_fork()


def _check_message(message: Message) -> None:
    if not isinstance(message, dict):
        raise TypeError(f"message: expected a dict; got {type(message).__name__} {message!r:.80}")
    kind = message.get("type")
    if not isinstance(kind, str) and not framework.compat:
        raise TypeError(f'message: expected a str under "type", which names the handler; got {kind!r:.80}')


def _require(fits: bool, name: str, expected: str, value: object) -> None:
    if not fits or isinstance(value, bool):
        raise OptionError(f"{name}: expected {expected}; got {value!r}")


def _require_reason(reason: str) -> None:
    if reason not in REASONS:
        raise ValueError(f"reason: expected one of {', '.join(REASONS)}; got {reason!r}")


def _channels(exclude: Iterable[str]) -> list[str]:
    if isinstance(exclude, str):
        raise TypeError(f"exclude: expected a list of channels; got the str {exclude!r}")
    channels = list(exclude)
    for channel in channels:
        require_channel(channel)
    return channels


def _groups(groups: Iterable[str]) -> list[str]:
    if isinstance(groups, str):
        raise TypeError(f"groups: expected a list of groups; got the str {groups!r}")
    groups = list(groups)
    for group in groups:  # before they are looked up anywhere: an unhashable one must get our error
        require_group(group)
    return [group_topic(group) for group in dict.fromkeys(groups)]


async def _finished(receipt: Receipt | Awaitable[Receipt]) -> Receipt:
    return receipt if isinstance(receipt, Receipt) else await receipt


def _sum(receipts: list[Receipt]) -> Receipt:
    if len(receipts) == 1:
        return receipts[0]
    known = [receipt.nodes for receipt in receipts if receipt.nodes is not None]
    return Receipt(nodes=max(known) if known else None)
