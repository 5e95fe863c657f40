"""What one client may ask of a connection: sizes and rates. Knows no event."""

from __future__ import annotations

import time
from collections.abc import Mapping
from typing import Any, NamedTuple
from weakref import WeakKeyDictionary

from .. import framework, options

__all__ = ["Limits", "RateLimit"]

_kept: WeakKeyDictionary[type, tuple[Mapping[str, Any], bool, Limits]] = WeakKeyDictionary()


class RateLimit:
    """A token bucket: ``count`` at once, refilled over ``seconds``."""

    __slots__ = ("_at_s", "_per_s", "_tokens", "count")

    def __init__(self, count: int, seconds: float) -> None:
        self.count = count
        self._per_s = count / seconds
        self._tokens = float(count)
        self._at_s = time.monotonic()

    def __repr__(self) -> str:
        return f"<RateLimit {self._tokens:.1f}/{self.count}>"

    def take(self) -> bool:
        """Take one token; False when there is none."""
        now = time.monotonic()
        self._tokens = min(self.count, self._tokens + (now - self._at_s) * self._per_s)
        self._at_s = now
        if self._tokens < 1.0:
            return False
        self._tokens -= 1.0
        return True


class Limits(NamedTuple):
    """The limits of a consumer class: its own attributes, else the options."""

    frames: int
    bytes: int
    message_bytes: int
    rate: tuple[int, float] | None
    per_user: int | None
    revalidate_s: float | None
    grace_s: float | None
    send_buffer_bytes: int

    @classmethod
    def of(cls, consumer: Any) -> Limits:
        """Return the limits of a consumer: those of its class, read once for as long as the options stay the same."""
        configured, compat = framework.current().options(), framework.compat
        kept = _kept.get(type(consumer))
        if kept is None or kept[0] is not configured or kept[1] is not compat:
            kept = _kept[type(consumer)] = (configured, compat, cls._read(type(consumer), compat))
        return kept[2]

    @classmethod
    def _read(cls, consumer: type, compat: bool) -> Limits:
        # Where Channels' ways hold there is no grace: nothing is cancelled.

        def value(name: str) -> Any:
            own = getattr(consumer, name, None)
            return options.get(name) if own is None else own

        receive_limit = getattr(consumer, "receive_limit", None) or (None, None)
        rate = value("rate_limit")
        return cls(
            frames=receive_limit[0] or options.get("receive_limit_frames"),
            bytes=receive_limit[1] or options.get("receive_limit_bytes"),
            message_bytes=value("max_message_bytes"),
            rate=options.parse_rate(rate) if rate is not None else None,
            per_user=value("max_connections_per_user"),
            revalidate_s=value("revalidate_interval_s"),
            grace_s=None if compat else value("disconnect_grace_s"),
            send_buffer_bytes=value("send_buffer_limit"),
        )
