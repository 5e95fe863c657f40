"""``BaseMiddleware``: what an ASGI middleware of one's own can start from. Knows no framework."""

from __future__ import annotations

from typing import Any

from .types import ASGIApplication, Receive, Scope, Send

__all__ = ["BaseMiddleware"]


class BaseMiddleware:
    """Pass a copy of the scope to the inner application; a subclass changes the copy, or wraps send and receive.

    One instance serves every connection: what belongs to one connection goes into its scope, never onto ``self``.
    """

    def __init__(self, inner: ASGIApplication) -> None:
        self.inner = inner

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> Any:
        """Serve one connection."""
        return await self.inner(dict(scope), receive, send)
