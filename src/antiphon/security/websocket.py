"""The origin check: the public door of :mod:`antiphon.django.security`."""

from __future__ import annotations

from ..django.security import AllowedHostsOriginValidator, OriginValidator, WebsocketDenier

__all__ = ["AllowedHostsOriginValidator", "OriginValidator", "WebsocketDenier"]
