"""Antiphon: real-time group messaging for Python web applications.

Put connections into named groups, send one message to a group from anywhere, and every member gets it, in order.
Importing it loads no settings and no web framework.
"""

from __future__ import annotations

import logging
from typing import TYPE_CHECKING, Any

from .compat import install_as_channels
from .layer.registry import DEFAULT_CHANNEL_LAYER, configure, get_channel_layer
from .layer.sync import (
    close_channel,
    close_session,
    close_user,
    disconnect_user,
    group_send,
    groups_send,
    online,
    presence,
    presence_stats,
    recheck_user,
    send,
    unsubscribe_user,
    user_send,
)
from .types import Position, Receipt

if TYPE_CHECKING:
    from .consumers.relay import relay

__version__ = "0.1.0"

__all__ = [
    "DEFAULT_CHANNEL_LAYER",
    "Position",
    "Receipt",
    "close_channel",
    "close_session",
    "close_user",
    "configure",
    "disconnect_user",
    "get_channel_layer",
    "group_send",
    "groups_send",
    "install_as_channels",
    "online",
    "presence",
    "presence_stats",
    "recheck_user",
    "relay",
    "send",
    "unsubscribe_user",
    "user_send",
]

# Quiet by default: an application that configures no logging sees nothing of ours.
logging.getLogger("antiphon").addHandler(logging.NullHandler())


def __getattr__(name: str) -> Any:
    # Consumers are loaded by those who write them, not by everybody who sends.
    if name == "relay":
        from .consumers.relay import relay

        return relay
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
