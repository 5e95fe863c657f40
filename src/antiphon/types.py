"""The shapes that travel between the layers. No logic about messages."""

from __future__ import annotations

from collections.abc import Awaitable, Callable, MutableMapping
from typing import Any, NamedTuple, TypeAlias

__all__ = [
    "ASGIApplication",
    "Arrival",
    "Event",
    "Message",
    "Position",
    "Receipt",
    "Receive",
    "Scope",
    "Send",
]

# ASGI 3 (https://asgi.readthedocs.io/en/latest/specs/main.html): scope and events are open dictionaries.
Scope: TypeAlias = MutableMapping[str, Any]
Event: TypeAlias = dict[str, Any]
Receive: TypeAlias = Callable[[], Awaitable[Any]]
Send: TypeAlias = Callable[[Any], Awaitable[Any]]
# Any, because others spell the three in their own way: Django says dict[str, Any], Starlette MutableMapping.
ASGIApplication: TypeAlias = Callable[[Any, Any, Any], Awaitable[Any]]

# What travels through a layer: a dict with a "type".
Message: TypeAlias = dict[str, Any]


class Position(NamedTuple):
    """A place in a group's history. The epoch changes when a log was lost."""

    epoch: str
    offset: int


class Arrival(NamedTuple):
    """What an engine hands to a node: one payload on one topic."""

    topic: str
    payload: bytes
    position: Position | None = None  # only on logged topics
    previous: int = 0  # offset of the entry before it in this log


class Receipt(NamedTuple):
    """What became of a send, as far as the sender can know it.

    ``nodes``: how many nodes the engine handed the message to, or None where it cannot say.
    ``position``: where it stands in the group's history, if the group has one.
    ``state``: ``sent``, ``deferred`` (waits for a commit), ``suppressed`` or ``duplicate``.
    ``delivered``, ``dropped``: mailboxes that took and refused it, where that happened inside the call; else None.
    """

    nodes: int | None = None
    position: Position | None = None
    state: str = "sent"
    delivered: int | None = None
    dropped: int | None = None
