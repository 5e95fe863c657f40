"""Requests and responses: bodies, streams, layer messages meanwhile, and errors."""

from __future__ import annotations

import asyncio
from typing import Any

import pytest

from antiphon.generic.http import AsyncHttpConsumer
from antiphon.layers import get_channel_layer
from antiphon.testing import HttpCommunicator
from tests.consumers.client import HTTP, Client, until


async def test_a_response_has_status_headers_and_body() -> None:
    ended: list[str] = []

    class App(AsyncHttpConsumer):
        async def handle(self, body: bytes) -> None:
            await self.send_response(201, b"got " + body, headers=[(b"x-a", b"1")])

        async def disconnect(self) -> None:
            ended.append("disconnect")

    client = HttpCommunicator(App.as_asgi(), "POST", "/", body=b"this")
    response = await client.get_response()
    assert response == {"status": 201, "headers": [(b"x-a", b"1")], "body": b"got this"}
    await client.wait()
    assert ended == ["disconnect"]


async def test_headers_may_be_a_dict() -> None:
    class App(AsyncHttpConsumer):
        async def handle(self, body: bytes) -> None:
            await self.send_response(200, b"", headers={b"content-type": b"text/plain"})

    response = await HttpCommunicator(App.as_asgi(), "GET", "/").get_response()
    assert response["headers"] == [(b"content-type", b"text/plain")]


async def test_the_body_is_gathered_before_handle_is_called() -> None:
    class App(AsyncHttpConsumer):
        async def handle(self, body: bytes) -> None:
            await self.send_response(200, body)

    async with Client(App.as_asgi(), HTTP) as client:
        client.request(b"one ", more=True)
        client.request(b"", more=True)
        client.request(b"two")
        await client.next()
        assert (await client.next())["body"] == b"one two"
        await client.ended()


async def test_a_large_body_passes_the_bounded_inbox() -> None:
    class App(AsyncHttpConsumer):
        receive_limit = (2, 1000)

        async def handle(self, body: bytes) -> None:
            await self.send_response(200, str(len(body)).encode())

    async with Client(App.as_asgi(), HTTP) as client:
        for _ in range(50):
            client.request(bytes(900), more=True)
        client.request()
        await client.next()
        assert (await client.next())["body"] == b"45000"


@pytest.mark.parametrize("body", ["text", None, bytearray(b"x")])
async def test_a_body_that_is_not_bytes_is_refused_with_what_it_was(body: Any) -> None:
    class App(AsyncHttpConsumer):
        async def handle(self, _: bytes) -> None:
            with pytest.raises(TypeError, match=f"Body is not bytes: got {type(body).__name__}"):
                await self.send_body(body)
            await self.send_response(200, b"")

    assert (await HttpCommunicator(App.as_asgi(), "GET", "/").get_response())["status"] == 200


async def test_layer_messages_are_handled_while_a_response_streams() -> None:
    class App(AsyncHttpConsumer):
        async def handle(self, body: bytes) -> None:
            await self.join("events")
            await self.send_headers(headers=[(b"content-type", b"text/event-stream")])
            await self.send_body(b"begin\n", more_body=True)
            self.done = asyncio.Event()
            await self.done.wait()
            await self.send_body(b"end\n")

        async def event(self, message: dict[str, Any]) -> None:
            await self.send_body(f"{message['n']}\n".encode(), more_body=True)
            if message["n"] == 3:
                self.done.set()

    layer = get_channel_layer()
    async with Client(App.as_asgi(), HTTP) as client:
        client.request()
        assert (await client.next())["type"] == "http.response.start"
        assert (await client.next())["body"] == b"begin\n"
        for n in (1, 2, 3):
            await layer.group_send("events", {"type": "event", "n": n})
        assert [(await client.next())["body"] for _ in range(4)] == [b"1\n", b"2\n", b"3\n", b"end\n"]
        await client.ended()
    assert layer.groups == {}


async def test_an_error_in_handle_is_a_500_and_one_log_record(caplog: pytest.LogCaptureFixture) -> None:
    ended: list[str] = []

    class App(AsyncHttpConsumer):
        async def handle(self, body: bytes) -> None:
            raise LookupError("nothing here")

        async def disconnect(self) -> None:
            ended.append("disconnect")

    async with Client(App.as_asgi(), HTTP) as client:
        client.request()
        assert (await client.next())["status"] == 500
        assert (await client.next())["body"] == b"Internal Server Error"
        await client.ended()
    (record,) = caplog.records
    assert record.name == "antiphon.consumer"
    assert "App" in record.getMessage()
    assert "LookupError('nothing here')" in record.getMessage()
    assert ended == ["disconnect"]


async def test_an_error_in_the_middle_of_a_stream_ends_it_without_a_second_response(
    caplog: pytest.LogCaptureFixture,
) -> None:
    class App(AsyncHttpConsumer):
        async def handle(self, body: bytes) -> None:
            await self.send_headers()
            await self.send_body(b"half", more_body=True)
            raise LookupError

    async with Client(App.as_asgi(), HTTP) as client:
        client.request()
        await client.ended()
    assert [event["type"] for event in client.events] == ["http.response.start", "http.response.body"]
    assert len(caplog.records) == 1


async def test_an_error_in_a_layer_handler_ends_the_request_with_500_and_cancels_handle(
    caplog: pytest.LogCaptureFixture,
) -> None:
    log: list[str] = []

    class App(AsyncHttpConsumer):
        async def handle(self, body: bytes) -> None:
            await self.join("events")
            try:
                await asyncio.sleep(3600)
            finally:
                log.append("cancelled")

        async def event(self, message: dict[str, Any]) -> None:
            raise LookupError

        async def disconnect(self) -> None:
            log.append("disconnect")

    layer = get_channel_layer()
    async with Client(App.as_asgi(), HTTP) as client:
        client.request()
        await until(lambda: layer.groups)
        await layer.group_send("events", {"type": "event"})
        assert (await client.next())["status"] == 500
        await client.ended()
    assert log == ["cancelled", "disconnect"]


async def test_under_a_test_communicator_what_handle_raises_is_raised() -> None:
    class App(AsyncHttpConsumer):
        async def handle(self, body: bytes) -> None:
            raise LookupError("mine")

    with pytest.raises(LookupError, match="mine"):
        await HttpCommunicator(App.as_asgi(), "GET", "/").get_response()


async def test_a_class_without_handle_says_what_is_missing() -> None:
    with pytest.raises(NotImplementedError, match="must provide a handle"):
        await HttpCommunicator(AsyncHttpConsumer.as_asgi(), "GET", "/").get_response()
