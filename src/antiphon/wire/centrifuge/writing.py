"""What a client is told: replies and pushes as JSON text, one line each. Knows no connection."""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping, Sequence
from typing import Any, TypeAlias

from .tables import Disconnect, Error, Unsubscribe

__all__ = [
    "PING",
    "Encode",
    "disconnect_push",
    "encode",
    "error_reply",
    "join_push",
    "leave_push",
    "message_push",
    "publication",
    "publication_push",
    "reply",
    "unsubscribe_push",
]

Encode: TypeAlias = Callable[[Any], str]

PING = "{}"

_dumps = json.JSONEncoder(separators=(",", ":"), ensure_ascii=False, allow_nan=False).encode


def encode(content: Any) -> str:
    """Encode JSON that every client can read, on one line. Raises TypeError or ValueError for what JSON has not."""
    text = _dumps(content)
    if not text.isascii():
        text.encode()  # half a surrogate pair is no text: better an error here than a frame that ends a client
    return text


def reply(number: int, method: str, result: Mapping[str, Any] | None = None) -> str:
    """Answer a command."""
    return encode({"id": number, method: dict(result or {})})


def error_reply(number: int, error: Error) -> str:
    """Answer a command with an error."""
    return encode({"id": number, "error": error.content()})


def publication(
    data: Any,
    offset: int | None = None,
    *,
    info: Mapping[str, Any] | None = None,
    tags: Mapping[str, str] | None = None,
) -> dict[str, Any]:
    """Return a publication as it stands in pushes, in results of subscriptions and in histories."""
    content: dict[str, Any] = {"data": data}
    if offset:
        content["offset"] = offset
    if info:
        content["info"] = dict(info)
    if tags:
        content["tags"] = dict(tags)
    return content


def publication_push(channel: str, content: Mapping[str, Any]) -> str:
    """Push a publication."""
    return _push(channel, "pub", content)


def join_push(channel: str, info: Mapping[str, Any]) -> str:
    """Tell that a client has joined. ``info``: {"client", "user", …}."""
    return _push(channel, "join", {"info": dict(info)})


def leave_push(channel: str, info: Mapping[str, Any]) -> str:
    """Tell that a client has left."""
    return _push(channel, "leave", {"info": dict(info)})


def unsubscribe_push(channel: str, why: Unsubscribe) -> str:
    """Tell that a subscription has ended."""
    return _push(channel, "unsubscribe", {"code": why.code, "reason": why.reason})


def message_push(data: Any) -> str:
    """Push what belongs to no channel."""
    return encode({"push": {"message": {"data": data}}})


def disconnect_push(why: Disconnect) -> str:
    """Say why the connection ends, where the transport has no close frame."""
    return encode({"push": {"disconnect": {"code": why.code, "reason": why.reason}}})


def _push(channel: str, kind: str, content: Mapping[str, Any] | Sequence[Any]) -> str:
    return encode({"push": {"channel": channel, kind: content}})
