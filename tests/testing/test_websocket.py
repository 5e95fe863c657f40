"""The client's end of a WebSocket to an application in the test's process."""

from __future__ import annotations

import asyncio
import json
from typing import Any

import pytest

from antiphon.testing import WebsocketCommunicator
from antiphon.types import Receive, Scope, Send


async def echo(scope: Scope, receive: Receive, send: Send) -> None:
    """Accept, send every frame back, and end with the client's disconnect."""
    assert (await receive())["type"] == "websocket.connect"
    await send(
        {"type": "websocket.accept", "subprotocol": next(iter(scope["subprotocols"]), None), "headers": [(b"x", b"y")]}
    )
    while (event := await receive())["type"] == "websocket.receive":
        await send({**event, "type": "websocket.send"})
    assert event["type"] == "websocket.disconnect"


async def test_frames_of_each_kind_come_back_empty_ones_too() -> None:
    communicator = WebsocketCommunicator(echo, "/ws/", subprotocols=["chat"])
    assert await communicator.connect() == (True, "chat")
    assert communicator.response_headers == [(b"x", b"y")]
    assert communicator.subprotocol == "chat"
    for frame in ("hello", ""):
        await communicator.send_to(text_data=frame)
        assert await communicator.receive_from() == frame
    for data in (b"w\0\0", b""):
        await communicator.send_to(bytes_data=data)
        assert await communicator.receive_from() == data
    await communicator.send_json_to({"a": [1]})
    assert await communicator.receive_json_from() == {"a": [1]}
    await communicator.disconnect()


@pytest.mark.parametrize(
    ("frame", "text"),
    [
        ({}, "exactly one of text_data or bytes_data"),
        ({"text_data": "a", "bytes_data": b"b"}, "exactly one of text_data or bytes_data"),
        ({"text_data": b"a"}, "text_data argument must be a str"),
        ({"bytes_data": "a"}, "bytes_data argument must be bytes"),
    ],
)
async def test_a_frame_is_text_or_bytes(frame: dict[str, Any], text: str) -> None:
    with pytest.raises(AssertionError, match=text):
        await WebsocketCommunicator(echo, "/").send_to(**frame)


async def test_a_timeout_of_receive_from_is_not_the_end() -> None:
    communicator = WebsocketCommunicator(echo, "/")
    await communicator.connect()
    with pytest.raises(TimeoutError):
        await communicator.receive_from(timeout=0.01)
    await communicator.send_to("still there")
    assert await communicator.receive_from() == "still there"
    await communicator.disconnect()


async def test_a_close_before_accept_is_a_denial_with_its_code() -> None:
    async def denies(scope: Scope, receive: Receive, send: Send) -> None:
        await receive()
        await send({"type": "websocket.close", **scope["path_params"]})

    for params, code in (({"code": 4003}, 4003), ({}, 1000)):
        communicator = WebsocketCommunicator(denies, "/")
        communicator.scope["path_params"] = params
        assert await communicator.connect() == (False, code)
        await communicator.wait()
        assert communicator.denial_response is None


async def test_a_denial_with_a_response_gives_status_headers_and_body() -> None:
    async def denies(scope: Scope, receive: Receive, send: Send) -> None:
        assert scope["extensions"] == {"websocket.http.response": {}}
        await receive()
        await send({"type": "websocket.http.response.start", "status": 403, "headers": [(b"a", b"b")]})
        await send({"type": "websocket.http.response.body", "body": b"not ", "more_body": True})
        await send({"type": "websocket.http.response.body", "body": b"you"})

    communicator = WebsocketCommunicator(denies, "/", extensions={"websocket.http.response": {}})
    assert await communicator.connect() == (False, 403)
    assert communicator.denial_response == {"status": 403, "headers": [(b"a", b"b")], "body": b"not you"}


async def test_a_close_in_place_of_a_frame_is_named() -> None:
    async def closes(scope: Scope, receive: Receive, send: Send) -> None:
        await receive()
        await send({"type": "websocket.accept"})
        await send({"type": "websocket.close"})

    communicator = WebsocketCommunicator(closes, "/")
    await communicator.connect()
    with pytest.raises(AssertionError) as info:
        await communicator.receive_from()
    assert str(info.value) == "Expected type 'websocket.send', but was 'websocket.close'"


async def test_expect_close_returns_code_and_reason() -> None:
    async def closes(scope: Scope, receive: Receive, send: Send) -> None:
        await receive()
        await send({"type": "websocket.accept"})
        await send({"type": "websocket.send", "text": "bye"})
        await send({"type": "websocket.close", "code": 4401, "reason": "who are you?"})

    communicator = WebsocketCommunicator(closes, "/")
    await communicator.connect()
    with pytest.raises(AssertionError, match=r"Expected type 'websocket\.close', but was 'websocket\.send'"):
        await communicator.expect_close()
    assert await communicator.expect_close() == (4401, "who are you?")
    await communicator.disconnect()


async def test_receive_until_drops_what_is_not_wanted_and_says_what_came() -> None:
    async with WebsocketCommunicator(echo, "/") as communicator:
        for number in range(5):
            await communicator.send_json_to({"n": number})
        assert await communicator.receive_until(lambda frame: json.loads(frame)["n"] == 3) == '{"n": 3}'
        with pytest.raises(TimeoutError, match=r"1 frames came that were not wanted, the last one '\{\"n\": 4\}'"):
            await communicator.receive_until(lambda frame: False, timeout=0.02)


async def test_an_application_that_raises_in_connect_raises_out_of_connect() -> None:
    async def fails(scope: Scope, receive: Receive, send: Send) -> None:
        await receive()
        raise LookupError("no such room")

    with pytest.raises(LookupError, match="no such room"):
        await WebsocketCommunicator(fails, "/").connect()


async def test_disconnect_raises_what_the_application_raises_while_it_ends() -> None:
    async def fails_late(scope: Scope, receive: Receive, send: Send) -> None:
        await receive()
        await send({"type": "websocket.accept"})
        await receive()
        raise LookupError("in disconnect")

    communicator = WebsocketCommunicator(fails_late, "/")
    await communicator.connect()
    with pytest.raises(LookupError, match="in disconnect"):
        await communicator.disconnect()


async def test_disconnect_says_when_the_application_does_not_end() -> None:
    async def stubborn(scope: Scope, receive: Receive, send: Send) -> None:
        await receive()
        await send({"type": "websocket.accept"})
        await asyncio.Event().wait()

    communicator = WebsocketCommunicator(stubborn, "/")
    await communicator.connect()
    with pytest.raises(TimeoutError, match="did not end"):
        await communicator.disconnect(timeout=0.02)


async def test_disconnect_after_the_application_ended_by_itself_is_quiet() -> None:
    async def ends(scope: Scope, receive: Receive, send: Send) -> None:
        await receive()
        await send({"type": "websocket.accept"})

    communicator = WebsocketCommunicator(ends, "/")
    await communicator.connect()
    await communicator.wait()
    await communicator.disconnect()


async def test_as_a_context_manager_it_connects_and_disconnects() -> None:
    async with WebsocketCommunicator(echo, "/", subprotocols=["chat"]) as communicator:
        assert communicator.subprotocol == "chat"
        assert not communicator.future.done()
    assert communicator.future.done()


async def test_a_denied_context_manager_says_so() -> None:
    async def denies(scope: Scope, receive: Receive, send: Send) -> None:
        await receive()
        await send({"type": "websocket.close", "code": 4003})
        await receive()

    with pytest.raises(AssertionError, match="denied with 4003"):
        async with WebsocketCommunicator(denies, "/"):
            pytest.fail("never entered")


async def test_the_end_of_a_block_does_not_hide_what_the_test_raised() -> None:
    async def fails_at_the_end(scope: Scope, receive: Receive, send: Send) -> None:
        await receive()
        await send({"type": "websocket.accept"})
        try:
            await receive()
        finally:
            raise LookupError("of the application")

    with pytest.raises(ZeroDivisionError):
        async with WebsocketCommunicator(fails_at_the_end, "/"):
            raise ZeroDivisionError
    with pytest.raises(LookupError, match="of the application"):
        async with WebsocketCommunicator(fails_at_the_end, "/"):
            pass


async def test_a_failure_that_the_block_has_seen_is_not_raised_again_at_its_end() -> None:
    async def fails(scope: Scope, receive: Receive, send: Send) -> None:
        await receive()
        await send({"type": "websocket.accept"})
        await receive()
        raise LookupError("once")

    async with WebsocketCommunicator(fails, "/") as communicator:
        await communicator.send_to("x")
        with pytest.raises(LookupError, match="once"):
            await communicator.receive_from()


@pytest.mark.parametrize(
    ("events", "text"),
    [
        ({"text": "a", "bytes": b"b"}, "exactly one of 'text' or 'bytes'"),
        ({}, "exactly one of 'text' or 'bytes'"),
        ({"text": b"a"}, "Text frame payload is not str"),
        ({"bytes": "a"}, "Binary frame payload is not bytes"),
    ],
)
async def test_a_malformed_frame_of_the_application_is_named(events: dict[str, Any], text: str) -> None:
    async def malformed(scope: Scope, receive: Receive, send: Send) -> None:
        await receive()
        await send({"type": "websocket.accept"})
        await send({"type": "websocket.send", **events})

    communicator = WebsocketCommunicator(malformed, "/")
    await communicator.connect()
    with pytest.raises(AssertionError, match=text):
        await communicator.receive_from()


async def test_json_is_text() -> None:
    communicator = WebsocketCommunicator(echo, "/")
    await communicator.connect()
    await communicator.send_to(bytes_data=b"{}")
    with pytest.raises(AssertionError, match="not a text frame"):
        await communicator.receive_json_from()


@pytest.mark.parametrize(
    ("address", "expected"),
    [
        ("/%E9%A6%96/?q=1#x", {"path": "/首/", "query_string": b"q=1", "scheme": "ws", "server": ("testserver", 80)}),
        ("wss://u:p@example.com:8080/p?q", {"path": "/p", "scheme": "wss", "server": ("example.com", 8080)}),
        ("user:pass@example.com:8080/p?q", {"path": "pass@example.com:8080/p", "scheme": "ws"}),
    ],
)
def test_the_scope_follows_the_address(address: str, expected: dict[str, Any]) -> None:
    scope = WebsocketCommunicator(echo, address).scope
    assert {name: scope[name] for name in expected} == expected
    assert scope["type"] == "websocket"
    assert scope["subprotocols"] == scope["headers"] == []
    assert "extensions" not in scope


def test_a_spec_version_is_that_of_the_scope() -> None:
    scope = WebsocketCommunicator(echo, "/", None, None, "2.1").scope
    assert scope["spec_version"] == "2.1"
    assert scope["asgi"]["spec_version"] == "2.1"


def test_a_path_that_is_not_text_is_refused() -> None:
    path: Any = b"/"
    with pytest.raises(TypeError, match="Expected str, got <class 'bytes'>"):
        WebsocketCommunicator(echo, path)
