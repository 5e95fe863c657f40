"""The opening handshake (RFC 6455, section 4.2): what a client asks for, and the answer. Does no I/O.

The HTTP server in front has parsed the request once and checked its syntax; what reaches us is its own rendering of it.
"""

from __future__ import annotations

import base64
import binascii
import hashlib
import re
from collections.abc import Iterable
from http import HTTPStatus
from typing import Any, NamedTuple
from urllib.parse import unquote

__all__ = [
    "HEAD_BYTES_MAX",
    "BadRequest",
    "Headers",
    "Request",
    "accepted",
    "checked",
    "parse_request",
    "refused",
    "request_of",
]

_GUID = b"258EAFA5-E914-47DA-95CA-C5AB0DC85B11"
Headers = list[tuple[bytes, bytes]]

_OWN = frozenset((b"connection", b"upgrade", b"host"))
# https://www.rfc-editor.org/rfc/rfc9110#section-5.6.2
_TOKEN = re.compile(rb"[!#$%&'*+\-.^_`|~0-9A-Za-z]+").fullmatch
_CONTROL = re.compile(rb"[\x00-\x08\x0a-\x1f\x7f]").search
# Printable ASCII: what else a path has is quoted (RFC 3986), and this is what a log shows.
_TARGET = re.compile(rb"[!-~]+").fullmatch
# What an accept says itself; an application that says it too would say it twice.
_RESERVED = frozenset((
    b"connection", b"upgrade", b"sec-websocket-accept", b"sec-websocket-extensions", b"sec-websocket-protocol",
))  # fmt: skip
_FRAMING = frozenset((b"connection", b"content-length", b"transfer-encoding"))


class BadRequest(Exception):
    """A handshake that cannot succeed. ``status``; ``headers``: what the answer must say beside it."""

    def __init__(self, status: int, why: str, headers: Iterable[tuple[bytes, bytes]] = ()) -> None:
        super().__init__(why)
        self.status = status
        self.headers = list(headers)


class Request(NamedTuple):
    """What a client asks for. ``key``: its Sec-WebSocket-Key; ``extensions``: what it offers, unparsed."""

    target: bytes
    headers: Headers
    key: bytes
    subprotocols: list[str]
    extensions: str

    @property
    def path(self) -> str:
        """The path, unquoted."""
        return unquote(self.target.partition(b"?")[0].decode("latin-1"))


# Headers of which many clients send the same: every open connection keeps its headers, so equal ones are one object.
# None that is secret, or another for each client.
_COMMON = frozenset((
    b"host", b"connection", b"upgrade", b"origin", b"user-agent", b"pragma", b"cache-control", b"accept",
    b"accept-encoding", b"accept-language", b"sec-websocket-version", b"sec-websocket-extensions",
    b"sec-websocket-protocol", b"sec-fetch-dest", b"sec-fetch-mode", b"sec-fetch-site", b"x-forwarded-proto",
))  # fmt: skip
# Of the others at least the name.
_NAMES = {name: name for name in (b"cookie", b"authorization", b"sec-websocket-key", b"x-forwarded-for", b"x-real-ip")}
_SHARED_MAX, _SHARED_BYTES = 512, 512
# A request's head may have so much; uvicorn's own parsers have limits near it, where they have one.
HEAD_BYTES_MAX = 1 << 16
_shared: dict[tuple[bytes, bytes], tuple[bytes, bytes]] = {}


def _kept(header: tuple[bytes, bytes]) -> tuple[bytes, bytes]:
    """Return the header as it is kept: the one that another connection has, where they are the same."""
    name, value = header
    if name not in _COMMON or len(value) > _SHARED_BYTES:
        return (_NAMES[name], value) if name in _NAMES else header
    found = _shared.get(header)
    if found is None:
        if len(_shared) >= _SHARED_MAX:
            _shared.clear()  # somebody sends ever new ones; what is in use fills it again
        found = _shared[header] = header
    return found


def parse_request(head: bytes, headers_max: int) -> Request:
    """Parse a request's head, without the empty line. Raises BadRequest."""
    first, *lines = head.split(b"\r\n")
    method, _, rest = first.partition(b" ")
    target, _, version = rest.rpartition(b" ")
    headers: Headers = []
    for line in lines[: headers_max + 1]:
        name, colon, value = line.partition(b":")
        if not colon or not _TOKEN(name):  # a folded line begins with a space, which is in no name
            raise BadRequest(400, "a header that is none")
        headers.append((name.lower(), value.strip(b" \t")))
    return request_of(method, target, version, headers, headers_max)


def request_of(method: bytes, target: bytes, version: bytes, headers: Headers, headers_max: int) -> Request:
    """Return what a request asks for. ``headers``: their names in lower case. Raises BadRequest."""
    if len(headers) > headers_max:
        raise BadRequest(431, f"more than {headers_max} headers")
    if method != b"GET":
        raise BadRequest(405, "a WebSocket is opened with GET", [(b"allow", b"GET")])
    if version != b"HTTP/1.1":
        raise BadRequest(505, "a WebSocket is opened with HTTP/1.1")
    if not _TARGET(target):
        raise BadRequest(400, "a target that is no path")
    kept: Headers = []
    # What the handshake itself is about.
    own: dict[bytes, list[bytes]] = {}
    size = len(target)
    for header in headers:
        found = _shared.get(header)
        if found is None:  # another connection's was looked at then
            if _CONTROL(header[1]):
                raise BadRequest(400, "a header with a control character")
            size += len(header[0]) + len(header[1])
            if size > HEAD_BYTES_MAX:
                raise BadRequest(431, "the request's head is too long")
            found = _kept(header)
        kept.append(found)
        name, value = found
        if name in _OWN or name[:14] == b"sec-websocket-":
            own.setdefault(name, []).append(value)
    _check(own)
    extensions = own.get(b"sec-websocket-extensions")
    return Request(
        target if target[:1] == b"/" else _origin_form(target),
        kept,
        own[b"sec-websocket-key"][0],
        _tokens(own.get(b"sec-websocket-protocol", [])),
        b",".join(extensions).decode("latin-1") if extensions else "",
    )


def _check(own: dict[bytes, list[bytes]]) -> None:
    """Refuse what asks for no WebSocket, or for one that we do not speak."""
    connection = b",".join(own.get(b"connection", ())).lower().split(b",")
    upgrade = b",".join(own.get(b"upgrade", ())).lower().split(b",")
    if b"websocket" not in map(bytes.strip, upgrade) or b"upgrade" not in map(bytes.strip, connection):
        raise BadRequest(426, "not a request for a WebSocket", [(b"upgrade", b"websocket")])
    if len(own.get(b"host", ())) != 1:
        raise BadRequest(400, "a request has one Host")
    if own.get(b"sec-websocket-version") != [b"13"]:
        raise BadRequest(400, "Sec-WebSocket-Version must be 13", [(b"sec-websocket-version", b"13")])
    keys = own.get(b"sec-websocket-key", ())
    try:
        good = len(keys) == 1 and len(base64.b64decode(keys[0], validate=True)) == 16
    except binascii.Error:
        good = False
    if not good:
        raise BadRequest(400, "Sec-WebSocket-Key must be 16 bytes as base64, once")


def _origin_form(target: bytes) -> bytes:
    """Return path and query of a target; a proxy may send a whole address (RFC 9112, section 3.2.2)."""
    scheme, separator, rest = target.partition(b"://")
    if not separator or not scheme.isalpha():
        raise BadRequest(400, "a target that is no path")
    before, mark, query = rest.partition(b"?")  # first: a query may have slashes
    return b"/" + before.partition(b"/")[2] + mark + query


def _tokens(values: list[bytes]) -> list[str]:
    """Return the subprotocols that a client offers."""
    if not values:
        return []
    try:
        offered = b",".join(values).decode("ascii")
    except UnicodeDecodeError:
        raise BadRequest(400, "a subprotocol that is not ASCII") from None
    return [token for token in (part.strip() for part in offered.split(",")) if token]


def checked(headers: Iterable[tuple[Any, Any]], *, accept: bool) -> Headers:
    """Return the headers that an application wants sent, names in lower case.

    Raises ValueError for one that cannot be sent: no name, a line break or another control character in its value; for
    ``accept`` also one that is part of the handshake.
    """
    found: Headers = []
    for name, value in headers:
        if not isinstance(name, bytes) or not isinstance(value, bytes):
            raise ValueError(f"header {name!r:.80}: expected name and value as bytes; got {value!r:.80}")
        if not _TOKEN(name):
            raise ValueError(f"header {name!r:.80}: not the name of a header")
        if _CONTROL(value):
            raise ValueError(f"header {name!r:.80}: control characters in its value {value!r:.80}")
        if accept and name.lower() in _RESERVED:
            more = ": use the subprotocol of accept()" if name.lower() == b"sec-websocket-protocol" else ""
            raise ValueError(f"header {name!r}: the server says it itself{more}")
        found.append((name.lower(), value))
    return found


def accepted(key: bytes, headers: Iterable[tuple[bytes, bytes]]) -> bytes:
    """Return the answer that opens the WebSocket."""
    proof = base64.b64encode(hashlib.sha1(key + _GUID, usedforsecurity=False).digest())
    lines = [
        b"HTTP/1.1 101 Switching Protocols\r\nupgrade: websocket\r\nconnection: Upgrade\r\nsec-websocket-accept: ", proof
    ]  # fmt: skip
    for name, value in headers:
        lines += (b"\r\n", name, b": ", value)
    lines.append(b"\r\n\r\n")
    return b"".join(lines)


def refused(status: int, headers: Iterable[tuple[bytes, bytes]], body: bytes) -> bytes:
    """Return an HTTP answer that ends the connection. Raises ValueError for a status that cannot."""
    if not 200 <= status <= 599:
        raise ValueError(f"status: expected 200 to 599; got {status!r}")
    # How long it is, and that nothing follows, is ours to say.
    lines = [(name, value) for name, value in headers if name not in _FRAMING]
    if status in (204, 304):
        body = b""  # https://www.rfc-editor.org/rfc/rfc9110#section-6.4.1
    else:
        lines.append((b"content-length", b"%d" % len(body)))
        if body and all(name != b"content-type" for name, _ in lines):
            lines.append((b"content-type", b"text/plain; charset=utf-8"))
    lines.append((b"connection", b"close"))
    try:
        phrase = HTTPStatus(status).phrase
    except ValueError:
        phrase = ""
    said = [b"HTTP/1.1 %d %s" % (status, phrase.encode()), *(name + b": " + value for name, value in lines)]
    return b"\r\n".join(said) + b"\r\n\r\n" + body
