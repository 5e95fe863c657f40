"""``ChannelLayer``: what an application holds. Sending is in ``sends.py``, its nodes in ``nodes.py``.

Here: receiving, groups, ending connections, and the layer itself. Knows no particular engine.
"""

from __future__ import annotations

import asyncio
import contextlib
import logging
import time
from collections.abc import Callable, Coroutine, Sequence
from functools import partial
from typing import Any, ClassVar

from ..engines.base import QueueEngine
from ..exceptions import AskFailed, NodeUnreachable
from ..framework import user_key
from ..names import group_topic, is_local, require_channel, require_group
from ..types import Message
from ..wire.codes import REASONS
from .description import CHANNELS_MAX, describe_node
from .drops import Drop
from .logs.logs import EVENTS
from .mailbox import Mailbox
from .members import Channels, Count, Described
from .node import Node
from .questions import answered, ask_here
from .sends import Sends

__all__ = ["ChannelLayer", "require_reason"]

logger = logging.getLogger("antiphon.layer")


class ChannelLayer(Sends):
    """A channel layer over an engine.

    ``expiry``: seconds a message may wait in a channel. ``group_expiry``: seconds a worker channel stays in a group
    after its last ``group_add``. ``capacity``: messages a channel holds; ``channel_capacity``: the same by glob or
    compiled pattern. ``overflow``: what happens when a channel of a group is full (``drop_new``, ``drop_old``,
    ``close``); ``channel_overflow``: the same by pattern. ``max_message_bytes``: bound of an encoded message.
    ``timeout_s``: how long a call to another node may take. ``groups``: what is kept and known of groups, by pattern:
    {"chat_*": {"history_size": 200, …}}, see :class:`~antiphon.layer.group_options.GroupOptions`.
    """

    extensions: ClassVar[Sequence[str]] = ["groups", "flush"]
    engine_name: ClassVar[str] = "memory"

    def __repr__(self) -> str:
        return f"<{type(self).__name__} {len(self._nodes)} nodes>"

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
        return await self._take(channel)

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
        if scope == "all":
            found += await self._bound(topic)
        return Channels(found, complete=True)

    async def group_count(self, group: str, *, scope: str = "all") -> Count:
        """Return how many channels a group has: an int with ``complete``."""
        require_group(group)
        topic = group_topic(group)
        count = sum(len(node.hub.members.get(topic, ())) for node in self._in_scope(scope))
        if scope == "all":
            count += len(await self._bound(topic))
        return Count(count, complete=True)

    async def ask(self, channel: str, message: Message, *, timeout_s: float | None = None) -> Any:
        """Send to one consumer's channel, and return what its handler returns.

        Raises AskFailed when there is no such consumer, it has no handler for the type, or the handler raised;
        ChannelFull; NodeUnreachable when it does not answer within ``timeout_s`` (by default the layer's), or its node
        is gone; TypeError for a worker channel. The handler may have run all the same.
        """
        require_channel(channel)
        if not is_local(channel):
            raise TypeError(f"ask: {channel!r} is a worker channel: whoever reads it has no way to answer")
        body = self._encode(message)
        return answered(await self._ask_consumer(channel, body, timeout_s or self.timeout_s))

    async def _ask_consumer(self, channel: str, body: bytes, timeout_s: float) -> bytes:
        node = self._owner(channel)
        if node is None:
            raise AskFailed(f"no consumer has the channel {channel!r} (any more)")

        async def ask() -> bytes:
            try:
                async with asyncio.timeout(timeout_s):
                    return await ask_here(node, channel, body)
            except TimeoutError:
                raise NodeUnreachable(f"channel {channel!r} did not answer within {timeout_s:g} s") from None

        return await self._on(node, ask, timeout_s + 1.0)

    async def close_channel(self, channel: str, reason: str = "revoked") -> bool:
        """Close the connection behind a channel, with a reason of ``antiphon.wire.codes``; False: there is none."""
        require_channel(channel)
        require_reason(reason)
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

    async def unsubscribe_user(self, user: Any, group: str) -> int:
        """Take all connections of a user (object or key) out of a group; return how many were in it.

        They stay open. A consumer that has a handler ``antiphon_unsubscribe`` hears of it: {"type", "group", "user"}.
        """
        require_group(group)
        return await self._put_out(user_key(user), group)

    async def recheck_user(self, user: Any = None) -> int:
        """Have all connections of a user look again at what they may; None: of every user. Return how many there are.

        Each checks its session and user, as at ``revalidate_interval_s``; a subscription that is not allowed any more ends.
        """
        return await self._recheck(None if user is None else user_key(user))

    async def _recheck(self, key: str | None) -> int:
        async def recheck(node: Node) -> int:
            return node.recheck(key)

        return await self._count_on_all(recheck)

    async def _close_identity(self, kind: str, key: str, reason: str) -> int:
        require_reason(reason)
        self._revocations.add(kind, key, reason)

        async def close(node: Node) -> int:
            boxes = node.hub.by_identity(kind, key)
            for box in boxes:
                box.ask_close(reason)
            return len(boxes)

        return await self._count_on_all(close)

    async def _put_out(self, key: str, group: str) -> int:
        async def put_out(node: Node) -> int:
            return node.put_out(key, group)

        return await self._count_on_all(put_out)

    async def _count_on_all(self, work: Callable[[Node], Coroutine[Any, Any, int]]) -> int:
        # All at once: a loop that is stuck must not keep the others from hearing it.
        counts = await asyncio.gather(
            *(self._on(node, partial(work, node)) for node in self._alive()), return_exceptions=True
        )
        failures = [count for count in counts if isinstance(count, BaseException)]
        if failures:
            raise failures[0]
        return sum(count for count in counts if isinstance(count, int))

    async def flush(self) -> None:
        """Forget every group, and every message that waits. Connections stay open."""
        for node in self._alive():
            await self._on(node, partial(self._clear, node))

    async def _clear(self, node: Node) -> None:
        for count, mailbox in enumerate(tuple(node.hub.mailboxes.values())):
            mailbox.queue.clear()
            node.leave_all(mailbox)
            if mailbox.owner is None and not mailbox.readers:
                node.close(mailbox)
            if count % 500 == 499:
                await asyncio.sleep(0)  # the loop serves its sockets meanwhile

    async def close(self) -> None:
        """End every node of this process. The layer may be used again; it starts anew."""
        with self._lock:
            nodes, self._nodes, self._by_id = list(self._nodes.values()), {}, {}
        for node in nodes:
            self._retire(node)
            node.end()
            if node.presence is not None:
                # What is not told now is found by the others, when its lease is over.
                with contextlib.suppress(Exception):
                    await self._on(node, node.presence.close)
            await node.engine.close()

    def stats(self) -> dict[str, Any]:
        """Return the counters and gauges of this process, as documented in ``docs/logging.md``."""
        nodes = self._alive()
        total = {
            name: int(kept + sum(getattr(node.hub, name) for node in nodes)) for name, kept in self._retired.items()
        }
        following = [node.hub.logs for node in nodes if node.hub.logs is not None]
        newest = max(nodes, key=lambda node: node.hub.arrived, default=None)
        return {
            "nodes": len(nodes),
            "channels": sum(len(node.hub.mailboxes) for node in nodes),
            "groups": len({topic for node in nodes for topic in tuple(node.hub.members) if topic[:2] == "g:"}),
            "waiting": sum(node.hub.waiting() for node in nodes),
            "sent": self._sent[0] + sum(node.lane.n for node in nodes),
            **total,
            "idle_channels": self._idle_channels + sum(node.idle_channels for node in nodes),
            "history_topics": sum(len(logs.logs) for logs in following),
            "history_filling": sum(logs.filling for logs in following),
            "history": {
                event: self._history[event] + sum(logs.stats()[event] for logs in following) for event in EVENTS
            },
            "presence_members": sum(node.presence.count for node in nodes if node.presence is not None),
            "presence_waiting": sum(node.presence.waiting for node in nodes if node.presence is not None),
            "drops": dict(self.drops.by_reason),
            "drops_by_group": {f"{group}:{reason}": n for (reason, group), n in self.drops.by_group.items()},
            "lag_s": {
                "last": newest.hub.lag.last_s if newest else 0.0,
                "mean": newest.hub.lag.mean_s if newest else 0.0,
                "max": max((node.hub.lag.max_s for node in nodes), default=0.0),
            },
        }

    async def health(self) -> dict[str, Any]:
        """Say whether the engine works: {"ok", "engine", "links", "nodes", "lost"}, as documented in ``docs/logging.md``."""
        return {"ok": True, "engine": self.engine_name, "links": [], "nodes": len(self._alive()), "lost": 0}

    async def nodes_info(self, *, limit: int = CHANNELS_MAX, timeout_s: float | None = None) -> Described:
        """Describe every node: its process, counters, and at most ``limit`` of its channels and groups.

        A node is {"id", "host", "pid", "process", "started_s", "channels", "groups": {name: count}, "stats",
        "truncated"}; a channel is {"channel", "consumer", "user", "session": bool, "groups", "waiting", "capacity"}.
        ``complete`` is False, and it is logged, when a node did not answer within ``timeout_s`` (the layer's, by
        default).
        """
        stats = self.stats()

        async def describe(node: Node) -> dict[str, Any]:
            return describe_node(node, stats, limit, self.max_message_bytes)

        nodes = self._alive()
        found = await asyncio.gather(
            *(self._on(node, partial(describe, node), timeout_s) for node in nodes), return_exceptions=True
        )
        for failure in found:
            if isinstance(failure, BaseException):
                logger.warning("A node is missing in nodes_info(): %s", failure)
        infos = [info for info in found if isinstance(info, dict)]
        return Described(infos, complete=len(infos) == len(nodes))

    async def ping_node(self, node_id: str, *, timeout_s: float | None = None) -> float:
        """Return how many seconds a node takes to answer. Raises NodeUnreachable when it does not."""
        before = time.monotonic()
        await self._ping(node_id, timeout_s)
        return time.monotonic() - before

    async def _ping(self, node_id: str, timeout_s: float | None) -> None:
        async def answer() -> None: ...

        node = self._by_id.get(node_id)
        if node is None:
            raise NodeUnreachable(f"no node {node_id!r} in this process")
        await self._on(node, answer, timeout_s)

    async def bindings(self) -> dict[str, list[str]]:
        """Return the worker channels that are members of groups: group -> worker channels."""
        return {}

    def revoked_since(self, user: str | None, session: str | None, since_s: float) -> str | None:
        """Return the reason if a connection that was let in at ``since_s`` (monotonic) was closed meanwhile."""
        return self._revocations.since(user, session, since_s)

    def open_mailbox(
        self, owner: str, *, capacity: int | None, overflow: str | None, prefix: str = "specific."
    ) -> tuple[Node, Mailbox]:
        """Open the mailbox of a consumer on the running loop; the consumer closes it with ``node.close``."""
        node = self._node(lasting=False)
        channel = node.channel_name(prefix)
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

    async def _bound(self, topic: str) -> list[str]:
        return await self._engine.bound(topic) if isinstance(self._engine, QueueEngine) else []

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


def require_reason(reason: str) -> None:
    """Raise ValueError unless ``reason`` is one of ``antiphon.wire.codes``."""
    if reason not in REASONS:
        raise ValueError(f"reason: expected one of {', '.join(REASONS)}; got {reason!r}")
