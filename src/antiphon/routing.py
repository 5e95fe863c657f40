"""Routers, and the usual application in one line: the public door of :mod:`antiphon.django.routing`."""

from __future__ import annotations

from .django.routing import ChannelNameRouter, ProtocolTypeRouter, URLRouter, get_default_application
from .django.stack import asgi_application

__all__ = [
    "ChannelNameRouter",
    "ProtocolTypeRouter",
    "URLRouter",
    "asgi_application",
    "get_default_application",
]
