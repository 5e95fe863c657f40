"""``InMemoryChannelLayer``: the layer of one process. Needs no server, and says so where one would be needed."""

from __future__ import annotations

import asyncio
import logging
from asyncio import _get_running_loop
from collections.abc import Awaitable, Iterator, Mapping, MutableMapping
from re import Pattern
from typing import Any

from .. import framework
from ..engines.memory import MemoryBus, MemoryEngine, MemoryQueue
from ..options import unknown_key
from ..types import Keep, Position, Receipt
from .layer import ChannelLayer
from .mailbox import Mailbox
from .node import Node
from .sends import receipt_of

__all__ = ["InMemoryChannelLayer"]

logger = logging.getLogger("antiphon.layer")


class InMemoryChannelLayer(ChannelLayer):
    """A channel layer inside one process: every loop and thread of it, and no other process.

    Options as in :class:`~antiphon.layers.ChannelLayer`.
    """

    def __init__(
        self,
        expiry: float = 60,
        group_expiry: float = 86400,
        capacity: int = 100,
        channel_capacity: Mapping[Pattern[str] | str, int] | None = None,
        **kwargs: Any,
    ) -> None:
        for name in kwargs.keys() - _OPTIONS:
            problem = unknown_key(name, _OPTIONS | _COMMON, f"option of {type(self).__name__}")
            if not framework.compat:
                raise TypeError(problem)
            # Channels takes any option here, such as the "hosts" of a layer that tests replace by this one.
            logger.warning("%s; ignored", problem)
            del kwargs[name]
        self._bus = MemoryBus()
        super().__init__(
            self._bus,
            expiry=expiry,
            group_expiry=group_expiry,
            capacity=capacity,
            channel_capacity=channel_capacity,
            **kwargs,
        )
        self._bus.on_drop = self._dropped

    @property
    def channels(self) -> MutableMapping[str, Any]:
        """The channels that are open, or hold messages, or are being read: name -> what holds them."""
        return _ChannelsView(self)

    @property
    def groups(self) -> dict[str, dict[str, float]]:
        """The groups, a copy: name -> {channel: 0.0}."""
        groups: dict[str, dict[str, float]] = {}
        for node in self._alive():
            for topic, members in tuple(node.hub.members.items()):
                if topic[:2] == "g:":
                    groups.setdefault(topic[2:], {}).update(dict.fromkeys(tuple(members), 0.0))
        for topic, queues in self._bus.bindings().items():
            groups.setdefault(topic[2:], {}).update(dict.fromkeys(queues, 0.0))
        return groups

    def _make_node(self, loop: asyncio.AbstractEventLoop) -> Node:
        engine = MemoryEngine(self._bus)
        node = Node(loop, engine, self.drops, self.expiry)
        self._attach_logs(node, self._top)
        self._attach_presence(node)
        engine.attach(node.hub, loop)
        engine.subscribe((node.inbox,))
        return node

    def _top(self, topic: str) -> Position:
        return self._bus.tops_blocking([topic])[0]

    def _publish(
        self, topic: str, body: bytes, extra: dict[str, Any] | None, keep: Keep | None
    ) -> Receipt | Awaitable[Receipt]:
        # The common case of one process: the sender's loop is the only one with members. Then the way through the
        # engine would only wrap the body and unwrap it again, for a third of the cost of a send.
        node = self._nodes.get(_get_running_loop())  # type: ignore[arg-type]  # None is nobody's loop
        if node is None or extra or keep is not None or self._bus.only_subscriber(topic) is not node.engine:
            return super()._publish(topic, body, extra, keep)
        hub = node.hub
        node.lane.n += 1
        hub.arrive_here(topic, body)
        return receipt_of(hub.taken, hub.missed)

    def _adopt(self, channel: str) -> Node:
        # A specific name that no node of this process made: there is no other process it could belong to, so the
        # first to use it owns it, as in the in-memory layer that users know.
        node = self._node()
        self._by_id[channel.partition("!")[0].rpartition(".")[2]] = node  # in the place of one whose loop is closed
        return node

    def _may_reopen(self, channel: str) -> bool:
        # One made by hand may have been forgotten because nobody used it; a consumer's has ended with its connection.
        node = self._owner(channel)
        return node is None or node.id not in channel or "!x" in channel

    def require_reach(self) -> None:
        """Raise CrossProcessError if the connections are in another process."""
        self._bus.require_reach()

    async def flush(self) -> None:
        """Forget every group, and every message that waits. Connections stay open."""
        await super().flush()
        self._bus.flush()

    async def bindings(self) -> dict[str, list[str]]:
        """Return the worker channels that are members of groups: group -> worker channels."""
        return {topic[2:]: sorted(queues) for topic, queues in self._bus.bindings().items()}

    def stats(self) -> dict[str, Any]:
        """Return the counters and gauges of this process."""
        stats = super().stats()
        queues = tuple(self._bus.queues.values())
        stats["worker_channels"] = {queue.name: len(queue) for queue in queues if len(queue)}
        return stats


_COMMON = {"expiry", "group_expiry", "capacity", "channel_capacity"}
_OPTIONS = {"overflow", "channel_overflow", "max_message_bytes", "timeout_s", "groups"}


class _ChannelsView(MutableMapping[str, Any]):
    """The mapping that users of the in-memory layer look into: worker channels and mailboxes by name."""

    def __init__(self, layer: InMemoryChannelLayer) -> None:
        self._layer = layer

    def _all(self) -> dict[str, Mailbox | MemoryQueue]:
        found: dict[str, Mailbox | MemoryQueue] = dict(self._layer._bus.queues)
        for node in self._layer._alive():
            found.update(node.hub.mailboxes)
        return found

    def __getitem__(self, name: str) -> Mailbox | MemoryQueue:
        return self._all()[name]

    def __setitem__(self, name: str, value: Any) -> None:
        raise TypeError("channels come into being by being used")

    def __delitem__(self, name: str) -> None:
        if self._layer._bus.queues.pop(name, None) is not None:
            return
        for node in self._layer._alive():
            mailbox = node.hub.mailboxes.get(name)
            if mailbox is not None:
                node.close(mailbox)
                return
        raise KeyError(name)

    def __iter__(self) -> Iterator[str]:
        return iter(self._all())

    def __len__(self) -> int:
        return len(self._all())
