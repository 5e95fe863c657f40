"""Antiphon: real-time group messaging for Python web applications.

Put connections into named groups, send one message to a group from anywhere, and every member gets it, in order.
Importing it loads no settings and no web framework.
"""

from __future__ import annotations

import logging

from .compat import install_as_channels
from .layer.registry import DEFAULT_CHANNEL_LAYER, configure, get_channel_layer
from .layer.sync import close_channel, close_session, close_user, group_send, groups_send, send, user_send
from .types import Position, Receipt

__version__ = "0.1.0"

__all__ = [
    "DEFAULT_CHANNEL_LAYER",
    "Position",
    "Receipt",
    "close_channel",
    "close_session",
    "close_user",
    "configure",
    "get_channel_layer",
    "group_send",
    "groups_send",
    "install_as_channels",
    "send",
    "user_send",
]

# Quiet by default: an application that configures no logging sees nothing of ours.
logging.getLogger("antiphon").addHandler(logging.NullHandler())
