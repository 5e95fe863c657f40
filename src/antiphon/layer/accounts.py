"""``Accounts``: what a hub says of every message that it does not deliver. Knows mailboxes, and nothing of topics."""

from __future__ import annotations

import asyncio
import contextlib
import logging
from time import monotonic

from ..envelope import Envelope
from .drops import LOG_INTERVAL_S, Drop, Drops
from .mailbox import Mailbox

__all__ = ["Accounts"]

logger = logging.getLogger("antiphon.layer")


class Accounts:
    """The counters of one hub (``arrived``, ``delivered``, ``dropped``, ``undecodable``), and what is told of drops."""

    def __init__(self, loop: asyncio.AbstractEventLoop, drops: Drops) -> None:
        self.loop = loop
        self.drops = drops
        self.arrived = self.delivered = self.dropped = self.undecodable = 0
        self._totals_due = False

    def expired(self, envelope: Envelope, mailbox: Mailbox) -> None:
        """Count an envelope that nobody took in time."""
        self.drop("expired", envelope, mailbox)

    def make_room(self, mailbox: Mailbox) -> bool:
        """Drop what has expired from a full mailbox; say whether there is room now."""
        limit = monotonic() - mailbox.expiry_s
        queue = mailbox.queue
        with contextlib.suppress(IndexError):  # a reader on another loop was quicker
            while queue[0].arrived_s < limit:
                self.expired(queue.pop(0), mailbox)
        return len(queue) < mailbox.capacity

    def expired_elsewhere(self, envelope: Envelope, mailbox: Mailbox) -> None:
        """Count the same, from a reader on another loop."""
        self.dropped += 1
        self.drops.add(Drop("expired", envelope.group, mailbox.receiver))

    def count_missing(self, channel: str) -> None:
        """Count a message for a channel that is gone."""
        self._count(Drop("no_channel", None, channel))

    def drop(self, reason: str, envelope: Envelope, mailbox: Mailbox) -> None:
        """Count an envelope that does not go into a mailbox."""
        self._count(Drop(reason, envelope.group, mailbox.receiver))

    def _count(self, drop: Drop) -> None:
        self.dropped += drop.count
        # Not here and now: a hook is the application's code, and fan-out is in the middle of its members.
        self.loop.call_soon(self._account, drop)

    def _account(self, drop: Drop) -> None:
        self.drops.add(drop)
        if self.drops.pending and not self._totals_due:
            self._totals_due = True
            self.loop.call_later(LOG_INTERVAL_S + 0.1, self._log_totals)

    def _log_totals(self) -> None:
        self._totals_due = False
        self.drops.flush_log()

    def refuse(self, topic: str, exc: ValueError) -> None:
        """Count bytes that are no message of ours."""
        self.undecodable += 1
        self._count(Drop("undecodable", topic[2:] if topic[:2] == "g:" else None, "(any)"))
        logger.debug("Refused bytes on topic %r: %s", topic, exc)

    def refuse_body(self, envelope: Envelope) -> None:
        """Count one whose body does not decode."""
        self.undecodable += 1
        self._count(Drop("undecodable", envelope.group, "(any)"))

    def relay_failed(self, envelope: Envelope, owner: str, count: int = 1) -> None:
        """Count a message of which ``count`` members got nothing, because the relay of their class raised."""
        self._count(Drop("relay_failed", envelope.group, owner, count))
