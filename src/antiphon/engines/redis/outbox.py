"""The publishes of one link that no connection has now: they wait for the next one, in order. Knows no socket's ways.

One that was never written may wait. One that was written and not answered has an unknown outcome: it fails, or, with
``publish_retry_s``, goes again under the same id, marked, so that a hub which had it drops it.
"""

from __future__ import annotations

import asyncio
from collections import deque
from collections.abc import Callable, Iterable, Iterator
from math import inf
from time import monotonic
from typing import NamedTuple

from ...exceptions import EngineUnavailable
from ...types import Receipt
from .append import Append, Publication, append_command, repeated
from .connection import Call, Connection
from .settings import LinkSettings

__all__ = ["WAITING_MAX", "Outbox", "Waiting", "command_of", "publish_head"]

# So many publishes at most wait for one link, or for the owner of one slot.
WAITING_MAX = 100_000


class Waiting(NamedTuple):
    """A publish that waits; ``deadline_s`` by the monotonic clock."""

    publication: Publication
    deadline_s: float
    wire: bytes

    @property
    def future(self) -> asyncio.Future[Receipt]:
        """Who waits for the receipt."""
        return self.publication[0]


class Outbox:
    """What waits for one link. ``error(why)`` makes the error that says so."""

    def __init__(self, settings: LinkSettings, error: Callable[[str], EngineUnavailable]) -> None:
        self.settings = settings
        self._error = error
        self._waiting: deque[Waiting] = deque()
        self.closed = False

    def __repr__(self) -> str:
        return f"<Outbox {len(self._waiting)} waiting>"

    def __iter__(self) -> Iterator[Waiting]:
        return iter(self._waiting)

    def add(self, publication: Publication, wire: bytes) -> None:
        """Let a publish wait in line; it fails when too many do already."""
        if self.closed:
            publication[0].set_exception(EngineUnavailable("the layer was closed"))
        elif len(self._waiting) >= WAITING_MAX:
            publication[0].set_exception(self._error("too many publishes wait for it already"))
        else:
            self._waiting.append(Waiting(publication, monotonic() + self.settings.publish_limit_s, wire))

    def take_back(self, connection: Connection, reason: str) -> None:
        """Deal with what a connection that ended did not answer."""
        settings = self.settings
        again: list[Waiting] = []
        now = monotonic()
        for entry, written_s in connection.unanswered():
            if isinstance(entry, Call):
                if not entry.future.done():
                    entry.future.set_exception(self._error(reason))
                continue
            future = entry[0]
            if future.done():
                continue
            if written_s == inf:
                wire = command_of(entry, sharded=settings.sharded)
                since_s = min(connection.blocked_since_s, now)
                again.append(Waiting(entry, since_s + settings.publish_limit_s, wire))
            elif settings.publish_retry_s > now - written_s:
                publication = repeated(entry)
                wire = command_of(publication, sharded=settings.sharded)
                again.append(Waiting(publication, written_s + settings.publish_retry_s, wire))
            else:
                future.set_exception(
                    self._error(
                        f"{reason}. The message was sent and not confirmed: it may or may not have arrived "
                        "(publish_retry sends such a message again, and it is never delivered twice)"
                    )
                )
        connection.pending.clear()
        self._waiting.extendleft(reversed(again))

    def put_first(self, appends: Iterable[Append]) -> None:
        """Let appends wait before all others: they were refused, so they have not run."""
        settings, now = self.settings, monotonic()
        self._waiting.extendleft(
            Waiting(append, now + settings.publish_limit_s, command_of(append, sharded=settings.sharded))
            for append in reversed([append for append in appends if not append.future.done()])
        )

    def patience(self, wish_s: float) -> float:
        """Return how long what waits here may go on waiting, ``wish_s`` at most."""
        first_s = self._waiting[0].deadline_s if self._waiting else inf
        return max(0.0, min(wish_s, first_s - monotonic() - 0.1))

    def flush(self, connection: Connection) -> None:
        """Give everything to a connection."""
        for waiting in self._waiting:
            if not waiting.future.done():
                connection.publish(waiting.wire, waiting.publication)
        self._waiting.clear()

    def take_all(self) -> deque[Waiting]:
        """Return, and forget, what waits here: for another link."""
        waiting, self._waiting = self._waiting, deque()
        return waiting

    def take(self, wanted: Callable[[bytes], bool]) -> list[Waiting]:
        """Return, and forget, what waits for the channels that are ``wanted``, in order."""
        found = [waiting for waiting in self._waiting if wanted(waiting.publication[1])]
        if found:
            self._waiting = deque(waiting for waiting in self._waiting if not wanted(waiting.publication[1]))
        return found

    def expire(self, now: float) -> None:
        """Fail what has waited too long."""
        waiting = self._waiting
        while waiting and (waiting[0].deadline_s <= now or waiting[0].future.done()):
            future = waiting.popleft().future
            if not future.done():
                future.set_exception(self._error("not published"))

    def close(self) -> None:
        """Fail everything, and whatever comes after it."""
        self.closed = True
        for waiting in self.take_all():
            if not waiting.future.done():
                waiting.future.set_exception(EngineUnavailable("the layer was closed"))


def publish_head(channel: bytes, *, sharded: bool) -> bytes:
    """Return the beginning of the command that publishes on ``channel``, up to the payload's length."""
    name = b"$8\r\nSPUBLISH" if sharded else b"$7\r\nPUBLISH"
    return b"*3\r\n%b\r\n$%d\r\n%b\r\n$" % (name, len(channel), channel)


def command_of(publication: Publication, *, sharded: bool) -> bytes:
    """Return the command of a publish."""
    if isinstance(publication, Append):
        return append_command(publication.channel, publication.payload, publication.keep, sharded=sharded)
    _, channel, payload = publication
    return publish_head(channel, sharded=sharded) + b"%d\r\n%b\r\n" % (len(payload), payload)
