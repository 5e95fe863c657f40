"""``OnlineUsers``: which users have connections on a node, and what of it the engine has not heard. Does no I/O."""

from __future__ import annotations

from itertools import islice

__all__ = ["OnlineUsers"]

# Users of one note.
NAMES = 250


class OnlineUsers:
    """The users of one node. Who has no connection any more is online until the grace is over."""

    def __init__(self) -> None:
        self._connections: dict[str, int] = {}
        self._coming: set[str] = set()
        self._going: dict[str, float] = {}  # and when

    def __repr__(self) -> str:
        return f"<OnlineUsers {len(self._connections)}>"

    def connected(self, user: str) -> None:
        """Count a connection."""
        count = self._connections[user] = self._connections.get(user, 0) + 1
        if count == 1 and self._going.pop(user, None) is None:
            self._coming.add(user)

    def disconnected(self, user: str, until_s: float) -> None:
        """Count one less; ``until_s``: when the grace is over."""
        self._connections[user] -= 1
        if not self._connections[user]:
            del self._connections[user]
            self._going[user] = until_s

    def tell_anew(self) -> None:
        """The engine has lost them all."""
        self._coming.update(self._connections)

    def next_s(self) -> float:
        """Return when there is something to tell, at the latest: at once as 0."""
        return 0.0 if self._coming else next(iter(self._going.values()), float("inf"))

    def untold(self, now: float) -> tuple[list[str], list[str]]:
        """Return who is to be noted as online and as offline now."""
        coming = list(islice(self._coming, NAMES))
        return coming, [user for user, until_s in islice(self._going.items(), NAMES) if until_s <= now]

    def told(self, coming: list[str], going: list[str]) -> None:
        """Learn that the engine has noted them."""
        self._coming.difference_update(coming)
        for user in going:
            if user in self._connections:
                self._coming.add(user)  # back meanwhile
            else:
                self._going.pop(user, None)
