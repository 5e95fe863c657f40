"""The opening handshake from raw bytes: what is taken, what is refused, and what an application may have said."""

from __future__ import annotations

import contextlib
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st
from websockets.client import ClientProtocol
from websockets.uri import parse_uri

from antiphon.server.handshake import BadRequest, accepted, checked, parse_request, refused
from tests.server.uvicorns import KEY

GOOD = {
    b"Host": b"example.org",
    b"Connection": b"keep-alive, Upgrade",
    b"Upgrade": b"WebSocket",
    b"Sec-WebSocket-Version": b"13",
    b"Sec-WebSocket-Key": KEY,
}


def head(*more: bytes, first: bytes = b"GET /chat?x=1 HTTP/1.1", **changed: bytes | None) -> bytes:
    """Return a good request's head, with headers changed or left out (None)."""
    headers = dict(GOOD)
    for name, value in changed.items():
        key = next(key for key in GOOD if key.lower().replace(b"-", b"_") == name.encode())
        if value is None:
            del headers[key]
        else:
            headers[key] = value
    return b"\r\n".join([first, *(name + b": " + value for name, value in headers.items()), *more])


def status(request: bytes, headers_max: int = 100) -> int:
    with pytest.raises(BadRequest) as caught:
        parse_request(request, headers_max)
    return caught.value.status


def test_a_request_is_taken_apart() -> None:
    request = parse_request(
        head(b"Cookie:  a=b ", b"Sec-WebSocket-Protocol: one, two", b"Sec-WebSocket-Protocol: three"), 100
    )
    assert request.path == "/chat"
    assert request.target == b"/chat?x=1"
    assert (b"cookie", b"a=b") in request.headers
    assert request.subprotocols == ["one", "two", "three"]
    assert request.key == KEY


@pytest.mark.parametrize(
    ("target", "path", "kept"),
    [
        (b"/a%20b%C3%BC", "/a bü", b"/a%20b%C3%BC"),
        (b"http://example.org/x?y", "/x", b"/x?y"),
        (b"ws://example.org", "/", b"/"),
        (b"ws://example.org?y=1", "/", b"/?y=1"),
    ],
)
def test_the_target_is_a_path_whatever_form_it_comes_in(target: bytes, path: str, kept: bytes) -> None:
    request = parse_request(head(first=b"GET " + target + b" HTTP/1.1"), 100)
    assert (request.path, request.target) == (path, kept)


@pytest.mark.parametrize(
    ("request_", "code"),
    [
        (head(first=b"POST / HTTP/1.1"), 405),
        (head(first=b"GET / HTTP/1.0"), 505),
        (head(first=b"GET"), 505),
        (head(first=b"GET * HTTP/1.1"), 400),
        (head(upgrade=None), 426),
        (head(upgrade=b"h2c"), 426),
        (head(connection=b"keep-alive"), 426),
        (head(host=None), 400),
        (head(b"Host: another.org"), 400),
        (head(sec_websocket_version=b"8"), 400),
        (head(sec_websocket_version=None), 400),
        (head(sec_websocket_key=None), 400),
        (head(sec_websocket_key=b"c2hvcnQ="), 400),
        (head(sec_websocket_key=b"!" * 24), 400),
        (head(b"Sec-WebSocket-Key: " + KEY), 400),
        (head(b"Sec-WebSocket-Protocol: caf\xe9"), 400),
        (head(b"no colon"), 400),
        (head(b" folded: line"), 400),
        (head(b"X: a\x00b"), 400),
        (head(b"X: a\nb"), 400),
        (head(*[b"X: y"] * 100), 431),
    ],
)
def test_what_is_no_good_request_is_refused(request_: bytes, code: int) -> None:
    assert status(request_) == code


@given(st.binary(max_size=300))
def test_whatever_comes_is_taken_or_refused(data: bytes) -> None:
    with pytest.raises(BadRequest):
        parse_request(data, 100)
    with contextlib.suppress(BadRequest):
        parse_request(head(data), 100)


def test_a_client_written_by_others_takes_the_answer() -> None:
    client = ClientProtocol(parse_uri("ws://example.org/"), subprotocols=["one"])  # type: ignore[list-item]
    request = client.connect()
    client.send_request(request)
    [data] = client.data_to_send()
    parsed = parse_request(bytes(data).removesuffix(b"\r\n\r\n"), 100)
    client.receive_data(accepted(parsed.key, [(b"sec-websocket-protocol", b"one"), (b"x-more", b"1")]))
    assert client.handshake_exc is None
    assert client.subprotocol == "one"


def test_the_proof_is_that_of_the_specification() -> None:
    # https://www.rfc-editor.org/rfc/rfc6455#section-1.3
    assert b"sec-websocket-accept: s3pPLMBiTxaQ9kYGzzhZRbK+xOo=\r\n" in accepted(KEY, [])


def test_a_refusal_ends_the_connection_and_says_how_long_it_is() -> None:
    assert refused(403, [(b"x-why", b"no")], b"go away") == (
        b"HTTP/1.1 403 Forbidden\r\nx-why: no\r\ncontent-length: 7\r\n"
        b"content-type: text/plain; charset=utf-8\r\nconnection: close\r\n\r\ngo away"
    )
    assert refused(599, [(b"content-type", b"a/b"), (b"content-length", b"0")], b"").startswith(b"HTTP/1.1 599 \r\n")


@pytest.mark.parametrize(
    "header",
    [
        (b"x", b"a\r\nset-cookie: b"),
        (b"x", b"a\nb"),
        (b"x", b"a\x00"),
        (b"x: y\r\nz", b"1"),
        (b"", b"1"),
        (b"a b", b"1"),
        ("text", b"1"),
        (b"x", "text"),
    ],
)
def test_a_header_that_cannot_be_sent_is_refused_at_the_call(header: Any) -> None:
    with pytest.raises(ValueError, match="header"):
        checked([header], accept=False)


@pytest.mark.parametrize("name", [b"Upgrade", b"connection", b"Sec-WebSocket-Accept", b"sec-websocket-extensions"])
def test_what_the_server_says_itself_an_accept_may_not_say(name: bytes) -> None:
    with pytest.raises(ValueError, match="the server says it itself"):
        checked([(name, b"x")], accept=True)


def test_a_subprotocol_is_chosen_by_accept_not_by_a_header() -> None:
    with pytest.raises(ValueError, match="use the subprotocol"):
        checked([(b"Sec-WebSocket-Protocol", b"x")], accept=True)
