"""``JoinResult``: what came of joining a group."""

from __future__ import annotations

from dataclasses import dataclass

from ..types import Position

__all__ = ["JoinResult"]


@dataclass(frozen=True, slots=True)
class JoinResult:
    """What ``join`` did.

    ``recovered``: True, everything since the position is on its way to the handlers, ``count`` messages; False, some of
    it is gone, nothing comes, and the page must reload; None, nothing was asked. ``position``: this connection gets
    whatever comes after it; None where the group has no history, and where the client has gone meanwhile or was put out
    of the group: then it is no member either.
    """

    group: str
    recovered: bool | None = None
    position: Position | None = None
    count: int = 0
