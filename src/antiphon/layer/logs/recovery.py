"""``Recovery``: what came of recovering."""

from __future__ import annotations

from typing import NamedTuple

from ...envelope import HeadedEnvelope
from ...types import Position

__all__ = ["Recovery"]


class Recovery(NamedTuple):
    """What a member gets when it joins with a position: all that it missed, or nothing.

    ``position``: it is live from there on. ``envelopes``: what it missed, in order. ``recovered`` and ``position`` are
    None for who has left meanwhile, or was put out: that is no member, and gets nothing.
    """

    recovered: bool | None
    position: Position | None
    envelopes: list[HeadedEnvelope]
