"""What a handshake becomes: the ASGI scope of a connection, and the bytes that accept it. Does no I/O."""

from __future__ import annotations

from collections.abc import Iterable
from typing import TYPE_CHECKING, Any

from uvicorn.protocols.utils import is_ssl

from ..types import Event
from ..wire.deflate import Setting, negotiate
from ..wire.prebuilt import EXTENSION
from .handshake import Request, accepted, checked

if TYPE_CHECKING:
    from .protocol import WebSocketProtocol

__all__ = ["answer", "scope_of"]


def scope_of(
    request: Request, protocol: WebSocketProtocol, app_state: dict[str, Any], server: Any, client: Any
) -> dict[str, Any]:
    """Return the scope of a connection, as uvicorn's own classes build it. ``server``, ``client``: addresses."""
    settings = protocol.settings
    raw_path, _, query = request.target.partition(b"?")
    root = settings.root_path
    return {
        "type": "websocket",
        "asgi": settings.asgi,
        "http_version": "1.1",
        "scheme": "wss" if is_ssl(protocol.transport) else "ws",
        "server": server,
        "client": client,
        "root_path": root,
        "path": root + request.path,
        "raw_path": root.encode() + raw_path if root else raw_path,
        "query_string": query,
        "headers": request.headers,
        "subprotocols": request.subprotocols,
        "state": app_state.copy(),
        "extensions": {"websocket.http.response": {}, EXTENSION: protocol},
    }


def answer(
    request: Request, event: Event, default_headers: Iterable[tuple[bytes, bytes]], *, deflate: bool
) -> tuple[bytes, Setting | None]:
    """Return the answer to ``websocket.accept`` and the setting of compression, if any.

    Raises ValueError for a subprotocol that was not offered, or a header that cannot be sent.
    """
    headers = list(default_headers)
    subprotocol = event.get("subprotocol")
    if subprotocol is not None:
        if subprotocol not in request.subprotocols:
            raise ValueError(
                f"accept: expected a subprotocol that the client offers, of {request.subprotocols}; got {subprotocol!r}"
            )
        headers.append((b"sec-websocket-protocol", subprotocol.encode("ascii")))  # they are parsed as that
    setting = None
    if deflate and request.extensions:
        agreed = negotiate(request.extensions)
        if agreed is not None:
            setting, said = agreed
            headers.append((b"sec-websocket-extensions", said.encode("ascii")))
    return accepted(request.key, [*headers, *checked(event.get("headers") or (), accept=True)]), setting
