"""What one link is subscribed to: what is wanted, what the server has confirmed, what may have been missed. No addresses.

What one turn of the loop subscribes travels together. Channels that a broken connection carried are *in doubt* until the
next one has confirmed them; then the owner is told, once.
"""

from __future__ import annotations

import asyncio
from collections.abc import Collection, Iterable, Sequence
from itertools import groupby
from time import monotonic
from typing import Any, Protocol

from ...exceptions import EngineUnavailable
from .connection import Connection, ReplyError, look, until_ended
from .settings import LinkSettings
from .topology import slot_of

__all__ = ["Subscriptions"]

# Channels of one command.
BATCH = 1000
# Who comes within so many seconds of another shares its future, and its deadline.
SHARED_S = 0.25
# Refusals that another server, or this one in a moment, would not make.
_PASSING = ("MOVED", "CLUSTERDOWN", "LOADING")


class Owner(Protocol):
    """The link."""

    def lost(self, channels: Collection[bytes], good_until: float) -> None: ...
    def gone(self, channel: bytes) -> None: ...
    def elsewhere(self, channels: list[bytes], future: asyncio.Future[None]) -> None: ...
    def error(self, why: str) -> EngineUnavailable: ...


class _Join:
    """Channels that are being subscribed together, and who waits for it."""

    __slots__ = ("channels", "deadline_s", "future")

    def __init__(self, future: asyncio.Future[None], deadline_s: float) -> None:
        self.future = future
        self.deadline_s = deadline_s
        self.channels: list[bytes] = []


class Subscriptions:
    """One link's. ``connection`` is set while the link is up; ``wanted`` outlives every connection."""

    def __init__(self, owner: Owner, settings: LinkSettings) -> None:
        self.connection: Connection | None = None
        self.wanted: dict[bytes, None] = {}
        self.live: set[bytes] = set()  # confirmed on this connection
        self.loop = asyncio.get_running_loop()
        self._owner = owner
        self._settings = settings
        self._said: set[bytes] = set()  # acknowledged one by one, of commands that are not through yet
        self._gaps: dict[bytes, float] = {}  # channel -> good until when (epoch seconds)
        self._joins: list[_Join] = []
        self._joins_scheduled = False
        self._closed = False
        self._commands = (b"SSUBSCRIBE", b"SUNSUBSCRIBE") if settings.sharded else (b"SUBSCRIBE", b"UNSUBSCRIBE")

    def __repr__(self) -> str:
        return f"<Subscriptions {len(self.live)} of {len(self.wanted)} confirmed>"

    # A connection's life

    async def restore(self, connection: Connection) -> None:
        """Subscribe everything that is wanted, in batches, and report what was lost as each is confirmed."""
        channels = [channel for channel in self.wanted if channel not in self.live]
        size = BATCH * 4
        for start in range(0, len(channels), size):
            batch = channels[start : start + size]
            try:
                async with asyncio.timeout(self._settings.pong_timeout_s + self._settings.timeout_s):
                    await until_ended(connection, connection.fence(*self._batches(self._commands[0], batch)))
            except ReplyError as exc:
                if not str(exc).startswith(_PASSING):
                    raise
                # Some live elsewhere, or nowhere for now: that is no reason for the others to wait.
                batch = self._confirm_said(batch)
            self._confirm(batch)
        unwanted = [channel for channel in channels if channel not in self.wanted]
        if unwanted:  # given up in the meantime
            _ignore(connection.fence(*self._batches(self._commands[1], unwanted)))

    def came_up(self, connection: Connection) -> None:
        """Go on with a connection on which everything was restored."""
        self.connection = connection
        if self._joins:
            self._join_now()

    def went_down(self, good_until: float) -> None:
        """Learn that the connection has ended; what came on it was good until then (epoch seconds)."""
        self.connection = None
        self._said.clear()
        for channel in self.live:
            self._gaps.setdefault(channel, good_until)
        self.live.clear()

    def acknowledged(self, channel: bytes) -> None:
        """Learn that one channel is subscribed; whether all of its command are, the fence will say."""
        if self._settings.sharded and channel not in self.live:
            self._said.add(channel)

    def _confirm_said(self, channels: Iterable[bytes]) -> list[bytes]:
        """Return those of ``channels`` that were acknowledged; have the others looked for where they live."""
        said = [channel for channel in channels if channel in self._said]
        missing = next((channel for channel in channels if channel not in self._said), None)
        if missing is not None:
            self._owner.gone(missing)
        return said

    def let_go(self, channel: bytes, good_until: float) -> bool:
        """Learn that the server has ended a subscription by itself; say whether that matters.

        Not good until now: another sender may have known of the new owner before we heard of it.
        """
        if channel not in self.live or channel not in self.wanted:
            return False
        self.live.discard(channel)
        self._gaps.setdefault(channel, good_until)
        return True

    def expire(self, now: float) -> None:
        """Fail whoever has waited too long; the channels stay wanted until they are unsubscribed."""
        for join in tuple(self._joins):
            if join.deadline_s <= now:
                self._joins.remove(join)
                _fail([join], self._owner.error("not subscribed"))

    def close(self) -> None:
        """Fail whoever waits, and whoever comes after."""
        self._closed = True
        joins, self._joins = self._joins, []
        _fail(joins, EngineUnavailable("the layer was closed"))

    # What is wanted

    def subscribe(self, channels: Iterable[bytes], good_until: float | None = None) -> asyncio.Future[None] | None:
        """Subscribe; None when all are already, else a future for when all are.

        ``good_until``: the channels come from another link, which vouches for them until then (epoch seconds).
        """
        wanted, live = self.wanted, self.live
        missing = [channel for channel in channels if channel not in live]
        for channel in missing:
            wanted[channel] = None
            if good_until is not None:
                self._gaps.setdefault(channel, good_until)
        if not missing:
            return None
        join = self._joins[-1] if self._joins else None
        deadline_s = monotonic() + self._settings.timeout_s
        if join is None or join.future.done() or deadline_s - join.deadline_s > SHARED_S:
            join = _Join(self.loop.create_future(), deadline_s)
            join.future.add_done_callback(look)
            if self._closed:
                join.future.set_exception(EngineUnavailable("the layer was closed"))
                return join.future
            self._joins.append(join)
        join.channels += missing
        if self.connection is not None and not self._joins_scheduled:
            self._joins_scheduled = True
            self.loop.call_soon(self._join_now)
        return join.future

    def unsubscribe(self, channels: Iterable[bytes]) -> None:
        """End subscriptions."""
        gone = [channel for channel in channels if channel in self.wanted]
        for channel in gone:
            del self.wanted[channel]
            self.live.discard(channel)
            self._gaps.pop(channel, None)
        if gone and self.connection is not None:
            _ignore(self.connection.fence(*self._batches(self._commands[1], gone)))

    def _batches(self, command: bytes, channels: Sequence[bytes]) -> list[list[bytes]]:
        if self._settings.sharded:
            # One command may name channels of one slot alone.
            ordered = sorted(channels, key=slot_of)
            return [[command, *group] for _, group in groupby(ordered, slot_of)]
        return [[command, *channels[start : start + BATCH]] for start in range(0, len(channels), BATCH)]

    def _join_now(self) -> None:
        self._joins_scheduled = False
        connection = self.connection
        if connection is None:
            return
        joins, self._joins = self._joins, []
        missing = list(dict.fromkeys(c for join in joins for c in join.channels if c in self.wanted))
        if not missing:
            _succeed(joins)
            return
        fence = connection.fence(*self._batches(self._commands[0], missing))

        def joined(done: asyncio.Future[Any]) -> None:
            error = None if done.cancelled() else done.exception()
            if error is None and not done.cancelled():
                self._confirm(missing)
                self._finish(joins)
            elif isinstance(error, ReplyError) and not str(error).startswith(_PASSING):
                _fail(joins, self._owner.error(f"the server refuses to subscribe: {error}"))
            else:
                # Broken, or some live elsewhere now: they are wanted still, and whoever waits goes on waiting.
                self._joins[:0] = [join for join in joins if not join.future.done()]
                if isinstance(error, ReplyError):
                    self._confirm(self._confirm_said(missing))

        fence.add_done_callback(joined)

    def _finish(self, joins: Iterable[_Join]) -> None:
        for join in joins:
            if self._settings.sharded and any(channel not in self.wanted for channel in join.channels):
                self._owner.elsewhere(join.channels, join.future)  # moved away while it was being subscribed
            elif not join.future.done():
                join.future.set_result(None)

    def _confirm(self, channels: Iterable[bytes]) -> None:
        """Take note that the server has subscribed us, and report what may have been missed until now."""
        self.live.update(channel for channel in channels if channel in self.wanted)
        self._said.difference_update(channels)
        gaps = self._gaps
        if not gaps:
            return
        late: dict[float, list[bytes]] = {}
        for channel in channels:
            good_until = gaps.pop(channel, None)
            if good_until is not None:
                late.setdefault(good_until, []).append(channel)
        for good_until, lost in late.items():
            self._owner.lost(lost, good_until)

    def give_up(
        self, channels: Collection[bytes], good_until: float
    ) -> tuple[dict[bytes, float | None], list[tuple[list[bytes], asyncio.Future[None]]]]:
        """Let channels go to other links: ({channel: good until, None: nothing missed}, [(channels, who waits)])."""
        gaps: dict[bytes, float | None] = {}
        for channel in channels:
            gaps[channel] = good_until if channel in self.live else self._gaps.get(channel)
        joins = []
        for join in self._joins:
            moving = [channel for channel in join.channels if channel in gaps]
            if moving and not join.future.done():
                joins.append((join.channels, join.future))
        taken = {future for _, future in joins}
        self._joins = [join for join in self._joins if join.future not in taken]
        self.unsubscribe(channels)
        return gaps, joins

    def renew(self) -> None:
        """Subscribe again what the server has let go, if this is where it lives."""
        if self.connection is not None:
            missing = [channel for channel in self.wanted if channel not in self.live]
            if missing and not self._joins_scheduled:
                self.subscribe(missing)


def _succeed(joins: Iterable[_Join]) -> None:
    for join in joins:
        if not join.future.done():
            join.future.set_result(None)


def _fail(joins: Iterable[_Join], error: Exception) -> None:
    for join in joins:
        if not join.future.done():
            join.future.set_exception(error)


def _ignore(future: asyncio.Future[Any]) -> None:
    future.add_done_callback(look)
