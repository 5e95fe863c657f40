"""``MemoryLogs``: the logs of one process. Knows no node: whoever publishes holds the lock while an entry gets its place."""

from __future__ import annotations

import secrets
from collections import OrderedDict, deque
from time import monotonic
from typing import NamedTuple

from ...types import Entry, Keep, Page, Position

__all__ = ["Appended", "MemoryLogs"]

# A log whose messages have expired keeps its place for so long: a position in it stays good until then.
FORGET_S = 30 * 86400.0
# Logs are looked over for what has expired after so many appends.
_SWEEP_EVERY = 4096


class Appended(NamedTuple):
    """What became of an append: where the message stands, and ``sent``, ``duplicate`` or ``suppressed``."""

    position: Position
    state: str


class _Log:
    __slots__ = ("entries", "epoch", "expires_s", "keys", "top", "version", "version_epoch")

    def __init__(self) -> None:
        self.epoch = secrets.token_hex(4)
        self.top = 0
        self.entries: deque[Entry] = deque()
        self.expires_s = monotonic() + FORGET_S
        self.version, self.version_epoch = 0, ""
        # idempotency key -> (offset, until when), the oldest first.
        self.keys: OrderedDict[str, tuple[int, float]] = OrderedDict()


class MemoryLogs:
    """Topic -> log. Not safe by itself: its owner's lock is held around every call."""

    def __init__(self) -> None:
        self._logs: dict[str, _Log] = {}
        self._appends = 0

    def __repr__(self) -> str:
        return f"<MemoryLogs {len(self._logs)}>"

    def append(self, topic: str, payload: bytes, keep: Keep) -> Appended:
        """Give a message its place, unless it has one already or is out of date."""
        log, now = self._log(topic), monotonic()
        if keep.idempotency_key is not None:
            self._forget_keys(log, now)
            known = log.keys.get(keep.idempotency_key)
            if known is not None:
                return Appended(Position(log.epoch, known[0]), "duplicate")
        if keep.version:
            if log.version >= keep.version and log.version_epoch == keep.version_epoch:
                return Appended(Position(log.epoch, log.top), "suppressed")
            log.version, log.version_epoch = keep.version, keep.version_epoch
        if log.expires_s <= now:
            log.entries.clear()
        log.top += 1
        log.entries.append(Entry(log.top, payload))
        while len(log.entries) > keep.size:
            log.entries.popleft()
        log.expires_s = now + keep.ttl_s
        if keep.idempotency_key is not None:
            log.keys[keep.idempotency_key] = (log.top, now + keep.idempotency_ttl_s)
        self._appends += 1
        if self._appends % _SWEEP_EVERY == 0:
            self._sweep(now)
        return Appended(Position(log.epoch, log.top), "sent")

    def read(self, topic: str, since: Position | None, limit: int, *, reverse: bool) -> Page:
        """Read as ``HistoryEngine.read`` says."""
        log = self._log(topic)
        if log.expires_s <= monotonic():
            log.entries.clear()
        entries, top = log.entries, Position(log.epoch, log.top)
        first = entries[0].offset if entries else log.top + 1
        if since is None:
            after, complete = first - 1, True
        else:
            known = since.epoch == log.epoch and 0 <= since.offset <= log.top
            after, complete = since.offset, known and since.offset >= first - 1
        # Offsets are dense: the first wanted entry stands where its offset says.
        skip = max(0, after + 1 - first)
        wanted = [entries[at] for at in range(skip, len(entries))]
        if reverse:
            wanted.reverse()
        return Page(top, wanted[: max(0, limit)], complete)

    def top(self, topic: str) -> Position:
        """Return the position of the last message."""
        log = self._log(topic)
        return Position(log.epoch, log.top)

    def forget(self) -> None:
        """Lose all logs."""
        self._logs.clear()

    def _log(self, topic: str) -> _Log:
        log = self._logs.get(topic)
        if log is None:
            log = self._logs[topic] = _Log()
        return log

    def _forget_keys(self, log: _Log, now: float) -> None:
        while log.keys and next(iter(log.keys.values()))[1] <= now:
            log.keys.popitem(last=False)

    def _sweep(self, now: float) -> None:
        for topic, log in list(self._logs.items()):
            if log.expires_s <= now:
                log.entries.clear()
                if log.expires_s + FORGET_S <= now:
                    del self._logs[topic]
