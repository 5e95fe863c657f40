"""Signs of life and rates, as functions of a time that is given. Reads no clock."""

from __future__ import annotations

__all__ = ["Bucket", "Heartbeat"]


class Heartbeat:
    """Pings at intervals, and whether anything came back. ``interval_s`` 0: none."""

    __slots__ = ("_interval_s", "_pinged_s", "_pong_s", "next_s")

    def __init__(self, interval_s: float, pong_s: float) -> None:
        self._interval_s = interval_s
        self._pong_s = pong_s
        self.next_s: float | None = None  # when the next ping is due
        self._pinged_s: float | None = None  # the ping that nothing was heard since

    def __repr__(self) -> str:
        return f"<Heartbeat every {self._interval_s:g} s>"

    def begin(self, now: float) -> None:
        """Begin to ping."""
        if self._interval_s > 0:
            self.next_s = now + self._interval_s

    def seen(self) -> None:
        """Take note of something from the client: any frame is a sign of life."""
        self._pinged_s = None

    def ping(self, now: float) -> bool:
        """Say whether a ping is due; it counts as sent then."""
        if self.next_s is None or now < self.next_s:
            return False
        self.next_s = now + self._interval_s
        if self._pinged_s is None:
            self._pinged_s = now
        return True

    def silent(self, now: float) -> bool:
        """Say whether a ping was not answered in time."""
        return self._pinged_s is not None and now >= self._pinged_s + self._pong_s

    def times(self) -> list[float]:
        """Return when there is something to look at."""
        times = [self.next_s] if self.next_s is not None else []
        return [*times, self._pinged_s + self._pong_s] if self._pinged_s is not None else times


# A client that goes on after so many bucketfuls of refusals is not one of the official ones.
_FLOOD = 10


class Bucket:
    """A rate: ``count`` at once, refilled over ``seconds``. ``flooded``: far more was asked for than there is."""

    __slots__ = ("_at_s", "_count", "_per_s", "_refused", "_tokens")

    def __init__(self, count: int, seconds: float, now: float) -> None:
        self._count = count
        self._per_s = count / seconds
        self._tokens = float(count)
        self._refused = 0
        self._at_s = now

    def __repr__(self) -> str:
        return f"<Bucket {self._tokens:.1f}/{self._count}>"

    @property
    def flooded(self) -> bool:
        """Whether more was refused, without a pause, than anybody could ask for by mistake."""
        return self._refused > _FLOOD * self._count

    def take(self, now: float) -> bool:
        """Take one; False when there is none."""
        self._tokens = min(self._count, self._tokens + (now - self._at_s) * self._per_s)
        self._at_s = now
        if self._tokens < 1.0:
            self._refused += 1
            return False
        self._tokens -= 1.0
        self._refused = 0
        return True
