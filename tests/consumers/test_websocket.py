from __future__ import annotations

import json
import logging
from typing import Any

import pytest

from antiphon.exceptions import AcceptConnection, DenyConnection
from antiphon.generic.websocket import (
    AsyncJsonWebsocketConsumer,
    AsyncWebsocketConsumer,
    JsonWebsocketConsumer,
    WebsocketConsumer,
)
from antiphon.layers import get_channel_layer
from antiphon.testing import WebsocketCommunicator
from tests.consumers.client import Client, until


async def test_a_connection_is_accepted_by_default() -> None:
    async with Client(AsyncWebsocketConsumer.as_asgi()) as client:
        assert await client.connect() == {"type": "websocket.accept", "subprotocol": None}
    async with Client(WebsocketConsumer.as_asgi()) as client:
        assert await client.connect() == {"type": "websocket.accept", "subprotocol": None}


async def test_accept_passes_subprotocol_and_headers() -> None:
    class App(AsyncWebsocketConsumer):
        async def connect(self) -> None:
            await self.accept(self.scope["subprotocols"][1], headers=[(b"x-made-by", b"hand")])

    client = WebsocketCommunicator(App.as_asgi(), "/", subprotocols=["a", "b"])
    assert await client.connect() == (True, "b")
    assert client.response_headers == [(b"x-made-by", b"hand")]
    await client.disconnect()


async def test_raising_accept_connection_accepts_and_deny_connection_denies() -> None:
    class Yes(AsyncWebsocketConsumer):
        async def connect(self) -> None:
            raise AcceptConnection

    class No(AsyncWebsocketConsumer):
        async def connect(self) -> None:
            raise DenyConnection

    class SyncYes(WebsocketConsumer):
        def connect(self) -> None:
            raise AcceptConnection

    class SyncNo(WebsocketConsumer):
        def connect(self) -> None:
            raise DenyConnection

    for app, kind in ((Yes, "accept"), (No, "close"), (SyncYes, "accept"), (SyncNo, "close")):
        async with Client(app.as_asgi()) as client:
            assert (await client.connect())["type"] == f"websocket.{kind}"


async def test_close_before_accept_denies_with_its_code_and_disconnect_runs() -> None:
    codes: list[int] = []

    class App(AsyncWebsocketConsumer):
        async def connect(self) -> None:
            await self.close(code=4001, reason="not you")

        async def disconnect(self, code: int) -> None:
            codes.append(code)

    async with Client(App.as_asgi()) as client:
        assert await client.connect() == {"type": "websocket.close", "code": 4001, "reason": "not you"}
        await client.ended()
    assert codes == [4001]


async def test_close_takes_a_code_and_a_reason() -> None:
    class App(AsyncWebsocketConsumer):
        async def receive(self, text_data: str | None = None, bytes_data: bytes | None = None) -> None:
            if text_data == "plain":
                await self.close()
            elif text_data == "code":
                await self.close(4321, "enough")
            elif text_data == "send":
                await self.send(text_data="last", close=4322)
            else:
                await self.send(bytes_data=b"last", close=True)

    expected: dict[str, list[dict[str, Any]]] = {
        "plain": [{"type": "websocket.close"}],
        "code": [{"type": "websocket.close", "code": 4321, "reason": "enough"}],
        "send": [{"type": "websocket.send", "text": "last"}, {"type": "websocket.close", "code": 4322}],
        "true": [{"type": "websocket.send", "bytes": b"last"}, {"type": "websocket.close"}],
    }
    for text, events in expected.items():
        async with Client(App.as_asgi()) as client:
            await client.connect()
            client.text(text)
            await client.ended()
            assert client.events[1:] == events


async def test_text_and_bytes_arrive_apart_and_empty_frames_arrive() -> None:
    class App(AsyncWebsocketConsumer):
        async def receive(self, text_data: str | None = None, bytes_data: bytes | None = None) -> None:
            await self.send(text_data=repr((text_data, bytes_data)))

    async with Client(App.as_asgi()) as client:
        await client.connect()
        client.text("hi", "")
        # Servers may name the other one, as None.
        client.put({"type": "websocket.receive", "text": None, "bytes": b"\x00"})
        client.put({"type": "websocket.receive", "bytes": b""})
        assert [await client.next_text() for _ in range(4)] == [
            "('hi', None)",
            "('', None)",
            "(None, b'\\x00')",
            "(None, b'')",
        ]


async def test_sending_nothing_is_an_error_and_empty_text_is_not() -> None:
    class App(AsyncWebsocketConsumer):
        async def receive(self, text_data: str | None = None, bytes_data: bytes | None = None) -> None:
            with pytest.raises(ValueError, match="must pass one of bytes_data or text_data"):
                await self.send()
            await self.send(text_data="")

    async with Client(App.as_asgi()) as client:
        await client.connect()
        client.text("x")
        assert await client.next_text() == ""


async def test_accepting_twice_says_so() -> None:
    class App(AsyncWebsocketConsumer):
        async def connect(self) -> None:
            await self.accept()
            with pytest.raises(RuntimeError, match="accept.. was called twice"):
                await self.accept()
            await self.send(text_data="still here")

    async with Client(App.as_asgi()) as client:
        await client.connect()
        assert await client.next_text() == "still here"


async def test_sending_before_accept_says_what_to_do() -> None:
    class App(AsyncWebsocketConsumer):
        async def connect(self) -> None:
            with pytest.raises(RuntimeError, match=r"send\(\) before accept\(\): call accept\(\) first"):
                await self.send(text_data="too early")
            await self.accept()

    async with Client(App.as_asgi()) as client:
        assert (await client.connect())["type"] == "websocket.accept"


@pytest.mark.parametrize("base", [AsyncJsonWebsocketConsumer, JsonWebsocketConsumer])
async def test_json_consumers_decode_and_encode(base: Any) -> None:
    if base is AsyncJsonWebsocketConsumer:

        class AsyncApp(AsyncJsonWebsocketConsumer):
            async def receive_json(self, content: Any, **kwargs: Any) -> None:
                await self.send_json({"got": content})

            @classmethod
            async def decode_json(cls, text_data: str) -> Any:
                return json.loads(text_data, parse_float=str)

        app = AsyncApp.as_asgi()
    else:

        class SyncApp(JsonWebsocketConsumer):
            def receive_json(self, content: Any, **kwargs: Any) -> None:
                self.send_json({"got": content})

            @classmethod
            def decode_json(cls, text_data: str) -> Any:
                return json.loads(text_data, parse_float=str)

        app = SyncApp.as_asgi()
    async with Client(app) as client:
        await client.connect()
        client.text('{"a": [1, 2.5]}', "null")
        assert await client.next_json() == {"got": {"a": [1, "2.5"]}}
        assert await client.next_json() == {"got": None}


@pytest.mark.parametrize("frame", [{"bytes": b"{}"}, {"text": ""}])
@pytest.mark.parametrize("base", [AsyncJsonWebsocketConsumer, JsonWebsocketConsumer])
async def test_json_consumers_refuse_bytes_and_empty_text(base: Any, frame: dict[str, Any]) -> None:
    client = WebsocketCommunicator(base.as_asgi(), "/")
    await client.connect()
    await client.send_input({"type": "websocket.receive", **frame})
    with pytest.raises(ValueError, match="No text section for incoming WebSocket frame!"):
        await client.wait()


@pytest.mark.parametrize("base", [AsyncJsonWebsocketConsumer, JsonWebsocketConsumer])
@pytest.mark.parametrize("frame", ["{", "", "[" * 100_000])
async def test_text_that_is_no_json_closes_that_connection_with_1007_and_no_traceback(
    base: Any, frame: str, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level(logging.INFO, "antiphon")
    async with Client(base.as_asgi()) as client:
        await client.connect()
        client.text(frame)
        assert await client.closed() == (1007, "bad_frame")
    assert [(record.name, record.levelname, record.exc_info) for record in caplog.records] == [
        ("antiphon.consumer", "INFO", None)
    ]


async def test_a_layer_message_of_type_send_json_calls_the_inherited_method() -> None:
    class App(AsyncJsonWebsocketConsumer):
        groups = ["all"]

    async with Client(App.as_asgi()) as client:
        await client.connect()
        await get_channel_layer().group_send("all", {"type": "send_json", "n": 1})
        await get_channel_layer().group_send("all", {"type": "send.json", "n": 2})
        assert await client.next_json() == {"type": "send_json", "n": 1}
        assert await client.next_json() == {"type": "send.json", "n": 2}


@pytest.mark.parametrize("base", [AsyncWebsocketConsumer, WebsocketConsumer])
async def test_the_groups_of_a_class_are_joined_before_connect_and_left_at_the_end(base: Any) -> None:
    layer = get_channel_layer()
    App: Any = type("App", (base,), {"groups": ["one", "two"]})
    async with Client(App.as_asgi()) as client:
        await client.connect()
        assert set(layer.groups) == {"one", "two"}
    assert layer.groups == {}


async def test_what_is_sent_after_the_application_closed_is_dropped() -> None:
    class App(AsyncWebsocketConsumer):
        async def receive(self, text_data: str | None = None, bytes_data: bytes | None = None) -> None:
            await self.close(4000)
            await self.send(text_data="too late")
            await self.close(4001)

    async with Client(App.as_asgi()) as client:
        await client.connect()
        client.text("x")
        await client.ended()
        assert [event["type"] for event in client.events] == ["websocket.accept", "websocket.close"]


async def test_sends_to_a_client_that_has_gone_are_dropped_and_counted_without_a_traceback(
    caplog: pytest.LogCaptureFixture,
) -> None:
    consumers: list[Any] = []

    class App(AsyncWebsocketConsumer):
        async def connect(self) -> None:
            consumers.append(self)
            await self.accept()

        async def receive(self, text_data: str | None = None, bytes_data: bytes | None = None) -> None:
            client.gone = True  # the server knows, and has not said so yet: its send() raises
            for _ in range(3):
                await self.send(text_data="too late")

    client = Client(App.as_asgi(), raises_when_gone=True)
    async with client:
        await client.connect()
        client.text("x")
        outlet = consumers[0]._antiphon.outlet
        await until(lambda: outlet.late == 3)
        client.vanish()
        await client.ended()
    assert caplog.records == []
    assert client.texts == []


@pytest.mark.parametrize(("reported", "seen"), [(1005, 1006), (1006, 1006), (None, 1006), (1000, 1000), (4000, 4000)])
async def test_a_loss_is_1006_however_the_server_reports_it(reported: int | None, seen: int) -> None:
    codes: list[int] = []

    class App(AsyncWebsocketConsumer):
        async def disconnect(self, code: int) -> None:
            codes.append(code)

    async with Client(App.as_asgi()) as client:
        await client.connect()
        client.put({"type": "websocket.disconnect", "code": reported})
        await client.ended()
    async with Client(App.as_asgi()) as client:
        await client.connect()
        event = {"type": "websocket.disconnect", "code": reported}
        client.put({"type": "websocket.disconnect"} if reported is None else event)
        await client.ended()
    assert codes == [seen, seen]
