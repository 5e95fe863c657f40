"""What handshakes may not get past us: odd request lines, lines that are none, answers that would lie; and what is shared."""

from __future__ import annotations

from urllib.parse import unquote

import pytest

from antiphon.server import handshake
from antiphon.server.handshake import BadRequest, Request, parse_request, refused, request_of

KEY = b"dGhlIHNhbXBsZSBub25jZQ=="
ASKED = {
    b"Host": b"example.org",
    b"Connection": b"keep-alive, Upgrade",
    b"Upgrade": b"websocket",
    b"Sec-WebSocket-Version": b"13",
    b"Sec-WebSocket-Key": KEY,
}


def head(*more: bytes, first: bytes = b"GET /chat HTTP/1.1", **changed: bytes) -> bytes:
    """Return a request's head, with lines added, and headers changed (``_`` for ``-``)."""
    headers = dict(ASKED)
    headers.update({name.replace("_", "-").encode(): value for name, value in changed.items()})
    return b"\r\n".join([first, *(name + b": " + value for name, value in headers.items()), *more])


def asked(*more: bytes, first: bytes = b"GET /chat HTTP/1.1", **changed: bytes) -> Request:
    return parse_request(head(*more, first=first, **changed), 100)


def refusal(data: bytes, headers_max: int = 100) -> BadRequest:
    with pytest.raises(BadRequest) as caught:
        parse_request(data, headers_max)
    # Whatever is refused can be answered.
    assert refused(caught.value.status, caught.value.headers, str(caught.value).encode())
    return caught.value


# What is asked for


def test_a_request_that_was_parsed_already_is_read_as_its_text_is() -> None:
    headers = [(name.lower(), value) for name, value in ASKED.items()]
    assert request_of(b"GET", b"/chat", b"HTTP/1.1", headers, 100) == asked()


@pytest.mark.parametrize("path", ["/", "/%C3%A9", "/%ff", "/%", "/%zz", "/a%2Fb", "/a+b", "//a", "/%00"])
def test_paths_are_unquoted_as_uvicorn_does(path: str) -> None:
    assert asked(first=b"GET %s HTTP/1.1" % path.encode()).path == unquote(path)


@pytest.mark.parametrize(
    ("target", "expected"),
    [
        (b"http://example.org/a?b", b"/a?b"),
        (b"ws://example.org:80/a", b"/a"),
        (b"wss://example.org", b"/"),
        (b"http://example.org?b", b"/?b"),
        (b"http://example.org?b=/c", b"/?b=/c"),
    ],
)
def test_a_proxys_whole_address_becomes_a_path(target: bytes, expected: bytes) -> None:
    assert asked(first=b"GET " + target + b" HTTP/1.1").target == expected


@pytest.mark.parametrize(
    ("lines", "expected"),
    [
        ([b"chat, superchat"], ["chat", "superchat"]),
        ([b"chat", b"superchat,chat.v2"], ["chat", "superchat", "chat.v2"]),
        ([b"chat,,  ,superchat"], ["chat", "superchat"]),
        ([b""], []),
    ],
)
def test_subprotocols_are_those_of_all_lines_in_order(lines: list[bytes], expected: list[str]) -> None:
    assert asked(*(b"Sec-WebSocket-Protocol: " + line for line in lines)).subprotocols == expected


def test_extensions_are_those_of_all_lines_in_order() -> None:
    request = asked(b"Sec-WebSocket-Extensions: one; a=b", b"sec-websocket-extensions: two")
    assert request.extensions == "one; a=b,two"


@pytest.mark.parametrize("connection", [b"upgrade", b"Upgrade", b"keep-alive,UPGRADE", b" upgrade , x"])
@pytest.mark.parametrize("upgrade", [b"websocket", b"WebSocket", b"h2c, websocket"])
def test_tokens_are_read_in_any_case_and_company(connection: bytes, upgrade: bytes) -> None:
    assert asked(Connection=connection, Upgrade=upgrade).key == KEY


# What is refused


@pytest.mark.parametrize(
    ("first", "status"),
    [
        (b"POST / HTTP/1.1", 405),
        (b"get / HTTP/1.1", 405),
        (b"", 405),
        (b"GET", 505),
        (b"GET / HTTP/1.0", 505),
        (b"GET / HTTP/2", 505),
        (b"GET  HTTP/1.1", 400),
        (b"GET  / HTTP/1.1", 400),
        (b"GET /a b HTTP/1.1", 400),
        (b"GET /a\x00b HTTP/1.1", 400),
        (b"GET /a\nX: y HTTP/1.1", 400),
        ("GET /é HTTP/1.1".encode(), 400),
        (b"GET * HTTP/1.1", 400),
        (b"GET example.org:80 HTTP/1.1", 400),
        (b"GET chat HTTP/1.1", 400),
    ],
)
def test_other_request_lines_are_refused(first: bytes, status: int) -> None:
    assert refusal(head(first=first)).status == status


@pytest.mark.parametrize("name", [b"Host", b"Sec-WebSocket-Version", b"Sec-WebSocket-Key"])
def test_what_stands_once_may_not_stand_twice(name: bytes) -> None:
    assert refusal(head(name + b": " + ASKED[name])).status == 400


@pytest.mark.parametrize("key", [b"", b"short", b"AAAA", KEY[:-1], KEY + b"AAAA", b"!" * 24, b"\xff" * 24])
def test_a_key_is_sixteen_bytes(key: bytes) -> None:
    assert refusal(head(Sec_WebSocket_Key=key)).status == 400


@pytest.mark.parametrize(
    "line",
    [
        b" folded: onto the line before",
        b"\tfolded",
        b"no colon",
        b": no name",
        b"space before : colon",
        b"n\xc3\xa4me: x",
        b"x: nul\x00",
        b"x: a\rb",
        b"x: a\nb",
        b"x: \x7f",
        b"",
        "Sec-WebSocket-Protocol: café".encode(),
    ],
)
def test_lines_that_are_no_headers_are_refused(line: bytes) -> None:
    assert refusal(head(line)).status == 400


def test_so_many_headers_and_no_more() -> None:
    lines = [b"x-%d: y" % number for number in range(20 - len(ASKED))]
    assert len(parse_request(head(*lines), 20).headers) == 20
    assert refusal(head(*lines, b"one: more"), 20).status == 431


# What is kept


def test_connections_share_the_headers_that_are_the_same() -> None:
    agent = b"User-Agent: Mozilla/5.0 (X11; Linux x86_64)"
    one, other = asked(agent, b"Cookie: secret=1"), asked(agent, b"Cookie: secret=1")
    same = {mine[0] for mine, yours in zip(one.headers, other.headers, strict=True) if mine is yours}
    assert same == {b"host", b"connection", b"upgrade", b"sec-websocket-version", b"user-agent"}


def test_what_is_shared_is_bounded() -> None:
    for number in range(2000):
        asked(b"User-Agent: %d" % number, b"Origin: " + b"x" * 5000)
    assert len(handshake._shared) <= 512
    assert max(len(value) for _, value in handshake._shared) <= 512


# What is answered


def test_how_long_a_refusal_is_cannot_be_said_wrongly() -> None:
    said = [(b"content-length", b"99"), (b"transfer-encoding", b"chunked"), (b"connection", b"keep-alive")]
    assert refused(403, [*said, (b"content-type", b"text/html")], b"<p>") == (
        b"HTTP/1.1 403 Forbidden\r\ncontent-type: text/html\r\ncontent-length: 3\r\nconnection: close\r\n\r\n<p>"
    )


@pytest.mark.parametrize("status", [204, 304])
def test_a_status_without_a_body_has_none(status: int) -> None:
    assert refused(status, [], b"body").endswith(b"\r\nconnection: close\r\n\r\n")


@pytest.mark.parametrize("status", [0, 100, 101, 199, 600])
def test_a_status_that_ends_nothing_is_refused(status: int) -> None:
    with pytest.raises(ValueError, match=str(status)):
        refused(status, [], b"")


def test_a_status_without_a_name_is_sent() -> None:
    assert refused(499, [], b"").startswith(b"HTTP/1.1 499 \r\n")
