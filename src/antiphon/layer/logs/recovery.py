"""``Recovery``: what came of recovering."""

from __future__ import annotations

from typing import NamedTuple

from ...envelope import HeadedEnvelope
from ...types import Position

__all__ = ["Recovery"]


class Recovery(NamedTuple):
    """What a member gets when it joins with a position: all that it missed, or nothing.

    ``position``: it is live from there on. ``envelopes``: what it missed, in order.
    """

    recovered: bool
    position: Position
    envelopes: list[HeadedEnvelope]
