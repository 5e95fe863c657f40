"""The bounded queue behind one channel. Knows envelopes and nothing of groups, engines or consumers.

One loop puts (its node's), usually one reader takes. A consumer, on the same loop, sets ``waiter`` and takes from
``queue`` itself; a channel made by hand may be read from any loop, by several readers, with ``get()``. Readers wait for a signal and take afterwards,
so a reader that is cancelled has taken nothing.
"""

from __future__ import annotations

import asyncio
import time
from collections.abc import Callable
from typing import Any, Protocol

from ..bell import Bell
from ..envelope import Envelope
from ..wire.prebuilt import FrameSocket

__all__ = ["NOTHING", "POLICIES", "Failed", "Mailbox", "Relays"]

# drop_new: what does not fit is refused. drop_old: it takes the place of the oldest. close: its reader is closed.
POLICIES = ("drop_new", "drop_old", "close")


class Waiter(Protocol):
    def done(self) -> bool: ...
    def set_result(self, result: None, /) -> None: ...


class Reader(Protocol):
    def step(self, envelope: Envelope, /) -> None: ...


class Relays(Protocol):
    """The relays of one kind of reader. ``owner``: its name, for logs."""

    owner: str

    def outcome(self, envelope: Envelope, /) -> Any:
        """Return what goes to every socket for this message: a Prebuilt, NOTHING, or Failed; None: it is no relay's.

        Worked out once a message. Never raises.
        """


# A relay has nothing to send for a message.
NOTHING = "nothing"


class Failed:
    """A relay has raised ``exc``."""

    __slots__ = ("exc",)

    def __init__(self, exc: Exception) -> None:
        self.exc = exc

    def __repr__(self) -> str:
        return f"<Failed {self.exc!r}>"


class _BellWaiter:
    """Makes a bell look like the future that the hub expects to find."""

    __slots__ = ("bell",)

    def __init__(self) -> None:
        self.bell = Bell()

    def done(self) -> bool:
        return False

    def set_result(self, result: None, /) -> None:
        self.bell.ring()


_NOTHING_MORE: frozenset[str] = frozenset()


class Mailbox:
    """What waits for one channel: at most ``capacity`` envelopes, each for at most ``expiry_s`` seconds.

    ``queue`` and ``waiter`` are the hub's to touch directly: this is the innermost loop of fan-out.
    """

    __slots__ = (
        "_bell",
        "appearing",
        "capacity",
        "channel",
        "closing",
        "every_copy",
        "expiry_s",
        "info_of",
        "last_read_s",
        "let_in_s",
        "loop",
        "on_close",
        "on_recheck",
        "owner",
        "policy",
        "queue",
        "reader",
        "readers",
        "relays",
        "session",
        "socket",
        "topics",
        "user",
        "waiter",
        "wants",
    )

    def __init__(
        self,
        channel: str,
        loop: asyncio.AbstractEventLoop,
        *,
        capacity: int = 100,
        expiry_s: float = 60.0,
        policy: str = "drop_new",
        owner: str | None = None,
    ) -> None:
        self.channel = channel
        self.loop = loop
        self.capacity = capacity
        self.expiry_s = expiry_s
        self.policy = policy
        self.owner = owner  # a consumer class's name; None for a channel made by hand
        # A list, not a deque: empty it is 56 bytes against 760, most are empty most of the time, and taking the first
        # of a hundred costs nothing.
        self.queue: list[Envelope] = []
        self.waiter: Waiter | None = None
        self.topics: list[str] = []
        self.closing: str | None = None  # a close reason, once somebody asked for the reader's end
        self.on_close: Callable[[str], None] | None = None
        self.user: str | None = None
        self.let_in_s = 0.0  # when user and session were found to be who they say
        self.session: str | None = None
        self.reader: Reader | None = None  # who can handle an envelope at once, while ``waiter`` is set
        self.relays: Relays | None = None
        self.socket: FrameSocket | None = None  # where a relay's message goes, while that may be done
        self.wants: frozenset[str] = _NOTHING_MORE  # the markers that it takes, beside messages
        self.every_copy = False  # a message to several groups comes once for each: its groups are told apart
        self.appearing: asyncio.Future[None] | None = None  # done when the engine knows that it is present
        # What others in a group are told of this member, where it is known who is there.
        self.info_of: Callable[[str], dict[str, Any]] | None = None
        # Called on its loop when what its user may do may have changed.
        self.on_recheck: Callable[[], None] | None = None
        self.readers = 0
        self.last_read_s = 0.0
        self._bell: _BellWaiter | None = None

    def __repr__(self) -> str:
        closing = f" closing={self.closing}" if self.closing else ""
        return f"<Mailbox {self.channel!r} {len(self.queue)}/{self.capacity}{closing}>"

    def __len__(self) -> int:
        return len(self.queue)

    @property
    def receiver(self) -> str:
        """Who reads it, for logs: the consumer class's name, else the channel."""
        return self.owner or self.channel

    def wake(self) -> None:
        """Wake whoever waits. On the mailbox's loop."""
        waiter = self.waiter
        if waiter is not None:
            self.waiter = None
            if not waiter.done():
                waiter.set_result(None)

    def ask_close(self, reason: str) -> None:
        """Ask the reader to end its connection with ``reason``; the first reason stands."""
        if self.closing is None:
            self.closing = reason
            if self.on_close is not None:
                self.on_close(reason)
            self.wake()

    def pop(self, expired: Callable[[Envelope, Mailbox], Any]) -> Envelope | None:
        """Take the oldest envelope that has not expired, or None; ``expired`` is called with each that has."""
        queue = self.queue
        limit = time.monotonic() - self.expiry_s
        while True:
            try:
                envelope = queue.pop(0)
            except IndexError:
                return None
            if envelope.arrived_s >= limit:
                return envelope
            expired(envelope, self)

    async def get(self, expired: Callable[[Envelope, Mailbox], Any]) -> Envelope:
        """Wait for an envelope and take it: from any loop, by any number of readers."""
        if self._bell is None:
            self._bell = _BellWaiter()
        bell = self._bell.bell
        self.readers += 1
        try:
            while True:
                envelope = self.pop(expired)
                if envelope is not None:
                    return envelope
                signal = bell.add()
                self.waiter = self._bell
                if self.queue:  # put from another thread between the look and the registration
                    bell.discard(signal)
                    continue
                try:
                    await signal
                finally:
                    bell.discard(signal)
        finally:
            self.readers -= 1
            self.last_read_s = time.monotonic()
