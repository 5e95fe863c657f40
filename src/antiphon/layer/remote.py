"""``RemoteChannelLayer``: a layer whose engine reaches other processes. Knows no particular engine.

What concerns another node's channel is asked of that node (``control.py``); what it does then is in ``calls.py``.
Channels of this process's own nodes are reached directly, as in the layer of one process.
"""

from __future__ import annotations

import asyncio
import contextlib
import itertools
import logging
import time
from collections.abc import Awaitable, Collection, Mapping
from functools import partial
from typing import Any

from ..envelope import CONTROL
from ..exceptions import AskFailed, ChannelFull, EngineUnavailable, NodeUnreachable
from ..names import control_topic, group_topic, is_local, node_of, require_channel, require_group
from .calls import Calls
from .control import Answers, Control
from .description import CHANNELS_MAX
from .layer import ChannelLayer, require_reason
from .members import Channels, Count, Described
from .node import Lane, Node

__all__ = ["RemoteChannelLayer"]

logger = logging.getLogger("antiphon.layer")

# Beyond a call's own time-out, where the call runs on another loop: so that the call's own error is what is raised.
_CROSSING_S = 1.0
# How long the keys of an engine may take to be deleted.
_FLUSH_S = 120.0
# Between attempts to ask, while the engine is away.
_RECALL_PAUSE_S = 0.5


class RemoteChannelLayer(ChannelLayer):
    """A channel layer over an engine that reaches other processes.

    A subclass makes its nodes so that each listens to its inbox and to ``control_topic()``, and calls
    ``_attach_control`` before it does.
    """

    def __init__(self, *args: Any, **kwargs: Any) -> None:
        super().__init__(*args, **kwargs)
        self._controls: dict[str, Control] = {}

    def _attach_control(self, node: Node) -> None:
        """Have a new node answer calls, and able to make them."""
        # A lane of its own: what nodes say to each other is no message that anybody sent.
        pack = partial(self._pack_control, Lane())
        control = Control(node, pack, Calls(self, node).by_name(), max_bytes=self.max_message_bytes)
        self._controls[node.id] = control
        node.hub.on_control = control.handle
        node.loop.call_soon_threadsafe(self._begin, node, control)

    def _pack_control(self, lane: Lane, topic: str, body: bytes) -> bytes:
        lane.n += 1
        return self._seal(CONTROL, topic, lane, body, None)

    def _retire(self, node: Node) -> None:
        super()._retire(node)
        control = self._controls.pop(node.id, None)
        if control is not None:
            control.end()

    def after_fork(self) -> None:
        """Drop everything inherited."""
        super().after_fork()
        self._controls = {}

    # One channel

    async def new_channel(self, prefix: str = "specific.") -> str:
        """Return the name of a new channel of this node; read it with ``receive``. Others reach it from now on."""
        channel = await super().new_channel(prefix)
        node = self._owner(channel)
        if node is not None:
            # A node's first channel may be told to others before the server knows the node. Without a server the
            # channel is as good as any: it is reached when that returns.
            with contextlib.suppress(EngineUnavailable):
                await self._on(node, self._controls[node.id].listen)
        return channel

    async def group_add(self, group: str, channel: str) -> None:
        """Add a channel of any node to a group; what is sent from now on reaches it.

        Raises NodeUnreachable when its node is gone or does not answer, EngineUnavailable when the engine does not.
        """
        require_group(group)
        require_channel(channel)
        if self._is_remote(channel):
            await self._ask_owner(channel, "join", {"group": group, "channel": channel})
        else:
            await super().group_add(group, channel)

    async def group_discard(self, group: str, channel: str) -> None:
        """Remove a channel of any node from a group, if it is in it; errors as of ``group_add``."""
        require_channel(channel)
        require_group(group)
        if self._is_remote(channel):
            await self._ask_owner(channel, "leave", {"group": group, "channel": channel})
        else:
            await super().group_discard(group, channel)

    async def group_discard_all(self, channel: str) -> None:
        """Remove a channel of any node from every group it is in; errors as of ``group_add``."""
        require_channel(channel)
        if self._is_remote(channel):
            await self._ask_owner(channel, "leave", {"group": None, "channel": channel})
        else:
            await super().group_discard_all(channel)

    async def close_channel(self, channel: str, reason: str = "revoked") -> bool:
        """Close the connection behind a channel of any node; False: there is none. Errors as of ``group_add``."""
        require_channel(channel)
        require_reason(reason)
        if self._is_remote(channel):
            return bool(await self._ask_owner(channel, "close_channel", {"channel": channel, "reason": reason}))
        return await super().close_channel(channel, reason)

    async def _ask_consumer(self, channel: str, body: bytes, timeout_s: float) -> bytes:
        if not self._is_remote(channel):
            return await super()._ask_consumer(channel, body, timeout_s)
        node, args = self._node(), {"channel": channel, "body": body, "timeout_s": timeout_s}
        ask = partial(self._controls[node.id].ask_node, node_of(channel) or "", "ask", args, timeout_s)
        word: Mapping[str, Any] = await self._on(node, ask, timeout_s + _CROSSING_S)
        if "answer" in word:
            answer: bytes = word["answer"]
            return answer
        if "full" in word:
            raise ChannelFull(channel)
        if "late" in word:
            raise NodeUnreachable(f"channel {channel!r} did not answer within {timeout_s:g} s")
        raise AskFailed(str(word.get("failed")))

    # All nodes

    async def group_channels(self, group: str, *, scope: str = "all") -> Channels:
        """Return the channels of a group: a list with ``complete``.

        ``scope``: ``all`` nodes, or ``node`` for this one alone, which is free.
        """
        if scope != "all":
            return await super().group_channels(group, scope=scope)
        require_group(group)
        bound, answers = await self._ask_group(group, "channels")
        return Channels(itertools.chain(*(found for _, found in answers.values), bound), complete=answers.complete)

    async def group_count(self, group: str, *, scope: str = "all") -> Count:
        """Return how many channels a group has: an int with ``complete``."""
        if scope != "all":
            return await super().group_count(group, scope=scope)
        require_group(group)
        bound, answers = await self._ask_group(group, "count")
        return Count(sum(count for _, count in answers.values) + len(bound), complete=answers.complete)

    async def _close_identity(self, kind: str, key: str, reason: str) -> int:
        require_reason(reason)
        args = {"kind": kind, "key": key, "reason": reason}
        return await self._count_everywhere(super()._close_identity(kind, key, reason), "close_identity", args)

    async def _put_out(self, key: str, group: str) -> int:
        return await self._count_everywhere(super()._put_out(key, group), "put_out", {"user": key, "group": group})

    async def _recheck(self, key: str | None) -> int:
        return await self._count_everywhere(super()._recheck(key), "recheck", {"user": key})

    async def _count_everywhere(self, at_home: Awaitable[int], call: str, args: Mapping[str, Any]) -> int:
        own = {node.id for node in self._alive()}
        # This process's own at once, and whatever becomes of the engine.
        here, answers = await asyncio.gather(at_home, self._ask_all(call, args), return_exceptions=True)
        for failure in (answers, here):
            if isinstance(failure, BaseException):
                raise failure
        assert isinstance(answers, Answers) and isinstance(here, int)  # noqa: S101, PT018  # for types
        elsewhere = sum(count for node_id, count in answers.values if node_id not in own)
        return Count(here + elsewhere, complete=answers.complete)

    async def nodes_info(self, *, limit: int = CHANNELS_MAX, timeout_s: float | None = None) -> Described:
        """Describe every node of the layer, of all processes: see ``ChannelLayer.nodes_info``."""
        answers = await self._ask_all("info", {"limit": limit}, timeout_s)
        infos = [info for _, info in answers.values if isinstance(info, dict)]
        infos.sort(key=lambda info: (str(info.get("host")), str(info.get("pid")), str(info.get("id"))))
        return Described(infos, complete=answers.complete)

    async def _ping(self, node_id: str, timeout_s: float | None) -> None:
        if node_id in self._by_id:
            await super()._ping(node_id, timeout_s)
            return
        node, limit_s = self._node(), timeout_s or self.timeout_s
        ask = partial(self._controls[node.id].ask_node, node_id, "ping", {}, limit_s)
        await self._on(node, ask, limit_s + _CROSSING_S)

    async def flush(self) -> None:
        """Forget every group of every node, every message that waits, and the engine's keys. Connections stay open."""
        own = self._alive()
        await self._ask_all("flush", {})
        for node in own:
            if node.loop.is_running():
                continue  # it was among those that were asked
            await self._clear(node)
        await self._flush_engine()

    async def _flush_engine(self) -> None:
        node = self._node()
        await self._on(node, node.engine.flush, _FLUSH_S)  # type: ignore[attr-defined]  # engines that reach far have it

    # What a node may have missed

    def _begin(self, node: Node, control: Control) -> None:
        with self._lock:  # held while the node is made, perhaps on another thread
            known = node.id in self._by_id
        if known:
            control.keep(self._recall_closes(node, control, time.monotonic()))

    def _on_lost(self, node: Node, topics: Collection[str], reason: str, good_until: float) -> None:
        """Learn, on the node's loop, that messages may be lost: a log-out elsewhere may be among them."""
        control = self._controls.get(node.id)
        if control is not None and control_topic() in topics:
            control.keep(self._recall_closes(node, control, time.monotonic() - (time.time() - good_until)))

    async def _recall_closes(self, node: Node, control: Control, since_s: float) -> None:
        """Ask the others whose connections were closed since ``since_s`` (monotonic), and close them here too.

        A new node is not heard of before the server has its subscriptions, nor one that was cut off.
        """
        while True:
            with contextlib.suppress(EngineUnavailable):
                await control.listen()
                # A little more, for what was on its way.
                seconds = time.monotonic() - since_s + 1.0
                args = {"seconds": seconds}
                answers = await control.ask_topic(control_topic(), "closed_lately", args, self.timeout_s)
                break
            await asyncio.sleep(_RECALL_PAUSE_S)
        # Each node's word by itself: one may have missed the later of two closes.
        for kind, key, reason, age_s in itertools.chain(*(found for _, found in answers.values)):
            self._revocations.add(kind, key, reason, age_s=age_s)
            closed_s = time.monotonic() - age_s
            for mailbox in node.hub.by_identity(kind, key):
                if mailbox.let_in_s <= closed_s:  # who came back since is welcome
                    mailbox.ask_close(reason)

    # Asking

    def _is_remote(self, channel: str) -> bool:
        return is_local(channel) and self._owner(channel) is None

    async def _ask_owner(self, channel: str, call: str, args: Mapping[str, Any]) -> Any:
        node = self._node()
        ask = partial(self._controls[node.id].ask_node, node_of(channel) or "", call, args, self.timeout_s)
        return await self._on(node, ask, self.timeout_s + _CROSSING_S)

    async def _ask_group(self, group: str, call: str) -> tuple[list[str], Answers]:
        """Return the worker channels of a group, and what the nodes that have members of it answered."""
        topic = group_topic(group)
        bound = await self._bound(topic)
        # What is published on the topic of a group goes to its worker channels too, and a question must not.
        return bound, await self._ask(control_topic() if bound else topic, call, {"group": group})

    async def _ask_all(self, call: str, args: Mapping[str, Any], timeout_s: float | None = None) -> Answers:
        return await self._ask(control_topic(), call, args, timeout_s)

    async def _ask(self, topic: str, call: str, args: Mapping[str, Any], timeout_s: float | None = None) -> Answers:
        timeout_s = timeout_s or self.timeout_s
        node = self._node()
        ask = partial(self._controls[node.id].ask_topic, topic, call, args, timeout_s)
        answers = await self._on(node, ask, timeout_s + _CROSSING_S)
        for node_id, error in answers.errors:
            logger.warning("Node %s could not answer %r: %s", node_id, call, error)
        if not answers.complete and not answers.errors:
            logger.warning("Not every node answered %r within %g s: %d did", call, timeout_s, len(answers.values))
        return answers

    async def _bound(self, topic: str) -> list[str]:
        node = self._node()
        bound: list[str] = await self._on(node, partial(node.engine.bound, topic))  # type: ignore[attr-defined]
        return bound
