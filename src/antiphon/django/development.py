"""What runserver puts around the project's application: a line a request, and help for WebSockets nobody serves."""

from __future__ import annotations

import logging
import re
from typing import Any, cast

from django.conf import settings
from django.core.handlers.asgi import ASGIHandler

from ..types import ASGIApplication, Receive, Scope, Send
from .denial import describe, refuse_websocket

__all__ = ["DevelopmentApplication"]

# The logger and the form of Django's own runserver, so that its formatter and colours apply.
requests = logging.getLogger("django.server")
logger = logging.getLogger("antiphon.server")

# A ticket opens a connection once, and one that was refused may still be good.
_TICKET = re.compile(r"((?:^|&)ticket=)[^&]*")


class DevelopmentApplication:
    """Log each request and each WebSocket; deny a WebSocket that would reach an application for HTTP alone."""

    def __init__(self, application: ASGIApplication, *, serve_static: bool = False) -> None:
        self.application = application
        # get_asgi_application() itself as ASGI_APPLICATION: it raises on anything but HTTP. Its subclass for static
        # files hands on what is not HTTP.
        self.http_only = isinstance(application, ASGIHandler) and not hasattr(application, "application")
        if serve_static:
            from django.contrib.staticfiles.handlers import ASGIStaticFilesHandler

            handler: Any = ASGIStaticFilesHandler(cast("ASGIHandler", application))
            self.application = handler

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> Any:
        """Serve one connection."""
        kind = scope["type"]
        if kind == "http":
            return await self.application(scope, receive, _logging_send(scope, send))
        if kind == "websocket":
            if self.http_only:
                logger.error(
                    "%s denied: %s serves HTTP alone. Build it with antiphon.routing.asgi_application([path(...)])",
                    describe(scope),
                    getattr(settings, "ASGI_APPLICATION", "the application"),
                )
                return await refuse_websocket(scope, receive, send)
            return await self.application(scope, receive, _logging_websocket_send(scope, send))
        return await self.application(scope, receive, send)


def _logging_send(scope: Scope, send: Send) -> Send:
    async def log_and_send(message: dict[str, Any]) -> Any:
        if message["type"] == "http.response.start":
            size = next((v.decode() for n, v in message.get("headers", ()) if n.lower() == b"content-length"), "-")
            _log(
                f"{scope.get('method', '')} {_target(scope)} HTTP/{scope.get('http_version', '1.1')}",
                message["status"],
                size,
            )
        return await send(message)

    return log_and_send


def _logging_websocket_send(scope: Scope, send: Send) -> Send:
    opened = False

    async def log_and_send(message: dict[str, Any]) -> Any:
        nonlocal opened
        kind = message["type"]
        if kind == "websocket.accept":
            opened = True
            _log(f"WebSocket {scope.get('path', '')}", 101, "open")
        elif kind == "websocket.close" and not opened:
            _log(f"WebSocket {scope.get('path', '')}", 403, "denied")
        elif kind == "websocket.http.response.start":
            _log(f"WebSocket {scope.get('path', '')}", message["status"], "denied")
        return await send(message)

    return log_and_send


def _target(scope: Scope) -> str:
    query = _TICKET.sub(r"\1***", scope.get("query_string", b"").decode("latin1"))
    return f"{scope.get('path', '')}?{query}" if query else str(scope.get("path", ""))


def _log(line: str, status: int, rest: str) -> None:
    level = logging.ERROR if status >= 500 else logging.WARNING if status >= 400 else logging.INFO
    # Escapes of a terminal that a client put into its path must not reach the terminal.
    safe = line.encode("unicode_escape").decode("ascii")
    requests.log(level, '"%s" %s %s', safe, status, rest, extra={"status_code": status})
