"""One event loop of one process, as the other nodes see it: its id, hub, engine and lane. Knows no consumer."""

from __future__ import annotations

import asyncio
import contextlib
import itertools
import random
import secrets
import time
from collections.abc import Iterable

from ..codec import encode
from ..engines.base import Engine
from ..envelope import Envelope
from ..exceptions import OptionError
from ..names import UNSUBSCRIBE, group_topic, inbox_topic, new_node_id
from ..types import Position
from .drops import Drop, Drops
from .gate import Gate
from .hub import Hub
from .logs import Recovery
from .mailbox import Mailbox
from .presence import Presence, Rosters

__all__ = ["Lane", "Node"]


# How long a join waits for the engine to know of a new member. It knows it later, if that is not enough.
PRESENT_S = 1.0


class Lane:
    """What order is promised within: an id, and a count that goes up with each message."""

    __slots__ = ("id", "n")

    def __init__(self) -> None:
        self.id = secrets.randbits(64)
        self.n = 0

    def __repr__(self) -> str:
        return f"<Lane {self.id:x}>"


class Node:
    """A loop that owns channels. Made on first need; gone with its loop."""

    def __init__(
        self,
        loop: asyncio.AbstractEventLoop,
        engine: Engine,
        drops: Drops,
        idle_after_s: float,
        gate: Gate | None = None,
    ) -> None:
        self.id = new_node_id()
        self.loop = loop
        self.engine = engine
        self.drops = drops
        self.hub = Hub(loop, drops, gate)
        self.lane = Lane()
        self.idle_after_s = idle_after_s
        self.idle_channels = 0
        self.presence: Presence | None = None  # where any group has it
        self.rosters: Rosters | None = None
        self._ids = itertools.count(1)
        self._subscribing: dict[str, asyncio.Future[None]] = {}
        self._hand_made: set[Mailbox] = set()
        self._sweeper: asyncio.TimerHandle | None = None

    def __repr__(self) -> str:
        return f"<Node {self.id} {self.hub!r}>"

    @property
    def inbox(self) -> str:
        """The topic of what is for this node alone."""
        return inbox_topic(self.id)

    def channel_name(self, prefix: str, *, hand_made: bool = False) -> str:
        """Return a new channel's name: ``<prefix><node>!<id>``, and an ``x`` before the id of one made by hand."""
        return f"{prefix}{self.id}!{'x' if hand_made else ''}{next(self._ids):x}"

    # Channels

    def open(self, mailbox: Mailbox) -> None:
        """Take in a mailbox; one made by hand (without an owner) is watched for a reader that is gone."""
        self.hub.open(mailbox)
        if mailbox.owner is None:
            mailbox.last_read_s = time.monotonic()
            self._hand_made.add(mailbox)
            self.loop.call_soon_threadsafe(self._watch)

    def close(self, mailbox: Mailbox) -> None:
        """Forget a mailbox: it leaves its groups, and what waits in it is counted."""
        self._hand_made.discard(mailbox)
        self._disappear(mailbox.topics, mailbox)
        emptied = self.hub.close(mailbox)
        if emptied:
            self.engine.unsubscribe(emptied)

    def end(self) -> None:
        """Stop watching: the layer is closed."""
        self._hand_made.clear()
        if self.hub.logs is not None:
            with contextlib.suppress(RuntimeError):  # its loop has ended, and all that ran there with it
                self.loop.call_soon_threadsafe(self.hub.logs.close)

    # Memberships

    async def join(self, topic: str, mailbox: Mailbox, *, appear: bool = True) -> None:
        """Make a mailbox a member of a topic; what is published from now on reaches it.

        ``appear``: where it is known who is there, wait a moment until the engine knows of this one.
        """
        entering = self._enter(topic, mailbox)
        if not entering and self.presence is None:
            return
        try:
            for pending in entering:
                await asyncio.shield(pending)
            self._disclose(topic, mailbox)
            if appear:
                await self.appeared(mailbox)
        except BaseException:
            self.leave(topic, mailbox)
            raise

    async def appeared(self, mailbox: Mailbox) -> None:
        """Wait a moment until the engine knows where a member is present: who then asks finds itself."""
        appearing, mailbox.appearing = mailbox.appearing, None
        if appearing is not None and not appearing.done():
            await asyncio.wait((appearing,), timeout=PRESENT_S)

    def _disclose(self, topic: str, mailbox: Mailbox) -> None:
        """Let a new member be present, where it is to be known who is there."""
        if self.presence is None or not self.presence.wants(topic) or topic not in mailbox.topics:
            return
        group = topic[2:]
        info = mailbox.info_of(group) if mailbox.info_of is not None else None
        mailbox.appearing = self.presence.enter(group, mailbox, info)

    def appear_anew(self, mailbox: Mailbox) -> None:
        """Let a connection be present as whom it is by now: its user has logged in or out."""
        for topic in mailbox.topics:
            self._disclose(topic, mailbox)

    def _disappear(self, topics: Iterable[str], mailbox: Mailbox) -> None:
        if self.presence is not None:
            for topic in topics:
                if self.presence.wants(topic):
                    self.presence.exit(topic[2:], mailbox)

    def _enter(self, topic: str, mailbox: Mailbox) -> list[asyncio.Future[None]]:
        """Make it a member; return what is to be waited for before that is certain."""
        if self.hub.add(topic, mailbox):
            subscribed = self.engine.subscribe((topic,))
            if subscribed is not None:
                self._subscribing[topic] = subscribed
                subscribed.add_done_callback(lambda done: self._forget_subscribing(topic, done))
        else:
            # Not the first, but the first may not be through yet: without the engine's word nothing is promised.
            subscribed = self._subscribing.get(topic)
        known = self.hub.logs.known(topic) if self.hub.logs is not None else None
        return [pending for pending in (subscribed, known) if pending is not None]

    async def recover(
        self, topic: str, mailbox: Mailbox, since: Position, *, newest: bool = False, author: str | None = None
    ) -> Recovery:
        """Make a mailbox a member, and return what it missed since a position: see ``Logs.recover``.

        Raises OptionError for a topic without a log, EngineUnavailable; it has not become a member then.
        """
        logs = self.hub.logs
        if logs is None:
            raise OptionError(f"group {topic[2:]!r} has no history: no group of this layer has history_size")
        logs.require_log(topic)
        member = topic in mailbox.topics
        entering = self._enter(topic, mailbox)
        logs.hold_back(topic, mailbox)
        try:
            for pending in entering:
                await asyncio.shield(pending)
            recovery = await logs.recover(topic, mailbox, since, newest=newest, author=author)
            # Without waiting: what is delivered next stands behind what was recovered.
            self._disclose(topic, mailbox)
            return recovery
        except BaseException:
            if member:
                logs.let_go(topic, mailbox)
            else:
                self.leave(topic, mailbox)
            raise

    def position(self, topic: str) -> Position | None:
        """Return how far this node has come in a topic's log; None: it has none."""
        return self.hub.logs.position(topic) if self.hub.logs is not None else None

    def _forget_subscribing(self, topic: str, done: asyncio.Future[None]) -> None:
        if self._subscribing.get(topic) is done:
            del self._subscribing[topic]
        if not done.cancelled():
            done.exception()  # whoever waited has gone

    def leave(self, topic: str, mailbox: Mailbox) -> None:
        """End a membership."""
        self._disappear((topic,), mailbox)
        if self.hub.discard(topic, mailbox):
            self.engine.unsubscribe((topic,))

    def put_out(self, user: str, group: str) -> int:
        """End the memberships that a user's connections have in a group, and tell those that have an ear for it."""
        topic = group_topic(group)
        boxes = [box for box in self.hub.by_identity("user", user) if topic in box.topics]
        listening = [box for box in boxes if UNSUBSCRIBE in box.wants]
        if listening:
            word = encode({"type": UNSUBSCRIBE, "group": group, "user": user})
            self.hub.fan_over(Envelope(topic, time.monotonic(), word), listening)
        for box in boxes:
            self.leave(topic, box)
        return len(boxes)

    def recheck(self, user: str | None) -> int:
        """Have a user's connections look again at what they may; None: those of every user. Return how many there are."""
        if user is not None:
            boxes = list(self.hub.by_identity("user", user))
        else:
            boxes = [box for box in self.hub.mailboxes.values() if box.user is not None]
        for box in boxes:
            if box.on_recheck is not None:
                # Of very many, not all at once: each may ask a database.
                self.loop.call_later(random.random() * min(1.0, len(boxes) / 1000), box.on_recheck)  # noqa: S311
        return len(boxes)

    def leave_all(self, mailbox: Mailbox) -> None:
        """End all memberships of a mailbox."""
        self._disappear(mailbox.topics, mailbox)
        emptied = self.hub.discard_all(mailbox)
        if emptied:
            self.engine.unsubscribe(emptied)

    # Channels whose reader is gone

    def _watch(self) -> None:
        if self._sweeper is None and self._hand_made:
            self._sweeper = self.loop.call_later(max(self.idle_after_s / 4, 0.05), self._sweep)

    def _sweep(self) -> None:
        self._sweeper = None
        now = time.monotonic()
        for mailbox in tuple(self._hand_made):
            if mailbox.readers or now - mailbox.last_read_s < self.idle_after_s:
                continue
            if mailbox.topics:
                self.idle_channels += 1
                unread = len(mailbox.queue)
                mailbox.queue.clear()
                self.leave_all(mailbox)
                if unread:
                    self.hub.dropped += unread
                    self.drops.add(Drop("idle_channel", None, mailbox.channel, unread))
            elif not mailbox.queue:
                # Nobody reads it, nothing is in it, no group knows it: a later send makes it anew if it must.
                self.close(mailbox)
            else:
                self.hub.make_room(mailbox)
        self.drops.flush_log()
        self._watch()
