"""Tools for the tests of applications: communicators, captured messages, a layer a test, a live server.

Needs no server and no framework to be imported. What is built on Django's test cases is loaded when it is asked for.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from .application import ApplicationCommunicator
from .capture import CapturedMessage, CapturedMessages, GroupMessagesMixin, capture_messages
from .http import HttpCommunicator
from .layer import fresh_layer
from .server import LiveServer
from .websocket import WebsocketCommunicator

if TYPE_CHECKING:
    from .live import ChannelsLiveServerTestCase as ChannelsLiveServerTestCase
    from .live import LiveServerTestCase as LiveServerTestCase
    from .suite import EngineSuite as EngineSuite

# Without the names that need Django: "import *" must work where it is not installed.
__all__ = [
    "ApplicationCommunicator",
    "CapturedMessage",
    "CapturedMessages",
    "GroupMessagesMixin",
    "HttpCommunicator",
    "LiveServer",
    "WebsocketCommunicator",
    "capture_messages",
    "fresh_layer",
]


def __getattr__(name: str) -> Any:
    if name in ("ChannelsLiveServerTestCase", "LiveServerTestCase"):
        from . import live

        return getattr(live, name)
    if name == "EngineSuite":  # for the authors of engines alone
        from .suite import EngineSuite

        return EngineSuite
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
