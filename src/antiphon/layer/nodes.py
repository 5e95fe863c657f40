"""``Nodes``: the options of a layer, and the nodes and lanes it has in this process. Sends and receives nothing.

One node for each event loop that owns channels, and one lane for each loop or thread that sends. A loop that
``async_to_sync`` made for one call never becomes a node: it borrows the background node. Knows no particular engine.
"""

from __future__ import annotations

import asyncio
import os
import threading
import weakref
from collections import Counter
from collections.abc import Callable, Coroutine, Mapping
from re import Pattern
from typing import TYPE_CHECKING, Any, TypeVar

from ..engines.base import HistoryPublisher, ProcessEngine
from ..exceptions import NodeUnreachable, OptionError
from ..names import node_of, require_group
from ..types import Position
from .background import background_loop, is_temporary
from .base import BaseChannelLayer
from .drops import Drop, Drops
from .group_options import GroupOptions, GroupTable
from .logs import Logs
from .mailbox import POLICIES, Mailbox
from .node import Lane, Node
from .revocations import Revocations

if TYPE_CHECKING:
    from .cipher import Cipher

__all__ = ["Nodes"]

T = TypeVar("T")


class Nodes(BaseChannelLayer):
    """What a layer is before it can send: see :class:`~antiphon.layers.ChannelLayer` for its options."""

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
        groups: Mapping[Pattern[str] | str, Mapping[str, Any]] | None = None,
    ) -> None:
        super().__init__(expiry=expiry, capacity=capacity, channel_capacity=channel_capacity)
        for name, value in (("expiry", expiry), ("group_expiry", group_expiry), ("timeout_s", timeout_s)):
            _require(isinstance(value, (int, float)) and value > 0, name, "a number of seconds above 0", value)
        for name, value in (("capacity", capacity), ("max_message_bytes", max_message_bytes)):
            _require(isinstance(value, int) and value > 0, name, "a positive int", value)
        policies = " or ".join(map(repr, POLICIES))
        _require(overflow in POLICIES, "overflow", policies, overflow)
        _require_patterns(channel_overflow, "channel_overflow", policies)
        for policy in (channel_overflow or {}).values():
            _require(policy in POLICIES, "channel_overflow", policies, policy)
        _require_patterns(channel_capacity, "channel_capacity", "positive ints")
        for value in (channel_capacity or {}).values():
            _require(isinstance(value, int) and value > 0, "channel_capacity", "positive ints", value)
        self.channel_capacity = self.compile_capacities(channel_capacity or {})
        self.channel_overflow = self.compile_capacities(channel_overflow or {})
        self.group_expiry = group_expiry
        self.overflow = overflow
        self.max_message_bytes = max_message_bytes
        self.timeout_s = timeout_s
        self.drops = Drops()
        self._groups = GroupTable(groups)
        self._revocations = Revocations()
        self._engine = engine
        if self._groups.logs and not isinstance(engine, HistoryPublisher):
            raise OptionError(f"groups: history_size needs an engine that keeps logs; {type(engine).__name__} does not")
        self._cipher: Cipher | None = None
        self._nodes: dict[asyncio.AbstractEventLoop, Node] = {}
        self._by_id: dict[str, Node] = {}
        self._lock = threading.Lock()
        self._lanes = threading.local()
        self._spare_lanes: list[Lane] = []
        self._sent = [0]
        self._idle_channels = 0
        self._history: Counter[str] = Counter()
        _layers.add(self)
        self._retired: dict[str, float] = dict.fromkeys(("arrived", "delivered", "dropped", "undecodable"), 0)

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

    def _attach_logs(self, node: Node, top_now: Callable[[str], Position] | None = None) -> None:
        """Have a new node follow the logs of groups, where there are any."""
        if self._groups.logs:
            node.hub.logs = Logs(node.hub, node.engine, self._groups.keep, top_now)

    def group_options(self, group: str) -> GroupOptions:
        """Return the options of a group: those of the first pattern in ``groups`` that matches its name."""
        require_group(group)
        return self._groups.of(group)

    def _retire(self, node: Node) -> None:
        self._sent[0] += node.lane.n
        for name in self._retired:
            self._retired[name] += getattr(node.hub, name)
        self._idle_channels += node.idle_channels
        if node.hub.logs is not None:
            self._history.update(node.hub.logs.stats())

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
        # One made by hand may have been forgotten because nobody used it; a consumer's has ended with its connection.
        return "!x" in channel

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

    async def _on(self, node: Node, call: Callable[[], Coroutine[Any, Any, T]], timeout_s: float | None = None) -> T:
        """Run a coroutine on a node's loop, from whichever loop this is; ``timeout_s``: the layer's by default."""
        if node.loop is asyncio.get_running_loop() or not node.loop.is_running():
            # A loop that stands still cannot be in the middle of anything: its tables may be touched from here.
            return await call()
        timeout_s = timeout_s or self.timeout_s
        future = asyncio.run_coroutine_threadsafe(call(), node.loop)
        try:
            return await asyncio.wait_for(asyncio.wrap_future(future), timeout_s)
        except TimeoutError:
            raise NodeUnreachable(f"node {node.id} did not answer within timeout_s ({timeout_s} s)") from None

    def _lose(self, reason: str, channel: str) -> None:
        # What no node of this process can count.
        self._retired["dropped"] += 1
        self._retired["undecodable"] += reason == "undecodable"
        self.drops.add(Drop(reason, None, channel))

    def _lane(self) -> Lane:
        # The lane of this thread: a thread of synchronous code, or one whose loop owns no channel.
        lane: Lane | None = getattr(self._lanes, "lane", None)
        if lane is None:
            lane = self._lanes.lane = Lane()
        return lane

    def _borrow_lane(self) -> Lane:
        """Lend a lane to a call on a loop that ``async_to_sync`` made: its thread is new, and ends with it."""
        self._sent[0] += 1
        try:
            return self._spare_lanes.pop()
        except IndexError:
            return Lane()

    def _alias(self) -> str | None:
        from .registry import channel_layers  # the registry imports layers, not the other way round

        return next((alias for alias, layer in channel_layers.backends.items() if layer is self), None)

    def get_overflow(self, channel: str) -> str:
        """Return the overflow policy of a channel: the first pattern that matches, else ``overflow``."""
        for pattern, policy in self.channel_overflow:
            if pattern.match(channel):
                return str(policy)
        return self.overflow

    def after_fork(self) -> None:
        """Drop everything inherited: nodes and lanes are the parent's."""
        self._nodes, self._by_id = {}, {}
        self._lock = threading.Lock()
        self._lanes = threading.local()
        self._spare_lanes = []
        self.drops.after_fork()


def _require(fits: bool, name: str, expected: str, value: object) -> None:
    if not fits or isinstance(value, bool):
        raise OptionError(f"{name}: expected {expected}; got {value!r}")


def _require_patterns(table: object, name: str, values: str) -> None:
    if table is not None and not (isinstance(table, Mapping) and all(map(_is_pattern, table))):
        raise OptionError(f"{name}: expected a dict of channel patterns to {values}; got {table!r:.200}")


def _is_pattern(key: object) -> bool:
    # Whatever has ``match`` will do, as in Channels; a pattern over bytes matches no name.
    return isinstance(key, str) or (hasattr(key, "match") and not isinstance(getattr(key, "pattern", ""), bytes))


_layers: weakref.WeakSet[Nodes] = weakref.WeakSet()


def _after_fork() -> None:
    for layer in tuple(_layers):
        layer.after_fork()


if hasattr(os, "register_at_fork"):
    os.register_at_fork(after_in_child=_after_fork)
