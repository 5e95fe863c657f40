"""One node's own table, topic -> members: reads the envelope of what arrives and delivers it to many mailboxes.

It lives on one loop and is touched only there. It never decodes a body, never waits, never raises into an
engine.

Fan-out puts the same envelope into every mailbox, then serves the readers that wait. Putting costs about 0.1 us a
member, a handler several; so a large group is served in slices of ``SLICE_S``, and the loop serves its sockets between
them. A reader that can (``Mailbox.reader``) takes the first step of its handler right there, in the hub's stack, and
most handlers end with it; others are woken. While one steps, whatever it sends is put and served in its turn: the
stack never grows.

A relay (``Mailbox.relays``) is run once for all its members, and its message goes straight to each socket that is
ready: its reader waits, and nothing is in line before it. What it cannot take there goes the way of all messages.
"""

from __future__ import annotations

import asyncio
from collections import deque
from collections.abc import Callable, Collection, Iterable, Sequence
from time import monotonic
from typing import TYPE_CHECKING, Any

from ..envelope import CONTROL, MARKER, MESSAGE, Envelope, HeadedEnvelope, unpack
from ..types import Arrival
from ..wire.prebuilt import FrameSocket, Prebuilt
from .accounts import Accounts
from .copies import Copies
from .drops import Drops
from .gate import Gate
from .identities import Identities
from .lag import SAMPLE_S, Lag
from .mailbox import NOTHING, Mailbox

if TYPE_CHECKING:
    from .logs import Logs

__all__ = ["Hub"]

SLICE_S = 0.005
# Readers that are only woken run in the loop's next turn; so many of them make about a slice.
WAKES_MAX = 256
# Losses by messages that came late are told so long after the first, together.
LATE_S = 0.2


class Hub(Accounts):
    """Members by topic, mailboxes by channel, and what was delivered (``delivered``, ``arrived``, ``lag``)."""

    def __init__(self, loop: asyncio.AbstractEventLoop, drops: Drops, gate: Gate | None = None) -> None:
        super().__init__(loop, drops)
        self.gate = gate  # where bytes come from other processes
        # Who takes the calls of other nodes, and who hears of links.
        self.on_control: Callable[[HeadedEnvelope], None] | None = None
        self.on_lost: Callable[[Collection[str], str, float], None] | None = None
        self.on_link: Callable[[str, bool], None] | None = None
        self.mailboxes: dict[str, Mailbox] = {}
        self.members: dict[str, dict[str, Mailbox]] = {}
        self.logs: Logs | None = None  # where groups have a history
        # Of the message that arrived last: the mailboxes that took it, and those that did not.
        self.taken = self.missed = 0
        self.lag = Lag()
        self._identities = Identities()
        self._copies = Copies()
        self._ready: deque[Mailbox] = deque()
        self.sample: Envelope | None = None  # whose lag the first reader is to measure
        self._sample_due_s = 0.0
        self._late_due = self._scheduled = False
        self._stepping = False  # a reader is handling: what it sends waits for its turn

    def __repr__(self) -> str:
        return f"<Hub {len(self.mailboxes)} channels, {len(self.members)} topics>"

    # Members

    def open(self, mailbox: Mailbox) -> None:
        """Take in a mailbox."""
        self.mailboxes[mailbox.channel] = mailbox

    def add(self, topic: str, mailbox: Mailbox) -> bool:
        """Make a mailbox a member; True when it is the topic's first, which the engine must hear."""
        members = self.members.get(topic)
        if members is None or mailbox.channel not in members:
            mailbox.topics.append(topic)
        if members is None:
            self.members[topic] = {mailbox.channel: mailbox}
            if self.logs is not None:
                self.logs.begin(topic)
            return True
        members[mailbox.channel] = mailbox
        return False

    def discard(self, topic: str, mailbox: Mailbox) -> bool:
        """End a membership; True when it was the topic's last."""
        members = self.members.get(topic)
        if members is None or members.pop(mailbox.channel, None) is None:
            return False
        mailbox.topics.remove(topic)
        if members:
            if self.logs is not None:
                self.logs.let_go(topic, mailbox)
            return False
        del self.members[topic]
        if self.gate is not None:
            self.gate.forget(topic)
        if self.logs is not None:
            self.logs.forget(topic)
        return True

    def discard_all(self, mailbox: Mailbox) -> list[str]:
        """End all memberships of a mailbox; return the topics that have no member left."""
        return [topic for topic in tuple(mailbox.topics) if self.discard(topic, mailbox)]

    def close(self, mailbox: Mailbox) -> list[str]:
        """Forget a mailbox and what waits in it, counted; return the topics that have no member left."""
        self.mailboxes.pop(mailbox.channel, None)
        emptied = self.discard_all(mailbox)
        self.identify(mailbox, None, None)
        # A connection that ended has nobody to tell, so no warning; what it did not read is counted all the same.
        unread = len(mailbox.queue)
        if unread:
            for envelope in mailbox.queue:
                envelope.forsaken()
            self.dropped += unread
            self.drops.by_reason["closed"] += unread
            mailbox.queue.clear()
        return emptied

    def identify(self, mailbox: Mailbox, user: str | None, session: str | None, let_in_s: float | None = None) -> None:
        """Say whose connection a mailbox belongs to, so that it can be found by user and by session.

        ``let_in_s``: when they were let in (monotonic), if not now.
        """
        self._identities.set(mailbox, user, session, let_in_s)

    def by_identity(self, kind: str, key: str) -> list[Mailbox]:
        """Return the mailboxes of the connections of a user or a session (``kind``)."""
        return self._identities.of(kind, key)

    # What arrives

    def deliver(self, arrivals: Sequence[Arrival]) -> None:
        """Take what the engine brings."""
        for arrival in arrivals:
            if arrival.position is None or self.logs is None:
                self.arrive(arrival.topic, arrival.payload)
            else:
                self.logs.arrive(arrival, arrival.position)

    def arrive(self, topic: str, payload: bytes) -> None:
        """Take one message."""
        now = monotonic()
        try:
            envelope = unpack(payload, topic, now)
            if self.gate is not None and not self.gate.admit(envelope):
                if self.gate.late and not self._late_due:
                    self._late_due = True
                    self.loop.call_later(LATE_S, self._tell_late)
                return
        except ValueError as exc:
            self.refuse(topic, exc)
            return
        self.took_in(envelope)
        members = self.members.get(topic)
        if members is None and self.gate is not None and topic[:2] in ("g:", "u:"):
            self.gate.forget(topic)  # its last member has left, and a late message has begun it anew
        if envelope.extra:
            channel = envelope.extra.get("c")
            if channel is not None:
                self._deliver_direct(channel, envelope)
            elif members and envelope.kind != CONTROL:
                self.fan_out(envelope, self.chosen(envelope, members))
        elif members and envelope.kind == MESSAGE:
            self.fan_out(envelope, members.values())
        if envelope.kind == CONTROL and self.on_control is not None:
            self.on_control(envelope)

    def took_in(self, envelope: Envelope, *, replayed: bool = False) -> None:
        """Count a message that came in. ``replayed``: its age says nothing of how long messages take."""
        self.arrived += 1
        self.taken = self.missed = 0
        if not replayed and envelope.arrived_s >= self._sample_due_s:
            self._sample_due_s = envelope.arrived_s + SAMPLE_S
            self.sample = envelope

    def arrive_here(self, topic: str, body: bytes) -> None:
        """Take a message that was published on this very loop, for this node alone: it needed no header."""
        now = monotonic()
        self.arrived += 1
        self.taken = self.missed = 0
        members = self.members.get(topic)
        if members:
            envelope = Envelope(topic, now, body)
            if now >= self._sample_due_s:
                self._sample_due_s = now + SAMPLE_S
                self.sample = envelope
            self.fan_out(envelope, members.values())

    def lost(self, topics: Collection[str], reason: str, good_until: float) -> None:
        """Report what an engine may have missed; what has a log is read from it first."""
        if self.logs is not None:
            topics = self.logs.mend(topics, reason, good_until)
        if topics and self.on_lost is not None:
            self.on_lost(topics, reason, good_until)

    def _tell_late(self) -> None:
        self._late_due = False
        if self.gate is not None and self.gate.late:
            late, self.gate.late = self.gate.late, {}
            self.lost(late, "they came after later ones of their sender", min(late.values()))

    def link(self, name: str, up: bool) -> None:
        """Report a link's state."""
        if self.on_link is not None:
            self.on_link(name, up)

    def put(self, mailbox: Mailbox, envelope: Envelope) -> bool:
        """Put one envelope into one mailbox by its policy; False when it was dropped."""
        queue = mailbox.queue
        if mailbox.closing is not None:
            self.drop("closed", envelope, mailbox)
            return False
        if len(queue) >= mailbox.capacity and not self.make_room(mailbox):
            if mailbox.policy != "drop_old":
                if mailbox.policy == "close":
                    self.drop("slow", envelope, mailbox)
                    mailbox.ask_close("slow")
                else:
                    self.drop("over_capacity", envelope, mailbox)
                return False
            self.drop("replaced", queue.pop(0), mailbox)
        queue.append(envelope)
        mailbox.wake()
        return True

    def fan_out(self, envelope: Envelope, members: Collection[Mailbox]) -> None:  # noqa: C901  # the innermost loop
        """Put ``envelope`` into every mailbox of ``members``, and have it handled."""
        if len(members) == 1 and not self._stepping:
            (mailbox,) = members
            waiter = mailbox.waiter
            reader = mailbox.reader if mailbox.relays is None else None  # what relays do is counted below
            if reader is not None and waiter is not None and not waiter.done() and not mailbox.queue:
                # One receiver, and it waits: it may as well begin here and now.
                self.delivered += 1
                self._stepping = True
                try:
                    reader.step(envelope)
                finally:
                    self._stepping = False
                    self.taken, self.missed = 1, 0  # after the step: what it sent has counts of its own
                return
        taken = failed = 0
        ready, relays, outcome, direct = self._ready, None, None, False
        straight: list[FrameSocket] = []
        for mailbox in members:
            queue = mailbox.queue
            table = mailbox.relays
            if table is not None:
                if table is not relays:
                    if straight:
                        taken += self._send_straight(envelope, outcome, straight)
                    relays, outcome, straight = table, table.outcome(envelope), []
                    direct = isinstance(outcome, Prebuilt)
                if direct:
                    socket = mailbox.socket
                    if socket is not None and mailbox.waiter is not None and not queue and not socket.full:
                        straight.append(socket)
                        continue
                elif outcome is not None:
                    if outcome is NOTHING:
                        taken += 1
                    else:
                        failed += 1
                    continue
            if len(queue) < mailbox.capacity and mailbox.closing is None:
                # With something in its queue already, it is in line: it waits only with none.
                if not queue and mailbox.waiter is not None:
                    ready.append(mailbox)
                queue.append(envelope)
                taken += 1
            elif self.put(mailbox, envelope):
                taken += 1
        if straight:
            taken += self._send_straight(envelope, outcome, straight)
        self.delivered += taken
        self.taken, self.missed = taken, len(members) - taken
        if failed and relays is not None:
            self.relay_failed(envelope, relays.owner, failed)
        if ready and not self._scheduled:
            self._scheduled = True
            self.loop.call_soon(self._serve_ready)

    def _send_straight(self, envelope: Envelope, message: Any, sockets: list[FrameSocket]) -> int:
        sockets[0].write_all(message, sockets)
        if envelope is self.sample:
            self.took(envelope)
        return len(sockets)

    def _serve_ready(self) -> None:
        """Have the readers that wait handle what they got, for one slice of the loop's time."""
        ready = self._ready
        until = monotonic() + SLICE_S
        self._stepping = True
        try:
            served = woken = 0
            while ready and woken < WAKES_MAX:
                mailbox = ready.popleft()
                waiter = mailbox.waiter
                if waiter is None or waiter.done() or not mailbox.queue:
                    continue  # it is awake by now, or ends; or it stood in line twice, and has handled all
                reader = mailbox.reader
                if reader is None:
                    mailbox.wake()
                    woken += 1
                    continue
                reader.step(mailbox.queue.pop(0))
                # ``waiter`` is gone if the reader's task has something to do itself now; it looks at the queue then.
                if mailbox.queue and mailbox.waiter is waiter:
                    ready.append(mailbox)
                served += 1
                if not served & 7 and monotonic() >= until:
                    break
        finally:
            self._stepping = False
            if ready:
                self.loop.call_soon(self._serve_ready)
            else:
                self._scheduled = False

    def chosen(self, envelope: HeadedEnvelope, members: dict[str, Mailbox]) -> list[Mailbox]:
        """Return the members that get this copy: not the excluded, none that had another, of a marker who wants it."""
        excluded = envelope.extra.get("x") or ()
        chosen = [mailbox for channel, mailbox in members.items() if channel not in excluded]
        if envelope.kind == MARKER:
            kind = envelope.extra.get("y")
            chosen = [mailbox for mailbox in chosen if kind in mailbox.wants]
        return self._copies.first(envelope.id, chosen) if envelope.extra.get("t") else chosen

    def missed_by(
        self, mailbox: Mailbox, envelopes: Iterable[HeadedEnvelope], author: str | None
    ) -> list[HeadedEnvelope]:
        """Return those of a log's entries that a member would have got, had it been there.

        ``author``: its own key; what was sent to all but its author does not go back to who has written it.
        """
        missed = []
        for envelope in envelopes:
            extra = envelope.extra
            if envelope.kind == CONTROL or (author and extra.get("x") and extra.get("a") == author):
                continue
            if not extra or self.chosen(envelope, {mailbox.channel: mailbox}):
                missed.append(envelope)
        return missed

    def replay(self, mailbox: Mailbox, envelopes: Sequence[Envelope]) -> None:
        """Put what a member missed into its mailbox, full or not."""
        mailbox.queue.extend(envelopes)
        self.delivered += len(envelopes)
        if envelopes:
            mailbox.wake()

    def fan_over(self, envelope: Envelope, members: Collection[Mailbox]) -> None:
        """Put a message that was read from a log into mailboxes, full or not: what is replayed competes for no room."""
        ready = self._ready
        for mailbox in members:
            if mailbox.closing is not None:
                self.drop("closed", envelope, mailbox)
                continue
            if not mailbox.queue and mailbox.waiter is not None:
                ready.append(mailbox)
            mailbox.queue.append(envelope)
            self.delivered += 1
        if ready and not self._scheduled:
            self._scheduled = True
            self.loop.call_soon(self._serve_ready)

    def _deliver_direct(self, channel: str, envelope: Envelope) -> None:
        mailbox = self.mailboxes.get(channel)
        if mailbox is None:
            self.count_missing(channel)
        elif self.put(mailbox, envelope):
            self.delivered += 1
            self.taken = 1
            return
        self.missed = 1

    # What is measured

    def took(self, envelope: Envelope) -> None:
        """Measure the lag of a sampled envelope, at the first reader that takes it."""
        self.sample = None
        self.lag.measure(envelope)

    def waiting(self) -> int:
        """Count the envelopes that wait in mailboxes."""
        return sum(len(mailbox.queue) for mailbox in tuple(self.mailboxes.values()))
