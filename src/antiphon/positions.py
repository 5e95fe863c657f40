"""Where groups stand: what a view reads before its data, so that nothing is lost between a page and its connection."""

from .consumers.position_tokens import position_token, positions_of, token_position
from .django.positions import group_positions

__all__ = ["group_positions", "position_token", "positions_of", "token_position"]
