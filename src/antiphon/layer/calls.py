"""What a node does for others: one method a call. Knows no engine, and not how calls travel.

Arguments come from another process, perhaps of another version: what does not fit raises, and the caller is told.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Mapping
from typing import TYPE_CHECKING, Any

from ..exceptions import AskFailed, ChannelFull
from ..names import group_topic, require_channel, require_group
from ..wire.codes import REASONS
from .description import describe_node
from .mailbox import Mailbox
from .node import Node
from .questions import ask_here

if TYPE_CHECKING:
    from .remote import RemoteChannelLayer

__all__ = ["Calls"]


class Calls:
    """The calls that one node answers."""

    def __init__(self, layer: RemoteChannelLayer, node: Node) -> None:
        self._layer = layer
        self._node = node

    def __repr__(self) -> str:
        return f"<Calls of {self._node!r}>"

    def by_name(self) -> Mapping[str, Callable[[Mapping[str, Any]], Any]]:
        """Return the calls by the names that travel."""
        return {
            "count": self.count,
            "channels": self.channels,
            "join": self.join,
            "leave": self.leave,
            "ask": self.ask,
            "close_channel": self.close_channel,
            "close_identity": self.close_identity,
            "put_out": self.put_out,
            "recheck": self.recheck,
            "closed_lately": self.closed_lately,
            "info": self.info,
            "ping": lambda args: None,
            "flush": self.flush,
        }

    def count(self, args: Mapping[str, Any]) -> int:
        """Count this node's channels in a group."""
        return len(self._node.hub.members.get(_topic(args), ()))

    def channels(self, args: Mapping[str, Any]) -> list[str]:
        """List them."""
        return list(self._node.hub.members.get(_topic(args), ()))

    async def join(self, args: Mapping[str, Any]) -> bool:
        """Let a channel of this node join a group; False when its connection has ended."""
        channel = _channel(args)
        mailbox = self._mailbox(channel)
        if mailbox is None:
            if not self._layer._may_reopen(channel):
                return False
            mailbox = self._layer._open_hand_made(self._node, channel)
        await self._node.join(_topic(args), mailbox)
        return True

    def leave(self, args: Mapping[str, Any]) -> None:
        """Let a channel of this node leave a group, or all (``group`` is None)."""
        mailbox = self._mailbox(_channel(args))
        if mailbox is None:
            return
        if args["group"] is None:
            self._node.leave_all(mailbox)
        else:
            self._node.leave(_topic(args), mailbox)

    async def ask(self, args: Mapping[str, Any]) -> dict[str, Any]:
        """Ask a consumer of this node: {"answer": encoded}, or {"failed": why} or {"full": True}."""
        body, timeout_s = args["body"], float(args["timeout_s"])
        if not isinstance(body, bytes):
            raise TypeError(f"body: expected bytes; got {body!r:.80}")
        try:
            async with asyncio.timeout(timeout_s):
                return {"answer": await ask_here(self._node, _channel(args), body)}
        except AskFailed as exc:
            return {"failed": str(exc)}
        except ChannelFull:
            return {"full": True}
        except TimeoutError:
            return {"late": True}

    def close_channel(self, args: Mapping[str, Any]) -> bool:
        """Close the connection behind a channel; False when there is none."""
        reason = _reason(args)
        mailbox = self._mailbox(_channel(args))
        if mailbox is None:
            return False
        mailbox.ask_close(reason)
        return True

    def close_identity(self, args: Mapping[str, Any]) -> int:
        """Close this node's connections of a user or session, and whoever was let in just before; return how many."""
        kind, key, reason = _text(args, "kind"), _text(args, "key"), _reason(args)
        self._layer._revocations.add(kind, key, reason)
        return self._close(kind, key, reason)

    def put_out(self, args: Mapping[str, Any]) -> int:
        """Take this node's connections of a user out of a group; return how many were in it."""
        group = args["group"]
        require_group(group)
        return self._node.put_out(_text(args, "user"), group)

    def recheck(self, args: Mapping[str, Any]) -> int:
        """Have this node's connections of a user, or of all, look again at what they may; return how many there are."""
        return self._node.recheck(None if args["user"] is None else _text(args, "user"))

    def closed_lately(self, args: Mapping[str, Any]) -> list[list[Any]]:
        """Say whose connections were closed in the last ``seconds``: [[kind, key, reason, age in seconds], …]."""
        return [list(closed) for closed in self._layer._revocations.recent(float(args["seconds"]))]

    def info(self, args: Mapping[str, Any]) -> dict[str, Any]:
        """Describe this node; at most ``limit`` of its channels and groups."""
        layer = self._layer
        # What stands around an answer has its share of the bound.
        return describe_node(self._node, layer.stats(), int(args["limit"]), layer.max_message_bytes - 200)

    async def flush(self, args: Mapping[str, Any]) -> None:
        """Forget this node's groups and what waits in its channels."""
        await self._layer._clear(self._node)

    def _close(self, kind: str, key: str, reason: str) -> int:
        boxes = self._node.hub.by_identity(kind, key)
        for box in boxes:
            box.ask_close(reason)
        return len(boxes)

    def _mailbox(self, channel: str) -> Mailbox | None:
        return self._node.hub.mailboxes.get(channel)


def _text(args: Mapping[str, Any], name: str) -> str:
    value = args[name]
    if not isinstance(value, str):
        raise TypeError(f"{name}: expected a str; got {value!r:.80}")
    return value


def _topic(args: Mapping[str, Any]) -> str:
    group = args["group"]
    require_group(group)
    return group_topic(group)


def _channel(args: Mapping[str, Any]) -> str:
    channel = _text(args, "channel")
    require_channel(channel)
    return channel


def _reason(args: Mapping[str, Any]) -> str:
    reason = _text(args, "reason")
    # A release that knows more reasons may ask: any close is better than none.
    return reason if reason in REASONS else "revoked"
