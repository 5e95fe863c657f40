"""``RedisLogs``: reading the logs of topics. Knows no link: where a key lives is the engine's to find.

The answers are plain lists; what they mean is the same for whoever reads them, with a loop or without.
"""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable, Sequence
from typing import Any, Protocol, TypeAlias

from ...types import Arrival, Entry, Page, Position
from .append import ORIGIN
from .history_scripts import READ, TOPS
from .keys import Keys, log_keys
from .scripts import Script

__all__ = ["RedisLogs", "arrival", "calls_for", "in_order", "page_of", "read_arguments"]

# Topics of one call: the server does nothing else meanwhile.
TOPICS_MAX = 500

Run: TypeAlias = Callable[[Script, bytes, Sequence[bytes], Sequence[bytes | str | int]], Awaitable[Any]]
Calls: TypeAlias = list[tuple[list[str], list[bytes]]]


class Places(Protocol):
    """What is read of a ``RedisBus``."""

    keys: Keys

    def place(self, channel: bytes) -> object: ...


class RedisLogs:
    """The logs, for one node. ``run(script, key, keys, args)`` runs a script where ``key`` lives."""

    def __init__(self, bus: Places, run: Run) -> None:
        self._bus = bus
        self._run = run

    def __repr__(self) -> str:
        return f"<RedisLogs {self._bus.keys!r}>"

    async def read(self, topic: str, since: Position | None, limit: int, *, reverse: bool = False) -> Page:
        """Read as ``HistoryEngine.read`` says."""
        channel = self._bus.keys.channel(topic)
        return page_of(await self._run(READ, channel, log_keys(channel), read_arguments(since, limit, reverse=reverse)))

    async def tops(self, topics: Sequence[str]) -> list[Position]:
        """Return the position of each log's last message."""
        calls = calls_for(topics, self._bus.keys, self._bus.place)
        answers = await asyncio.gather(*(self._run(TOPS, keys[0], keys, (ORIGIN,)) for _, keys in calls))
        return in_order(topics, calls, answers)


def calls_for(topics: Sequence[str], keys: Keys, place: Callable[[bytes], object]) -> Calls:
    """Return the calls of TOPS for topics: [(topics, their keys)], each to one server."""
    places: dict[object, list[str]] = {}
    for topic in dict.fromkeys(topics):
        places.setdefault(place(keys.channel(topic)), []).append(topic)
    parts = [part[at : at + TOPICS_MAX] for part in places.values() for at in range(0, len(part), TOPICS_MAX)]
    return [(part, [key for topic in part for key in log_keys(keys.channel(topic))]) for part in parts]


def in_order(topics: Sequence[str], calls: Calls, answers: Sequence[list[Any]]) -> list[Position]:
    """Return the answers to those calls in the order of the topics."""
    found: dict[str, Position] = {}
    for (part, _), answer in zip(calls, answers, strict=True):
        tops = [Position(answer[at].decode(), answer[at + 1]) for at in range(0, len(answer), 2)]
        found.update(zip(part, tops, strict=True))
    return [found[topic] for topic in topics]


def read_arguments(since: Position | None, limit: int, *, reverse: bool) -> tuple[bytes | str | int, ...]:
    """Return the arguments of READ."""
    epoch, offset = ("", "") if since is None else (since.epoch, since.offset)
    return (ORIGIN, epoch, offset, limit, 1 if reverse else 0)


def page_of(reply: list[Any]) -> Page:
    """Return what READ answered."""
    epoch, top, complete, *rest = reply
    entries = [Entry(rest[at], rest[at + 1]) for at in range(0, len(rest), 2)]
    return Page(Position(epoch.decode(), top), entries, bool(complete))


def arrival(topic: str, payload: bytes) -> Arrival:
    """Return what came on the channel of a topic with a log: ``P<offset>:<epoch>:`` and the payload."""
    offset, epoch, inner = payload[1:].split(b":", 2)
    at = int(offset)
    return Arrival(topic, inner, Position(epoch.decode(), at), at - 1)
