"""Accounts for every message that was not delivered: counters, a rate-limited warning, a hook. Knows no mailbox."""

from __future__ import annotations

import importlib
import logging
import threading
import time
from collections import Counter
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

from .. import options

__all__ = ["REASONS", "Drop", "Drops"]

logger = logging.getLogger("antiphon.layer")

# The first drop of a kind is logged at once, further ones as a total at this interval.
LOG_INTERVAL_S = 10.0
# Group names are the application's: beyond this many, drops are counted under one name for the rest.
MAX_GROUPS = 1000
OTHER_GROUPS = "(other groups)"


@dataclass(frozen=True, slots=True)
class Drop:
    """Messages that were not delivered.

    ``reason``: over_capacity, replaced (oldest, under drop_old), slow (its connection was closed), expired,
    no_channel, idle_channel, undecodable, closed, relay_failed, dead (of a worker channel: it is in ``<channel>.dead``). ``group``:
    the group's name, or None for a direct send. ``receiver``: the consumer class's name, or the channel.
    """

    reason: str
    group: str | None
    receiver: str
    count: int = 1


class Drops:
    """The drops of one layer in this process. Safe from any thread."""

    def __init__(self) -> None:
        self.by_reason: Counter[str] = Counter()
        self.by_group: Counter[tuple[str, str]] = Counter()
        self._log: dict[tuple[str, str | None, str], tuple[float, int]] = {}
        self._lock = threading.Lock()
        self._hook: Callable[[Drop], None] | None = None
        self._hook_known = False

    def __repr__(self) -> str:
        return f"<Drops {dict(self.by_reason)}>"

    def add(self, drop: Drop, *, log: bool = True) -> None:
        """Count a drop, log it if it is time, and offer it to ``on_drop``. Never raises.

        ``log=False``: whoever drops it logs it.
        """
        now = time.monotonic()
        key = (drop.reason, drop.group, drop.receiver)
        with self._lock:
            self.by_reason[drop.reason] += drop.count
            group = drop.group
            if group is not None:
                if (drop.reason, group) not in self.by_group and len(self.by_group) >= MAX_GROUPS:
                    group = OTHER_GROUPS
                self.by_group[drop.reason, group] += drop.count
            logged_s, pending = self._log.get(key, (-LOG_INTERVAL_S, 0))
            due = log and now - logged_s >= LOG_INTERVAL_S
            if log:
                self._log[key] = (now, 0) if due else (logged_s, pending + drop.count)
            if len(self._log) > MAX_GROUPS:
                self._log.clear()
        if due:
            self._say(key, pending + drop.count)
        self._offer(drop)

    def after_fork(self) -> None:
        """Drop the lock, which a thread of the parent may hold."""
        self._lock = threading.Lock()

    def flush_log(self) -> None:
        """Log the totals that are still waiting for their interval to end."""
        now = time.monotonic()
        with self._lock:
            late = [(key, n) for key, (at, n) in self._log.items() if n and now - at >= LOG_INTERVAL_S]
            for key, _ in late:
                self._log[key] = (now, 0)
        for key, count in late:
            self._say(key, count)

    @property
    def pending(self) -> bool:
        """Whether a total still waits to be logged."""
        return any(count for _, count in self._log.values())

    def _say(self, key: tuple[str, str | None, str], count: int) -> None:
        reason, group, receiver = key
        logger.warning(
            "Dropped %d message%s for %s%s: %s",
            count,
            "" if count == 1 else "s",
            receiver,
            f" of group {group!r}" if group is not None else "",
            _WHY.get(reason, reason),
        )

    def _offer(self, drop: Drop) -> None:
        if not self._hook_known:
            self._hook, self._hook_known = resolve_hook(options.get("on_drop")), True
        if self._hook is not None:
            try:
                self._hook(drop)
            except Exception:
                logger.exception("on_drop raised")


_WHY = {
    "over_capacity": "its mailbox is full (capacity); newest dropped. A slow handler or client, or raise capacity.",
    "replaced": "its mailbox is full (capacity); oldest dropped. A slow handler or client, or raise capacity.",
    "slow": "its mailbox is full (capacity); the connection is closed with reason 'slow'.",
    "expired": "nobody took it within expiry.",
    "no_channel": "there is no such channel any more.",
    "idle_channel": "nothing received from the channel for expiry seconds; it left its groups.",
    "undecodable": "the bytes are not a message of this version.",
    "closed": "its connection is closed.",
    "relay_failed": "its relay raised; the error stands in the log of antiphon.consumer.",
    "dead": "given out max_deliveries times and never acknowledged; it is in the worker channel of that name + '.dead'.",
}
# Every reason there is; the last is of sends that failed after a commit, which say so themselves.
REASONS = (*_WHY, "publish_failed")


def resolve_hook(hook: Any) -> Callable[..., None] | None:
    """Turn an option's value into a callable: one as it is, a dotted path imported, None left alone."""
    if hook is None or callable(hook):
        return hook  # type: ignore[no-any-return]
    module, _, name = hook.rpartition(".")
    return getattr(importlib.import_module(module), name)  # type: ignore[no-any-return]
