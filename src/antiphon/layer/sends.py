"""``Sends``: how a layer sends. It checks, encodes once, and hands one publish to the engine. Knows no engine."""

from __future__ import annotations

import asyncio
import time
from asyncio import _get_running_loop
from collections.abc import Awaitable, Iterable, Mapping, Sequence
from functools import partial
from time import time_ns
from typing import Any, TypeAlias

from .. import framework, names
from ..codec import encode
from ..engines.base import BatchPublisher
from ..envelope import MARKER, MESSAGE, Envelope, pack
from ..exceptions import ChannelFull, MessageTooLarge
from ..framework import user_key
from ..names import (
    group_topic,
    is_local,
    known_groups,
    node_of,
    queue_topic,
    require_channel,
    require_group,
    user_topic,
)
from ..types import Keep, Message, Receipt
from .capture import Sent, record, recorders
from .histories import Terms
from .node import Lane, Node
from .presences import Presences

__all__ = ["Packed", "Sends", "checked_channels", "checked_groups", "receipt_of"]

# Receipts of messages that one node took and none of its members dropped: the common ones, made once.
_RECEIPTS_MAX = 257
_RECEIPTS = tuple(Receipt(1, None, "sent", delivered, 0) for delivered in range(_RECEIPTS_MAX))


def receipt_of(delivered: int, dropped: int) -> Receipt:
    """Return the receipt of a message that was delivered on this loop, and nowhere else, inside the call."""
    if not dropped and delivered < _RECEIPTS_MAX:
        return _RECEIPTS[delivered]
    return Receipt(1, None, "sent", delivered, dropped)


# One message as an engine takes it: topic, payload, how it is kept.
Packed: TypeAlias = tuple[str, bytes, Keep | None]


class Sends(Presences):
    """The sending half of :class:`~antiphon.layers.ChannelLayer`."""

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
            await self._put(channel, self._pack(queue_topic(channel), body))
            return Receipt(delivered=1, dropped=0)
        node = self._owner(channel)
        if node is not None and node.loop is asyncio.get_running_loop():
            return self._put_here(node, channel, body)
        topic = node.inbox if node is not None else names.inbox_topic(node_of(channel) or "")
        receipt = await _finished(self._publish(topic, body, {"c": channel}, None))
        if receipt.nodes == 0:
            self._lose("no_channel", channel)
        return receipt

    async def group_send(
        self,
        group: str,
        message: Message,
        *,
        exclude: Iterable[str] = (),
        exclude_author: Any = None,
        idempotency_key: str | None = None,
        version: int = 0,
        version_epoch: str = "",
    ) -> Receipt:
        """Send to every channel of a group, except those in ``exclude``.

        Where the group has a history: ``exclude_author`` (a user or any text; by default the user whose channel is
        excluded) does not get it either when it recovers, on whichever connection; "" for nobody. A second message
        with the same ``idempotency_key`` is not published (state ``duplicate``), nor one whose ``version`` is not
        greater than the last one's of its ``version_epoch`` (``suppressed``).

        Never raises ChannelFull: what a full channel drops is counted, by its overflow policy. TypeError for a wrong
        name or message, MessageTooLarge beyond the bound, OptionError for what needs a history where there is none,
        EngineUnavailable when the engine cannot take it.
        """
        if exclude_author is None and idempotency_key is None and not version:
            body, extra, keep = self._checked(group, message, exclude)
        else:
            terms = self.terms(idempotency_key, version, version_epoch)
            body, extra, keep = self._checked(group, message, exclude, exclude_author, terms)
        receipt = self._publish("g:" + group, body, extra, keep)
        return receipt if isinstance(receipt, Receipt) else await receipt

    def _checked(
        self,
        group: str,
        message: Message,
        exclude: Iterable[str],
        exclude_author: Any = None,
        terms: Terms | None = None,
    ) -> tuple[bytes, dict[str, Any] | None, Keep | None]:
        """Return the body and the extra of a message to a group, and how it is kept."""
        if type(group) is not str or group not in known_groups:
            require_group(group)
        body = self._encode(message)
        keep = self.keep("g:" + group, terms) if self._groups.logs or terms is not None else None
        extra = self.excluding(checked_channels(exclude), exclude_author, kept=keep is not None) if exclude else None
        if recorders:
            record(Sent("group", group, message, tuple(extra["x"]) if extra else (), layer=self._alias()))
        return body, extra, keep

    async def groups_send(
        self,
        groups: Iterable[str],
        message: Message,
        *,
        exclude: Iterable[str] = (),
        exclude_author: Any = None,
        idempotency_key: str | None = None,
    ) -> Receipt:
        """Send to every channel of several groups; one that is in more of them gets the message once."""
        topics = checked_groups(groups)
        body = self._encode(message)
        excluded = checked_channels(exclude)
        terms = self.terms(idempotency_key)
        keeps = [self.keep(topic, terms) for topic in topics]
        if recorders:
            record(Sent("group", tuple(t[2:] for t in topics), message, tuple(excluded), layer=self._alias()))
        if not topics:
            return Receipt(nodes=0, delivered=0, dropped=0)
        extra = self.excluding(excluded, exclude_author, kept=any(keeps)) or {}
        if len(topics) > 1:
            extra["t"] = topics
        return await self._publish_copies(topics, body, extra, keeps)

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
        keep = self._groups.keep
        return await _all_finished([self._publish("g:" + g, body, None, keep("g:" + g)) for g, body in checked])

    async def user_send(self, user: Any, message: Message, *, exclude: Iterable[str] = ()) -> Receipt:
        """Send to all connections of a user whose consumer class has ``user_channel = True``.

        ``user``: a user object, or its primary key.
        """
        key = user_key(user)
        body = self._encode(message)
        excluded = checked_channels(exclude)
        if recorders:
            record(Sent("user", key, message, tuple(excluded), layer=self._alias()))
        return await _finished(self._publish(user_topic(key), body, {"x": excluded} if excluded else None, None))

    async def announce(self, group: str, kind: str, message: Mapping[str, Any]) -> Receipt:
        """Say something to those consumers of a group that have a handler for it, through its log if it has one.

        For what a layer has to say by itself: presence. No other consumer gets it, not even to refuse it.
        """
        require_group(group)
        topic, body = "g:" + group, self._encode({**message, "type": kind})
        node = self._node()
        node.lane.n += 1
        payload = self._seal(MARKER, topic, node.lane, body, {"y": kind})
        keep = self._groups.keep(topic)
        return await _finished(
            node.engine.publish(topic, payload) if keep is None else _append(node, topic, payload, keep)
        )

    def require_reach(self) -> None:
        """Raise CrossProcessError if the members can only be where this engine does not reach."""

    def publish_blocking(
        self, topics: list[str], body: bytes, extra: dict[str, Any] | None, keeps: Sequence[Keep | None] = ()
    ) -> Receipt:
        """Publish from a thread without a loop; ``body`` as ``encode`` made it."""
        return _sum([self._publish_one(*packed) for packed in self.pack(topics, body, extra, keeps)])

    def _publish_one(self, topic: str, payload: bytes, keep: Keep | None) -> Receipt:
        if keep is None:
            return self._engine.publish_blocking(topic, payload)
        return self._engine.append_blocking(topic, payload, keep)  # type: ignore[attr-defined,no-any-return]  # it keeps logs

    def publish_in_line(self, packed: Sequence[Packed]) -> tuple[list[Receipt], Exception | None]:
        """Publish [(topic, payload, keep)] in order, from a thread without a loop, up to the first that fails.

        Returns the receipts of those that the engine confirmed, and why not of the next. What became of those after
        it nobody knows: they, too, are to be sent again, marked by ``mark_again``.
        """
        if isinstance(self._engine, BatchPublisher):
            return self._engine.publish_many_blocking(packed)
        receipts: list[Receipt] = []
        try:
            for one in packed:
                receipts.append(self._publish_one(*one))
        except Exception as exc:
            return receipts, exc
        return receipts, None

    def pack(
        self,
        topics: list[str],
        body: bytes,
        extra: dict[str, Any] | None = None,
        keeps: Sequence[Keep | None] = (),
    ) -> list[Packed]:
        """Return [(topic, payload, keep)] of one message of this thread's lane: its place in the lane is taken now."""
        lane = self._lane()
        self._sent[0] += 1
        lane.n += 1
        return [
            (topic, self._seal(MESSAGE, topic, lane, body, extra), keep)
            for topic, keep in zip(topics, keeps or [None] * len(topics), strict=True)
        ]

    def encode(self, message: Message) -> bytes:
        """Check and encode a message; the errors are those of ``group_send``."""
        return self._encode(message)

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

    def _pack(self, topic: str, body: bytes, extra: dict[str, Any] | None = None, lane: Lane | None = None) -> bytes:
        if lane is None:
            lane = self._lane()
            self._sent[0] += 1
        lane.n = n = lane.n + 1
        if self._cipher is None:
            return pack(MESSAGE, lane.id, n, time_ns() // 1000, body, extra)
        return self._seal(MESSAGE, topic, lane, body, extra)

    def _seal(self, kind: int, topic: str, lane: Lane, body: bytes, extra: dict[str, Any] | None) -> bytes:
        seal = partial(self._cipher.seal, topic) if self._cipher is not None else None
        return pack(kind, lane.id, lane.n, time_ns() // 1000, body, extra, seal)

    def _publish(
        self, topic: str, body: bytes, extra: dict[str, Any] | None, keep: Keep | None
    ) -> Receipt | Awaitable[Receipt]:
        node = self._nodes.get(_get_running_loop())  # type: ignore[arg-type]  # None is nobody's loop
        if node is None:
            return self._publish_without_node(topic, body, extra, keep)
        hub = node.hub
        arrived = hub.arrived
        payload = self._pack(topic, body, extra, node.lane)
        if keep is not None:
            receipt = _append(node, topic, payload, keep)
            if type(receipt) is Receipt and receipt.nodes == 1 and hub.arrived == arrived + 1:
                return receipt._replace(delivered=hub.taken, dropped=hub.missed)
            return receipt
        receipt = node.engine.publish(topic, payload)
        if type(receipt) is Receipt and receipt.nodes == 1 and hub.arrived != arrived:
            return receipt_of(hub.taken, hub.missed)  # one node, and it was this one, inside the call
        return receipt

    def _publish_without_node(
        self, topic: str, body: bytes, extra: dict[str, Any] | None, keep: Keep | None
    ) -> Receipt | Awaitable[Receipt]:
        # The memory engine takes a message from any thread, without waiting for anything.
        return self._publish_one(topic, self._pack(topic, body, extra), keep)

    async def _publish_copies(
        self, topics: list[str], body: bytes, extra: dict[str, Any], keeps: Sequence[Keep | None]
    ) -> Receipt:
        node = self._nodes.get(asyncio.get_running_loop())
        if node is None:
            return self.publish_blocking(topics, body, extra, keeps)
        node.lane.n += 1
        # Every copy has its place in line before the first is waited for.
        receipts = []
        for topic, keep in zip(topics, keeps, strict=True):
            payload = self._seal(MESSAGE, topic, node.lane, body, extra)
            kept = keep is not None
            receipts.append(_append(node, topic, payload, keep) if kept else node.engine.publish(topic, payload))
        return _sum(await _all_finished(receipts))

    def _put_here(self, node: Node, channel: str, body: bytes) -> Receipt:
        mailbox = node.hub.mailboxes.get(channel)
        if mailbox is None:
            if not self._may_reopen(channel):
                node.hub.count_missing(channel)
                return Receipt(1, None, "sent", 0, 1)
            mailbox = self._open_hand_made(node, channel)
        if len(mailbox.queue) >= mailbox.capacity and not node.hub.make_room(mailbox):
            raise ChannelFull(channel)
        node.lane.n += 1
        envelope = Envelope(node.inbox, time.monotonic(), body)
        taken = node.hub.put(mailbox, envelope)
        node.hub.delivered += taken
        return Receipt(1, None, "sent", int(taken), int(not taken))


def _append(node: Node, topic: str, payload: bytes, keep: Keep | None) -> Receipt | Awaitable[Receipt]:
    return node.engine.append(topic, payload, keep)  # type: ignore[attr-defined,no-any-return]  # it keeps logs


def _check_message(message: Message) -> None:
    if not isinstance(message, dict):
        raise TypeError(f"message: expected a dict; got {type(message).__name__} {message!r:.80}")
    kind = message.get("type")
    if not isinstance(kind, str) and not framework.compat:
        raise TypeError(f'message: expected a str under "type", which names the handler; got {kind!r:.80}')


def checked_channels(exclude: Iterable[str]) -> list[str]:
    """Return the channels to exclude, each a valid name."""
    if isinstance(exclude, str):
        raise TypeError(f"exclude: expected a list of channels; got the str {exclude!r}")
    channels = list(exclude)
    for channel in channels:
        require_channel(channel)
    return channels


def checked_groups(groups: Iterable[str]) -> list[str]:
    """Return the topics of several groups, each with a valid name, and once."""
    if isinstance(groups, str):
        raise TypeError(f"groups: expected a list of groups; got the str {groups!r}")
    groups = list(groups)
    for group in groups:  # before they are looked up anywhere: an unhashable one must get our error
        require_group(group)
    return [group_topic(group) for group in dict.fromkeys(groups)]


async def _finished(receipt: Receipt | Awaitable[Receipt]) -> Receipt:
    return receipt if isinstance(receipt, Receipt) else await receipt


async def _all_finished(receipts: Sequence[Receipt | Awaitable[Receipt]]) -> list[Receipt]:
    """Wait for all, then raise the first error: one that nobody fetched would be logged as forgotten."""
    finished: list[Receipt] = []
    failure: Exception | None = None
    for receipt in receipts:
        try:
            finished.append(await _finished(receipt))
        except Exception as exc:
            failure = failure or exc
    if failure is not None:
        raise failure
    return finished


def _sum(receipts: list[Receipt]) -> Receipt:
    if len(receipts) == 1:
        return receipts[0]
    known = [receipt.nodes for receipt in receipts if receipt.nodes is not None]
    return Receipt(nodes=max(known) if known else None)
