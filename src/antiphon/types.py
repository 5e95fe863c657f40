"""The shapes that travel between the layers. No logic about messages."""

from __future__ import annotations

from collections.abc import Awaitable, Callable, MutableMapping
from typing import Any, NamedTuple, TypeAlias

__all__ = [
    "ASGIApplication",
    "Arrival",
    "Entry",
    "Event",
    "Keep",
    "Message",
    "Page",
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


class Keep(NamedTuple):
    """How a message is to be kept in the log of its topic.

    ``size``: the log holds at least so many messages, and not many more. ``ttl_s``: for so long after its last one.
    ``version``: above 0, the message is suppressed unless its version is greater than that of the last one with a
    version, of the same ``version_epoch``. ``idempotency_key``: a second message with it, within
    ``idempotency_ttl_s``, is not published.
    """

    size: int
    ttl_s: float
    version: int = 0
    version_epoch: str = ""
    idempotency_key: str | None = None
    idempotency_ttl_s: float = 300.0


class Entry(NamedTuple):
    """One message of a log: its offset, and the payload as it was published."""

    offset: int
    payload: bytes


class Page(NamedTuple):
    """What was read of a log.

    ``top``: the position of its last message; (epoch, 0) where there never was one. ``entries``: what was asked for,
    in the order asked for. ``complete``: nothing that came after ``since`` is missing from the log, and ``since`` is a
    place in it; a limit that cut the entries short does not matter.
    """

    top: Position
    entries: list[Entry]
    complete: bool


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
