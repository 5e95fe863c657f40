"""How a connection is refused before any application of the user sees it. Knows neither Django nor a consumer."""

from __future__ import annotations

from http import HTTPStatus
from typing import Any

from ..types import Receive, Scope, Send

__all__ = ["describe", "not_found", "refuse_http", "refuse_websocket"]


async def refuse_websocket(
    scope: Scope,
    receive: Receive,
    send: Send,
    *,
    status: int = 403,
    code: int | None = None,
    headers: tuple[tuple[bytes, bytes], ...] = (),
) -> None:
    """Deny a WebSocket before it is accepted.

    With ``status`` where the server offers the ASGI extension "Websocket Denial Response"; else the server answers
    403 whatever ``code`` says, because a close code cannot travel before the handshake is over.
    """
    await receive()  # websocket.connect, which must come before any answer
    if status != 403 and "websocket.http.response" in (scope.get("extensions") or {}):
        await _respond(send, "websocket.http.response", status, headers)
        return
    close: dict[str, Any] = {"type": "websocket.close"}
    if code is not None:
        close["code"] = code
    await send(close)


async def refuse_http(send: Send, *, status: int, headers: tuple[tuple[bytes, bytes], ...] = ()) -> None:
    """Answer an HTTP request with the bare ``status``."""
    await _respond(send, "http.response", status, headers)


async def not_found(scope: Scope, receive: Receive, send: Send) -> None:
    """Say that nothing is at this path."""
    if scope["type"] == "websocket":
        await refuse_websocket(scope, receive, send)
    else:
        await refuse_http(send, status=404)


async def _respond(send: Send, kind: str, status: int, headers: tuple[tuple[bytes, bytes], ...]) -> None:
    body = HTTPStatus(status).phrase.encode()
    start = [(b"content-type", b"text/plain"), (b"content-length", str(len(body)).encode()), *headers]
    await send({"type": f"{kind}.start", "status": status, "headers": start})
    await send({"type": f"{kind}.body", "body": body})


def describe(scope: Scope) -> str:
    """Name a connection in a log line: ``WebSocket '/ws/chat/'``. Control characters are escaped, length is bounded."""
    kind = {"websocket": "WebSocket", "http": "HTTP request"}.get(scope.get("type", ""), str(scope.get("type")))
    return f"{kind} {scope.get('path', '')!r:.200}"
