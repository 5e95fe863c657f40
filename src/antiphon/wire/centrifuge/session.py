"""``Session``: one client's connection as the protocol sees it. Pure: frames and times in, what is to be done out.

    NEW --connect--> CONNECTING --connected()--> CONNECTED
                          |                          |
                          +--refused()--> REFUSED    |      (the client reads the error and goes)
     any state --what breaks the rules, a deadline--> CLOSED

``feed`` is a generator, and each action is decided when it is asked for: whoever carries actions out says what came of
one (``connected``, ``subscribed``, ``unsubscribed``) before taking the next. So the commands of a frame may depend on
each other: a channel that is unsubscribed and subscribed again in one frame is free by then. Nothing raises, whatever
the client sends; times are seconds of one clock that never goes back.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from typing import TypeAlias

from .commands import (
    Command,
    Connect,
    Malformed,
    Ping,
    Pong,
    Send,
    SubRefresh,
    Subscribe,
    Unknown,
    Unsubscribe,
    read_command,
)
from .deadlines import Bucket, Heartbeat
from .tables import DISCONNECTS, ERRORS, Disconnect
from .writing import error_reply, reply

__all__ = ["Action", "Answer", "Close", "Lapsed", "Limits", "Session", "Subscription"]

NEW, CONNECTING, CONNECTED, REFUSED, CLOSED = "new", "connecting", "connected", "refused", "closed"


@dataclass(frozen=True, slots=True)
class Limits:
    """What one client may do. ``commands``: (how many, in how many seconds); None: as many as it likes.

    ``grace_s``: how long after the end of a token its successor may come.
    """

    subscriptions: int = 128
    frame_characters: int = 65536
    frame_commands: int = 2048
    channel_characters: int = 255
    commands: tuple[int, float] | None = (200, 1.0)
    connect_s: float = 25.0
    ping_s: float = 25.0
    pong_s: float = 8.0
    grace_s: float = 25.0


@dataclass(frozen=True, slots=True)
class Answer:
    """Send this text: a command that needs nobody to be carried out."""

    text: str


@dataclass(frozen=True, slots=True)
class Close:
    """Close the connection."""

    why: Disconnect


@dataclass(frozen=True, slots=True)
class Lapsed:
    """The permission for a channel has ended, and was not renewed."""

    channel: str


Action: TypeAlias = Command | Answer | Close


class Subscription:
    """One channel of a client. ``ends_s``: when its permission does, the grace not counted; None: never."""

    __slots__ = ("channel", "ends_s", "epoch", "group", "join_leave", "token")

    def __init__(
        self,
        channel: str,
        group: str,
        *,
        epoch: str | None = None,
        join_leave: bool = False,
        token: bool = False,
        ends_s: float | None = None,
    ) -> None:
        self.channel = channel
        self.group = group
        self.epoch = epoch
        self.join_leave = join_leave
        self.token = token  # it was allowed by a token
        self.ends_s = ends_s

    def __repr__(self) -> str:
        return f"<Subscription to {self.channel!r}>"


class Session:
    """The state of one client. ``limits``: of what it may do; ``now``: when it began."""

    def __init__(self, limits: Limits, now: float) -> None:
        self.limits = limits
        self.state = NEW
        self.subscriptions: dict[str, Subscription] = {}
        self.ends_s: float | None = None  # when its token does
        self.heartbeat = Heartbeat(limits.ping_s, limits.pong_s)
        self._connect_by_s = now + limits.connect_s
        self._bucket = Bucket(*limits.commands, now) if limits.commands is not None else None

    def __repr__(self) -> str:
        return f"<Session {self.state} {len(self.subscriptions)} subscriptions>"

    # What the client sends

    def feed(self, frame: object, now: float) -> Iterator[Action]:
        """Take a frame; yield what is to be done, in order. Anything but text breaks the rules."""
        if self.state in (CLOSED, REFUSED):
            return
        self.heartbeat.seen()
        if not isinstance(frame, str) or len(frame) > self.limits.frame_characters:
            yield self.close("bad_request")
            return
        lines = [line for line in frame.split("\n") if line and not line.isspace()]
        if not 0 < len(lines) <= self.limits.frame_commands:
            yield self.close("bad_request")
            return
        for line in lines:
            try:
                command = read_command(line)
            except Malformed:
                yield self.close("bad_request")
                return
            if not isinstance(command, Pong):
                yield from self._decide(command, now)
            if self.state in (CLOSED, REFUSED):
                return

    def _decide(self, command: Command, now: float) -> Iterator[Action]:
        if (self.state == NEW) is not isinstance(command, Connect):
            yield self.close("bad_request")
        elif isinstance(command, Connect):
            self.state = CONNECTING
            yield command
        elif isinstance(command, Unsubscribe):
            # Always: an error would make the client reconnect.
            yield command if command.channel in self.subscriptions else Answer(reply(command.id, "unsubscribe"))
        elif (error := self._refusal(command, now)) is None:
            yield command
        elif isinstance(command, Send) or (self._bucket is not None and self._bucket.flooded):
            yield self.close("too_many_requests")
        else:
            yield Answer(error_reply(command.id, ERRORS[error]))

    def _refusal(self, command: Command, now: float) -> str | None:
        """Return the error of a command that is not to be carried out."""
        allowed = self._bucket is None or self._bucket.take(now)
        if isinstance(command, Ping):
            return "not_available"
        if isinstance(command, Unknown):
            return "method_not_found"
        if len(getattr(command, "channel", "")) > self.limits.channel_characters:
            return "bad_request"
        if isinstance(command, Subscribe):
            if command.channel in self.subscriptions:
                return "already_subscribed"
            if len(self.subscriptions) >= self.limits.subscriptions:
                return "limit_exceeded"
            if command.kind:
                return "not_available"
        if isinstance(command, SubRefresh) and command.channel not in self.subscriptions:
            return "permission_denied"
        return None if allowed else "too_many_requests"

    # What came of it

    def connected(self, now: float, ends_s: float | None = None) -> None:
        """The client has got its reply. ``ends_s``: when its token does."""
        self.state = CONNECTED
        self.ends_s = ends_s
        self.heartbeat.begin(now)

    def refused(self) -> None:
        """The client has got an error for its connect: it goes by itself, or is stale."""
        self.state = REFUSED

    def subscribed(self, subscription: Subscription) -> None:
        """A subscription is on."""
        self.subscriptions[subscription.channel] = subscription

    def unsubscribed(self, channel: str) -> Subscription | None:
        """A subscription has ended; return it."""
        return self.subscriptions.pop(channel, None)

    def close(self, why: str) -> Close:
        """End the session, for a reason of ``DISCONNECTS``."""
        self.state = CLOSED
        return Close(DISCONNECTS[why])

    # Time

    def next_s(self) -> float | None:
        """Return when to look at ``ping`` and ``overdue`` again; None: never."""
        if self.state == CLOSED:
            return None
        if self.state != CONNECTED:
            return self._connect_by_s
        ends = [self.ends_s, *(subscription.ends_s for subscription in self.subscriptions.values())]
        times = [end + self.limits.grace_s for end in ends if end is not None]
        return min([*times, *self.heartbeat.times()], default=None)

    def ping(self, now: float) -> bool:
        """Say whether the client is to be sent a ping; it counts as sent then."""
        return self.state == CONNECTED and self.heartbeat.ping(now)

    def overdue(self, now: float) -> list[Close | Lapsed]:
        """Return what has come to its end. To be asked after all that the client has sent was fed."""
        if self.state == CLOSED:
            return []
        if self.state != CONNECTED:
            return [self.close("stale")] if now >= self._connect_by_s else []
        if self.heartbeat.silent(now):
            return [self.close("no_pong")]
        grace_s = self.limits.grace_s
        if self.ends_s is not None and now >= self.ends_s + grace_s:
            return [self.close("expired")]
        return [
            Lapsed(subscription.channel)
            for subscription in self.subscriptions.values()
            if subscription.ends_s is not None and now >= subscription.ends_s + grace_s
        ]
