"""Whose connections were closed lately. Knows no connection.

A browser that reconnects at the moment of a log-out may have been let in before it and be in no table yet when the
sockets are closed. So each connection, once it is in the table, asks what was closed since it was let in.
"""

from __future__ import annotations

import time

__all__ = ["Revocations"]

# Longer than any handshake takes from its authentication to its place in the table.
KEPT_S = 60.0


class Revocations:
    """The closes of the last minute, by user and by session. Safe from any thread."""

    def __init__(self) -> None:
        self._closed: dict[tuple[str, str], tuple[float, str]] = {}

    def __repr__(self) -> str:
        return f"<Revocations {len(self._closed)}>"

    def add(self, kind: str, key: str, reason: str, *, age_s: float = 0.0) -> None:
        """Remember that all connections of a user or session (``kind``) were closed, now or ``age_s`` ago."""
        now = time.monotonic()
        known = self._closed.get((kind, key))
        if known is not None and known[0] > now - age_s:
            return
        # Nearly in the order of their times, so the old ones are the first: each is dropped once.
        self._closed.pop((kind, key), None)
        self._closed[kind, key] = (now - age_s, reason)
        for old, (at, _) in list(self._closed.items()):
            if at >= now - KEPT_S:
                break
            self._closed.pop(old, None)

    def recent(self, seconds: float) -> list[tuple[str, str, str, float]]:
        """Return [(kind, key, reason, age in seconds)] of what was closed in the last ``seconds``."""
        now = time.monotonic()
        return [
            (kind, key, reason, now - at)
            for (kind, key), (at, reason) in list(self._closed.items())
            if now - at <= seconds
        ]

    def since(self, user: str | None, session: str | None, since_s: float) -> str | None:
        """Return the reason of a close after ``since_s``, if there was one."""
        if not self._closed:
            return None
        for identity in (("user", user or ""), ("session", session or "")):
            found = self._closed.get(identity)
            if found is not None and found[0] >= since_s:
                return found[1]
        return None
