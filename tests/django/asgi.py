"""A server of one connection: plays events to an ASGI application, and returns what it sent."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable
from typing import Any

import django.urls

# The stubs know views alone; routers take any ASGI application.
path: Any = django.urls.path
re_path: Any = django.urls.re_path

CONNECT = {"type": "websocket.connect"}


async def play(
    app: Callable[..., Awaitable[Any]], scope: dict[str, Any], *events: dict[str, Any]
) -> list[dict[str, Any]]:
    """Run ``app`` over ``events`` (by default, what opens a connection of the scope's type)."""
    if not events:
        events = (CONNECT,) if scope["type"] == "websocket" else ({"type": "http.request", "body": b""},)
    waiting = list(events)
    sent: list[dict[str, Any]] = []

    async def receive() -> dict[str, Any]:
        if waiting:
            return waiting.pop(0)
        await asyncio.Event().wait()
        raise AssertionError

    async def send(message: dict[str, Any]) -> None:
        sent.append(message)

    await asyncio.wait_for(app(scope, receive, send), 30)
    return sent


def websocket(path: str = "/", **more: Any) -> dict[str, Any]:
    """Return the scope of a WebSocket."""
    return {"type": "websocket", "path": path, "headers": [], "subprotocols": [], "query_string": b"", **more}


def http(path: str = "/", **more: Any) -> dict[str, Any]:
    """Return the scope of an HTTP request."""
    scope = {"type": "http", "method": "GET", "http_version": "1.1", "path": path, "headers": [], "query_string": b""}
    return {**scope, **more}


class _Recorder:
    """An application that notes its scopes, accepts WebSockets and answers requests."""

    def __init__(self, name: str = "app", subprotocol: str | None = None) -> None:
        self.name = name
        self.subprotocol = subprotocol
        self.scopes: list[dict[str, Any]] = []

    async def __call__(self, scope: dict[str, Any], receive: Any, send: Any) -> str:
        self.scopes.append(scope)
        if scope["type"] == "websocket":
            await receive()
            await send({"type": "websocket.accept", "subprotocol": self.subprotocol})
        elif scope["type"] == "http":
            await send({"type": "http.response.start", "status": 200, "headers": []})
            await send({"type": "http.response.body", "body": self.name.encode()})
        return self.name

    @property
    def scope(self) -> dict[str, Any]:
        """The one scope it saw."""
        [scope] = self.scopes
        return scope


# Untyped on purpose, so that a test may put it wherever an application goes.
Recorder: Any = _Recorder

DENIED: list[dict[str, Any]] = [{"type": "websocket.close"}]
