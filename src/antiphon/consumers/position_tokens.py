"""Tokens of positions, signed with the application's secret. Knows no consumer."""

from __future__ import annotations

from collections.abc import Iterable, Mapping

from .. import framework
from ..exceptions import TokenInvalid
from ..types import Position
from ..wire.position_token import read_positions, sign_positions

__all__ = ["NOWHERE", "position_token", "positions_of", "token_position"]

# A position that is none of any history: whoever comes with it must begin anew.
NOWHERE = Position("", 0)


def position_token(positions: Mapping[str, Position]) -> str:
    """Return a signed text for the positions of at most 32 groups: what a page keeps, and presents when it comes back.

    It is what ``{% group_position %}`` prints, and the id of the events of an ``EventStreamConsumer``.
    Raises ValueError for more groups.
    """
    return sign_positions(positions, framework.current().signing_keys()[0])


def positions_of(token: str, groups: Iterable[str]) -> dict[str, Position]:
    """Return the positions of ``groups`` that a token has. Raises TokenInvalid for one that was not made here."""
    return read_positions(token, groups, framework.current().signing_keys())


def token_position(token: str, group: str) -> Position:
    """Return the position of one group; NOWHERE for a token that was not made here, or not for this group."""
    try:
        return positions_of(token, (group,)).get(group, NOWHERE)
    except TokenInvalid:
        return NOWHERE
