"""Cookies and sessions: the public door of :mod:`antiphon.django.sessions`."""

from __future__ import annotations

from .django.sessions import (
    CookieMiddleware,
    InstanceSessionWrapper,
    SessionMiddleware,
    SessionMiddlewareStack,
    save_session,
)

__all__ = ["CookieMiddleware", "InstanceSessionWrapper", "SessionMiddleware", "SessionMiddlewareStack", "save_session"]
