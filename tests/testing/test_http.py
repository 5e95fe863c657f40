"""One HTTP request to an application in the test's process."""

from __future__ import annotations

from typing import Any

import pytest

from antiphon.testing import HttpCommunicator
from antiphon.types import Receive, Scope, Send


async def answer(scope: Scope, receive: Receive, send: Send) -> None:
    request = await receive()
    await send({"type": "http.response.start", "status": 201, "headers": [(b"x-method", scope["method"].encode())]})
    await send({"type": "http.response.body", "body": request["body"], "more_body": True})
    await send({"type": "http.response.body", "body": b"!"})


async def test_the_parts_of_a_response_are_put_together() -> None:
    communicator = HttpCommunicator(answer, "post", "/test/?foo=bar", b"hello")
    assert await communicator.get_response() == {"status": 201, "headers": [(b"x-method", b"POST")], "body": b"hello!"}
    await communicator.wait()


async def test_a_response_may_have_neither_headers_nor_body() -> None:
    async def bare(scope: Scope, receive: Receive, send: Send) -> None:
        await send({"type": "http.response.start", "status": 204})
        await send({"type": "http.response.body"})

    response = await HttpCommunicator(bare, "GET", "/").get_response()
    assert response == {"status": 204, "headers": [], "body": b""}


@pytest.mark.parametrize(
    ("address", "expected"),
    [
        ("/a%20b/?q=%20", {"path": "/a b/", "raw_path": b"/a%20b/", "query_string": b"q=%20", "scheme": "http"}),
        ("https://example.com/x", {"path": "/x", "scheme": "https", "server": ("example.com", 443)}),
        ("http://[::1]:8000/x;y", {"path": "/x;y", "server": ("::1", 8000), "client": ("127.0.0.1", 50000)}),
    ],
)
def test_the_scope_follows_the_address(address: str, expected: dict[str, Any]) -> None:
    scope = HttpCommunicator(answer, "get", address, headers=[(b"a", b"b")]).scope
    assert {name: scope[name] for name in expected} == expected
    assert scope["type"] == "http"
    assert scope["method"] == "GET"
    assert scope["headers"] == [(b"a", b"b")]
    assert scope["asgi"]["version"] == "3.0"


async def test_a_wrong_event_is_named() -> None:
    async def confused(scope: Scope, receive: Receive, send: Send) -> None:
        await send({"type": "http.response.body", "body": b""})

    with pytest.raises(AssertionError, match=r"Expected type 'http\.response\.start', but was 'http\.response\.body'"):
        await HttpCommunicator(confused, "GET", "/").get_response()


async def test_what_the_application_raises_is_raised_by_get_response() -> None:
    async def fails(scope: Scope, receive: Receive, send: Send) -> None:
        raise KeyError("mine")

    with pytest.raises(KeyError, match="mine"):
        await HttpCommunicator(fails, "GET", "/").get_response()


def test_a_body_of_text_is_refused() -> None:
    body: Any = "text"
    with pytest.raises(AssertionError, match="must be bytes"):
        HttpCommunicator(answer, "POST", "/", body)
