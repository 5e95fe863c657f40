"""The part of a scope that follows from an address. Knows no application."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any
from urllib.parse import unquote, urlsplit

from .application import SPEC_VERSION

__all__ = ["scope_of"]


def scope_of(
    kind: str, address: str, headers: Iterable[tuple[bytes, bytes]] | None, schemes: tuple[str, str]
) -> dict[str, Any]:
    """Return the scope of a connection of ``kind`` (http, websocket) to ``address``: a path, or a whole URL.

    ``schemes``: the plain and the encrypted one.
    """
    if not isinstance(address, str):
        raise TypeError(f"Expected str, got {type(address)}")
    parts = urlsplit(address)
    encrypted = parts.scheme in ("https", "wss")
    # A path may look like a URL with a strange port ("user:pass@host:8080/x" is one): it is none without "//".
    host, port = (parts.hostname, parts.port) if parts.netloc else (None, None)
    return {
        "type": kind,
        "asgi": {"version": "3.0", "spec_version": SPEC_VERSION},
        "http_version": "1.1",
        "scheme": schemes[encrypted],
        "path": unquote(parts.path),
        "raw_path": parts.path.encode(),
        "root_path": "",
        "query_string": parts.query.encode(),
        "headers": list(headers or ()),
        "client": ("127.0.0.1", 50000),
        "server": (host or "testserver", port or (443 if encrypted else 80)),
    }
