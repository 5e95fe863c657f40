"""``Log``: what one node knows of the log of one topic. Knows no engine and no mailbox; reads nothing itself.

    LIVE      what arrives is the next entry, and is delivered
    FILLING   something is missing: arrivals are held until the hole was filled from the engine's log

The *ring* holds the newest entries in memory while members recover: a thousand clients that come back at once are
served by one read of the engine.
"""

from __future__ import annotations

import asyncio
from collections import deque
from collections.abc import Sequence
from time import monotonic

from ...envelope import HeadedEnvelope
from ...types import Arrival, Keep, Position

__all__ = ["HELD_BACK", "Log"]

# Where a member starts that must not get anything yet.
HELD_BACK = 1 << 62
# Positions of earlier epochs that were found good.
_GOOD_MAX = 64
# Entries that nobody recovers any more are forgotten after so long.
RING_S = 15.0


class Log:
    """One topic's log, as its node has seen it. ``position``: of the last entry delivered; None: not known yet."""

    __slots__ = (
        "_good",
        "_ring_after",
        "_ring_used_s",
        "filling",
        "good_until",
        "held",
        "keep",
        "known",
        "live",
        "overrun",
        "position",
        "reading",
        "reason",
        "ring",
        "starts",
        "topic",
    )

    def __init__(self, topic: str, keep: Keep) -> None:
        self.topic = topic
        self.keep = keep
        self.position: Position | None = None
        self.known: asyncio.Future[None] | None = None  # done once ``position`` is
        self.filling = False
        self.reason, self.good_until = "", 0.0
        self.live: asyncio.Future[None] | None = None  # done when filling ends
        self.held: list[Arrival] = []
        self.overrun = False  # more came than is held: the rest is in the engine's log
        # Members that get only what comes after an offset: those that joined or recovered a moment ago.
        self.starts: dict[str, int] = {}
        self.ring: deque[HeadedEnvelope] | None = None
        self._ring_after = 0
        self._ring_used_s = 0.0
        self.reading: asyncio.Lock | None = None
        self._good: dict[str, int] = {}

    def __repr__(self) -> str:
        state = f"FILLING ({self.reason})" if self.filling else "LIVE"
        return f"<Log {self.topic!r} {state} at {self.position}>"

    def hold(self, arrival: Arrival) -> None:
        """Keep what arrives while filling."""
        if len(self.held) < self.keep.size:
            self.held.append(arrival)
        else:
            self.overrun = True

    def release(self) -> list[Arrival]:
        """Return what was held, in order, and forget it."""
        held, self.held, self.overrun = self.held, [], False
        return held

    def begin_again(self, top: Position) -> Position:
        """Return where to go on after a loss: before the first that was held, so that nothing that came is lost too."""
        held = [
            arrival for arrival in self.held if arrival.position is not None and arrival.position.epoch == top.epoch
        ]
        self.overrun = self.overrun or len(held) < len(self.held)
        self.held = held
        last = self.position
        floor = last.offset if last is not None and last.epoch == top.epoch else 0
        if held and floor <= held[0].previous < top.offset:
            return Position(top.epoch, held[0].previous)
        return top

    def advance(self, envelope: HeadedEnvelope, position: Position) -> None:
        """Take note of an entry that is being delivered."""
        self.position = position
        ring = self.ring
        if ring is not None:
            ring.append(envelope)
            if len(ring) > self.keep.size:
                self._ring_after = _offset(ring.popleft())
        if self.starts:
            self.starts = {channel: start for channel, start in self.starts.items() if start > position.offset}

    def settle(self) -> None:
        """Let those go on who wait for something of this log."""
        for future in (self.known, self.live):
            if future is not None and not future.done():
                future.set_result(None)
        self.known = self.live = None

    def fail(self, exc: Exception) -> None:
        """Tell those who wait for its position that nobody knows it."""
        known, self.known = self.known, None
        if known is not None and not known.done():
            known.set_exception(exc)
            known.exception()  # whoever waited may have gone

    # The ring

    def open_ring(self) -> None:
        """Begin to keep what is delivered from now on."""
        if self.ring is None and self.position is not None:
            self.ring = deque()
            self._ring_after = self.position.offset
        self._ring_used_s = monotonic()

    def close_ring(self) -> None:
        """Forget what is kept."""
        self.ring = None
        self._good.clear()

    def drop_idle_ring(self) -> None:
        """Forget what is kept, when nobody has recovered for a while."""
        busy = self.reading is not None and self.reading.locked()
        if self.ring is not None and not busy and monotonic() - self._ring_used_s > RING_S:
            self.close_ring()

    def extend_ring(self, since: Position, entries: Sequence[HeadedEnvelope]) -> None:
        """Take in what was read: the entries after ``since``, of which the log said that none is missing."""
        if self.ring is None or self.position is None:
            return
        if since.offset < self._ring_after:
            self.ring.extendleft(reversed([entry for entry in entries if _offset(entry) <= self._ring_after]))
            self._ring_after = since.offset
        if since.epoch != self.position.epoch:
            while len(self._good) >= _GOOD_MAX:
                del self._good[next(iter(self._good))]
            self._good[since.epoch] = max(since.offset, self._good.get(since.epoch, 0))

    def reaches(self, offset: int) -> bool:
        """Say whether the ring has everything after an offset that was delivered here."""
        return self.ring is not None and self._ring_after <= offset

    def after(self, offset: int) -> list[HeadedEnvelope]:
        """Return what the ring has after an offset."""
        return [envelope for envelope in self.ring or () if _offset(envelope) > offset]

    def since(self, since: Position) -> list[HeadedEnvelope] | None:
        """Return the entries after ``since``, as far as they were delivered here; None: the engine must be asked."""
        if self.ring is None or self.position is None or self.filling:
            return None
        if since.epoch != self.position.epoch and since.offset > self._good.get(since.epoch, -1):
            return None
        if not self._ring_after <= since.offset <= self.position.offset:
            return None
        self._ring_used_s = monotonic()
        return self.after(since.offset)


def _offset(envelope: HeadedEnvelope) -> int:
    return envelope.position.offset if envelope.position is not None else 0
