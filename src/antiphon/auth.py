"""Users of connections, by session or by token: the public door of :mod:`antiphon.django.auth` and ``tokens``."""

from __future__ import annotations

from .django.auth import AuthMiddleware, AuthMiddlewareStack, UserLazyObject, get_user, login, logout
from .django.revoke import arevoke_user, revoke_user
from .django.subscription_tokens import connection_token, subscription_token
from .django.tokens import InvalidToken, TokenMiddleware, TokenMiddlewareStack, make_ticket, make_token

__all__ = [
    "AuthMiddleware",
    "AuthMiddlewareStack",
    "InvalidToken",
    "TokenMiddleware",
    "TokenMiddlewareStack",
    "UserLazyObject",
    "arevoke_user",
    "connection_token",
    "get_user",
    "login",
    "logout",
    "make_ticket",
    "make_token",
    "revoke_user",
    "subscription_token",
]
