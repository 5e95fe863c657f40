"""The numbers of the Centrifuge protocol: errors of commands, why a connection ends, why a subscription does.

They are those of the Go server (https://github.com/centrifugal/centrifuge, errors.go, disconnect.go, unsubscribe.go):
the official clients know their ranges. Whatever this library tells such a client stands here, or in the application.
"""

from __future__ import annotations

from typing import Any, NamedTuple

__all__ = ["DISCONNECTS", "ERRORS", "UNSUBSCRIBES", "Disconnect", "Error", "Unsubscribe"]


class Error(NamedTuple):
    """What a command is answered with that could not be carried out. ``temporary``: the client tries again."""

    code: int
    message: str
    temporary: bool = False

    def content(self) -> dict[str, Any]:
        """Return it as it stands in a reply."""
        content: dict[str, Any] = {"code": self.code, "message": self.message}
        return {**content, "temporary": True} if self.temporary else content


class Disconnect(NamedTuple):
    """Why a connection is closed. 3500 to 3999 and 4500 to 4999 are final: the client does not come back by itself."""

    code: int
    reason: str

    @property
    def final(self) -> bool:
        """Whether the client stays away."""
        return 3500 <= self.code <= 3999 or 4500 <= self.code <= 4999


class Unsubscribe(NamedTuple):
    """Why a subscription has ended. From 2500 on the client subscribes again at once, with its position."""

    code: int
    reason: str


ERRORS: dict[str, Error] = {
    "internal": Error(100, "internal server error", temporary=True),
    "unauthorized": Error(101, "unauthorized"),
    "unknown_channel": Error(102, "unknown channel"),
    "permission_denied": Error(103, "permission denied"),
    "method_not_found": Error(104, "method not found"),
    "already_subscribed": Error(105, "already subscribed"),
    "limit_exceeded": Error(106, "limit exceeded"),
    "bad_request": Error(107, "bad request"),
    "not_available": Error(108, "not available"),
    "token_expired": Error(109, "token expired"),
    "expired": Error(110, "expired"),
    "too_many_requests": Error(111, "too many requests", temporary=True),
    "unrecoverable": Error(112, "unrecoverable position"),
}

# The reasons of ``wire.codes`` have their numbers in its table; these are what this protocol alone knows.
DISCONNECTS: dict[str, Disconnect] = {
    "expired": Disconnect(3005, "connection expired"),
    "no_pong": Disconnect(3012, "no pong"),
    "too_many_requests": Disconnect(3013, "too many requests"),
    "state_invalidated": Disconnect(3014, "state invalidated"),
    "invalid_token": Disconnect(3500, "invalid token"),
    "bad_request": Disconnect(3501, "bad request"),
    "stale": Disconnect(3502, "stale"),
    "inappropriate_protocol": Disconnect(3506, "inappropriate protocol"),
}

UNSUBSCRIBES: dict[str, Unsubscribe] = {
    "server": Unsubscribe(2000, "server unsubscribe"),
    "permission_lost": Unsubscribe(2003, "permission denied"),
    "insufficient_state": Unsubscribe(2500, "insufficient state"),
    "expired": Unsubscribe(2501, "subscription expired"),
    "state_invalidated": Unsubscribe(2502, "state invalidated"),
}
