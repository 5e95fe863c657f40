"""``Recoverer``: gives a member that comes with a position what it missed: all of it, or the word that it cannot.

Live messages are held back from it while the log is read. Those who come at the same time share what is read.
"""

from __future__ import annotations

import asyncio
from time import time
from typing import Any

from ...envelope import HeadedEnvelope
from ...exceptions import EngineUnavailable, OptionError
from ...types import Entry, Page, Position
from ..mailbox import Mailbox
from .fill import PAGE_MAX, Filler
from .log import HELD_BACK, Log
from .recovery import Recovery

__all__ = ["Recoverer"]

# How often a read is begun anew because the log has a new epoch by then.
_TRIES = 5


class Recoverer(Filler):
    """The recovering part of :class:`~antiphon.layer.logs.Logs`."""

    def __init__(self, *args: Any) -> None:
        super().__init__(*args)
        self.recovered = self.unrecovered = 0

    def require_log(self, topic: str) -> None:
        """Raise OptionError for a topic without a log."""
        if self._keep_of(topic) is None:
            raise OptionError(
                f"group {topic[2:]!r} has no history, so nobody can recover in it: set history_size for it"
                ' in CONFIG["groups"] of the layer'
            )

    def hold_back(self, topic: str, mailbox: Mailbox) -> None:
        """Let a member, or one that is about to be, have nothing of a topic until it has recovered."""
        log = self.logs.get(topic)
        if log is not None:
            log.starts[mailbox.channel] = HELD_BACK

    def let_go(self, topic: str, mailbox: Mailbox) -> None:
        """End that: its recovery failed, or it is a member no more."""
        log = self.logs.get(topic)
        if log is not None:
            log.starts.pop(mailbox.channel, None)

    async def recover(
        self, topic: str, mailbox: Mailbox, since: Position, *, newest: bool = False, author: str | None = None
    ) -> Recovery:
        """Read what a held-back member missed; it is live from the position returned on.

        ``newest``: only the last message matters, if it is not the one at ``since``. ``author``: whose own messages
        it needs not, where they were sent to all but their author. Who is put out meanwhile gets nothing. Raises
        EngineUnavailable.
        """
        log = self.logs.get(topic)
        if log is None or topic not in mailbox.topics:
            return Recovery(None, None, [])
        missed = await (self._newest(log, since) if newest else self._missed(log, since))
        if self.logs.get(topic) is not log or topic not in mailbox.topics:
            return Recovery(None, None, [])
        # From here on without waiting: what is delivered next is delivered to this member too.
        top = log.position
        assert top is not None  # noqa: S101  # for types
        end = missed[-1].position if missed else None
        if end is not None and end.epoch == top.epoch and end.offset > top.offset:
            log.starts[mailbox.channel] = end.offset  # what was read ahead of its arrival
            top = end
        else:
            log.starts.pop(mailbox.channel, None)
        if missed is None:
            self.unrecovered += 1
            return Recovery(False, top, [])
        self.recovered += 1
        return Recovery(True, top, self.hub.missed_by(mailbox, missed, author))

    async def _newest(self, log: Log, since: Position) -> list[HeadedEnvelope] | None:
        await self._live(log)
        page = await self.engine.read(log.topic, None, 1, reverse=True)
        if not page.entries:
            return None if page.top != since else []
        entry = page.entries[0]
        if since.epoch == page.top.epoch and since.offset >= entry.offset:
            return []
        envelope = self.read(entry.payload, log.topic, Position(page.top.epoch, entry.offset))
        return [envelope] if envelope is not None else None

    async def _live(self, log: Log) -> None:
        while log.live is not None and not log.live.done():
            await asyncio.shield(log.live)

    async def _missed(self, log: Log, since: Position) -> list[HeadedEnvelope] | None:
        """Return every entry after ``since``; None: some are gone, or it is no position of this log."""
        for _ in range(_TRIES):
            await self._live(log)
            if self.logs.get(log.topic) is not log:
                return None  # it was forgotten: nobody is a member any more
            found = log.since(since)
            if found is not None:
                return found
            if log.reading is None:
                log.reading = asyncio.Lock()
            async with log.reading:
                if log.since(since) is not None or log.filling:
                    continue  # the one before has read it
                log.open_ring()
                page = await self._read_all(log, since)
            if page is None:
                return None
            last = log.position
            if log.filling or last is None or page.top.epoch != last.epoch:
                if last is not None and page.top.epoch != last.epoch:
                    self.fill(log, "the log was cut", time())
                continue
            if not log.reaches(page.top.offset):
                continue  # more came meanwhile than a ring holds
            read = [
                self.read(entry.payload, log.topic, Position(page.top.epoch, entry.offset)) for entry in page.entries
            ]
            entries = [envelope for envelope in read if envelope is not None]
            live = log.after(page.top.offset)
            log.extend_ring(since, entries)
            return entries + live  # what the read does not have has arrived meanwhile
        raise EngineUnavailable(f"the log of group {log.topic[2:]!r} does not come to rest; try again")

    async def _read_all(self, log: Log, since: Position) -> Page | None:
        entries: list[Entry] = []
        while True:
            page = await self.engine.read(log.topic, since, PAGE_MAX)
            if not page.complete:
                return None
            entries += page.entries
            if not page.entries or entries[-1].offset >= page.top.offset:
                return Page(page.top, entries, True)
            since = Position(page.top.epoch, entries[-1].offset)
