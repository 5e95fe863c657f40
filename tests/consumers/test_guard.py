from __future__ import annotations

import logging
from typing import Any

import pytest

from antiphon import framework
from antiphon.consumer import AsyncConsumer
from antiphon.consumers import handlers
from antiphon.generic.http import AsyncHttpConsumer
from antiphon.generic.websocket import AsyncJsonWebsocketConsumer, AsyncWebsocketConsumer, WebsocketConsumer
from antiphon.layers import get_channel_layer
from antiphon.testing import WebsocketCommunicator
from tests.consumers.client import Client, until


@pytest.fixture(autouse=True)
def _log_afresh(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(handlers, "_logged", {})


class Chat(AsyncJsonWebsocketConsumer):
    """Overrides some names of the framework, as applications do."""

    groups = ["all"]

    async def receive_json(self, content: Any, **kwargs: Any) -> None:
        await self.send_json("receive_json")

    async def disconnect(self, code: int) -> None:
        pass

    async def chat_message(self, message: dict[str, Any]) -> None:
        await self.send_json("chat_message")

    async def note(self, message: dict[str, Any]) -> None:
        await self.send_json("note")


REFUSED = [
    "close",
    "send",
    "accept",
    "connect",
    "disconnect",
    "receive",
    "receive_json",
    "receive.json",
    "websocket.receive",
    "websocket.disconnect",
    "websocket_connect",
    "dispatch",
    "as_asgi",
    "as.asgi",
    "join",
    "leave",
    "authorize_join",
    "on_error",
    "encode_json",
    "decode.json",
    "channel_receive",
    "base_send",
    "base.send",
    "scope",
    "groups",
]


@pytest.mark.parametrize("kind", REFUSED)
async def test_no_layer_message_reaches_a_name_of_the_framework(kind: str, caplog: pytest.LogCaptureFixture) -> None:
    async with Client(Chat.as_asgi()) as client:
        await client.connect()
        await get_channel_layer().group_send("all", {"type": kind, "text": "x", "code": 1000})
        await get_channel_layer().group_send("all", {"type": "note"})
        assert await client.next_json() == "note"
        (record,) = caplog.records
    assert (record.name, record.levelno) == ("antiphon.consumer", logging.WARNING)
    assert f"Chat took no message of type {kind!r}" in record.getMessage()
    assert "Chat has the handlers: chat_message, note, send_json." in record.getMessage()


async def test_a_refused_type_says_how_to_open_it(caplog: pytest.LogCaptureFixture) -> None:
    async with Client(Chat.as_asgi()) as client:
        await client.connect()
        await get_channel_layer().group_send("all", {"type": "receive.json"})
        await until(lambda: caplog.records)
    assert "layer_handlers = {'receive.json': 'receive_json'}" in caplog.text


async def test_layer_handlers_open_a_name_or_give_another() -> None:
    class App(Chat):
        layer_handlers = {"receive.json": "receive_json", "chat": "chat_message", "$odd name": "note"}

    layer = get_channel_layer()
    async with Client(App.as_asgi()) as client:
        await client.connect()
        for kind in App.layer_handlers:
            await layer.group_send("all", {"type": kind})
        assert [await client.next_json() for _ in range(3)] == ["receive_json", "chat_message", "note"]


async def test_what_one_class_opens_stays_shut_in_another(caplog: pytest.LogCaptureFixture) -> None:
    class Open(AsyncWebsocketConsumer):
        groups = ["all"]
        layer_handlers = {"close": "close_it"}

        async def close_it(self, message: dict[str, Any]) -> None:
            await self.send(text_data="closing")

    class Shut(Open):
        layer_handlers = {}

        async def note(self, message: dict[str, Any]) -> None:
            await self.send(text_data="note")

    layer = get_channel_layer()
    async with Client(Open.as_asgi()) as open_, Client(Shut.as_asgi()) as shut:
        await open_.connect()
        await shut.connect()
        await layer.group_send("all", {"type": "close"})
        assert await open_.next_text() == "closing"
        await layer.group_send("all", {"type": "note"}, exclude=[])
        assert await shut.next_text() == "note"
    assert "Shut took no message of type 'close'" in caplog.text


async def test_layer_handlers_that_lead_nowhere_say_so(caplog: pytest.LogCaptureFixture) -> None:
    class App(AsyncWebsocketConsumer):
        groups = ["all"]
        layer_handlers = {"chat": "chat_mesage"}

    async with Client(App.as_asgi()) as client:
        await client.connect()
        await get_channel_layer().group_send("all", {"type": "chat"})
        await until(lambda: caplog.records)
    assert "layer_handlers maps 'chat' to 'chat_mesage', which" in caplog.text


@pytest.mark.parametrize("kind", ["_private", "__init__", ".hidden", "no.such.handler", "", "scope.x", "x" * 5000])
async def test_unknown_and_malformed_types_are_logged_and_the_socket_stays_open(
    kind: str, caplog: pytest.LogCaptureFixture
) -> None:
    async with Client(Chat.as_asgi()) as client:
        await client.connect()
        await get_channel_layer().group_send("all", {"type": kind})
        await get_channel_layer().group_send("all", {"type": "note"})
        assert await client.next_json() == "note"
        assert len(caplog.records) == 1


@pytest.mark.parametrize("body", [["a", "list"], "text", 7, None, {}, {"no": "type"}, {"type": 5}, {"type": ["x"]}])
async def test_what_is_no_message_is_logged_and_the_socket_stays_open(
    body: Any, caplog: pytest.LogCaptureFixture, monkeypatch: pytest.MonkeyPatch
) -> None:
    # The layer refuses them at the call; another process, of another release, may not.
    from antiphon import codec

    layer = get_channel_layer()
    async with Client(Chat.as_asgi()) as client:
        await client.connect()
        with monkeypatch.context() as patch:
            patch.setattr(type(layer), "_encode", lambda self, message: codec.encode(message))
            await layer.group_send("all", body)
        await layer.group_send("all", {"type": "note"})
        assert await client.next_json() == "note"
        assert [record.name for record in caplog.records] == ["antiphon.consumer"]


async def test_bytes_that_do_not_decode_are_counted_and_the_socket_stays_open(monkeypatch: pytest.MonkeyPatch) -> None:
    layer = get_channel_layer()
    async with Client(Chat.as_asgi()) as client:
        await client.connect()
        with monkeypatch.context() as patch:
            patch.setattr(type(layer), "_encode", lambda self, message: b"\xc1\xc1\xc1")
            await layer.group_send("all", {"type": "note"})
        await layer.group_send("all", {"type": "note"})
        assert await client.next_json() == "note"
        await until(lambda: layer.stats()["drops"].get("undecodable") == 1)


async def test_refused_types_are_logged_at_intervals_for_each_class_and_type(
    caplog: pytest.LogCaptureFixture, monkeypatch: pytest.MonkeyPatch
) -> None:
    layer = get_channel_layer()
    async with Client(Chat.as_asgi()) as one, Client(Chat.as_asgi()) as two:
        await one.connect()
        await two.connect()
        for _ in range(5):
            await layer.group_send("all", {"type": "close"})
            await layer.group_send("all", {"type": "unknown"})
        await layer.group_send("all", {"type": "note"})
        await two.next_json()
        assert len(caplog.records) == 2
        monkeypatch.setattr(handlers, "LOG_INTERVAL_S", 0.0)  # as if that long had passed
        await layer.group_send("all", {"type": "close"})
        await until(lambda: len(caplog.records) >= 3)


@pytest.mark.parametrize(
    ("message", "text"),
    [
        ({"type": "close"}, "Message type 'close' is refused"),
        ({"type": "no.such"}, r"No handler for message type no.such. Chat has the handlers: chat_message, note"),
        ({"type": "_x"}, r"Malformed type in message \(leading underscore\)"),
    ],
)
async def test_under_a_test_communicator_the_error_is_raised(message: Any, text: str) -> None:
    client = WebsocketCommunicator(Chat.as_asgi(), "/")
    await client.connect()
    await get_channel_layer().group_send("all", message)
    with pytest.raises(ValueError, match=text):
        await client.wait()


async def test_where_channels_ways_hold_the_names_of_the_framework_are_open(monkeypatch: pytest.MonkeyPatch) -> None:
    class App(Chat):  # a class of its own: what a class resolved once is kept
        async def receive_json(self, content: Any, **kwargs: Any) -> None:
            await self.send_json("receive_json")

    with monkeypatch.context() as patch:
        patch.setattr(framework, "compat", True)
        async with Client(App.as_asgi()) as client:
            await client.connect()
            await get_channel_layer().group_send("all", {"type": "receive.json"})
            assert await client.next_json() == "receive_json"


@pytest.mark.parametrize("kind", ["dispatch", "as_asgi", "channel_receive", "base_send"])
async def test_where_channels_ways_hold_some_names_stay_shut(kind: str, monkeypatch: pytest.MonkeyPatch) -> None:
    class App(Chat):
        pass

    with monkeypatch.context() as patch:
        patch.setattr(framework, "compat", True)
        async with Client(App.as_asgi()) as client:
            await client.connect()
            await get_channel_layer().group_send("all", {"type": kind})
            await get_channel_layer().group_send("all", {"type": "note"})
            assert await client.next_json() == "note"


async def test_sync_consumers_are_guarded_too(caplog: pytest.LogCaptureFixture) -> None:
    class App(WebsocketConsumer):
        groups = ["all"]

        def note(self, message: dict[str, Any]) -> None:
            self.send(text_data="note")

    async with Client(App.as_asgi()) as client:
        await client.connect()
        await get_channel_layer().group_send("all", {"type": "close"})
        await get_channel_layer().group_send("all", {"type": "note"})
        assert await client.next_text() == "note"
    assert "has the handlers: note." in caplog.text


async def test_http_consumers_are_guarded_too(caplog: pytest.LogCaptureFixture) -> None:
    class App(AsyncHttpConsumer):
        async def handle(self, body: bytes) -> None:
            await self.join("all")
            for kind in ("handle", "disconnect", "http.disconnect", "http.handled", "send.response"):
                await self.channel_layer.group_send("all", {"type": kind, "status": 200, "body": b""})
            await self.channel_layer.group_send("all", {"type": "note"})

        async def note(self, message: dict[str, Any]) -> None:
            await self.send_response(200, b"note")

    async with Client(App.as_asgi(), {"type": "http"}) as client:
        client.put({"type": "http.request", "body": b""})
        assert (await client.next())["status"] == 200
        assert (await client.next())["body"] == b"note"
    assert len(caplog.records) == 5


async def test_messages_of_a_worker_channel_are_guarded_too(caplog: pytest.LogCaptureFixture) -> None:
    done: list[str] = []

    class App(AsyncConsumer):
        async def job(self, message: dict[str, Any]) -> None:
            done.append(message["type"])

    async with Client(App.as_asgi(), {"type": "channel", "channel": "jobs"}) as client:
        for kind in ("join", "send", "on_error", "dispatch", "unknown", "_private", "job"):
            client.put({"type": kind})
        await until(lambda: done)
    assert done == ["job"]
    assert len(caplog.records) == 6
    assert "App has the handlers: job." in caplog.text


async def test_a_class_between_may_add_handlers_and_inherit_them() -> None:
    class Base(AsyncWebsocketConsumer):
        groups = ["all"]

        async def tick(self, message: dict[str, Any]) -> None:
            await self.send(text_data="tick of the base")

    class Mixin:
        async def tock(self, message: dict[str, Any]) -> None:
            await self.send(text_data="tock")  # type: ignore[attr-defined]

    class App(Mixin, Base):
        async def tick(self, message: dict[str, Any]) -> None:
            await super().tick(message)

    async with Client(App.as_asgi()) as client:
        await client.connect()
        await get_channel_layer().group_send("all", {"type": "tick"})
        await get_channel_layer().group_send("all", {"type": "tock"})
        assert [await client.next_text(), await client.next_text()] == ["tick of the base", "tock"]


async def test_a_type_that_would_forge_a_log_line_stays_in_one_line_of_bounded_length(
    caplog: pytest.LogCaptureFixture,
) -> None:
    class App(AsyncWebsocketConsumer):
        groups = ["all"]

    async with Client(App.as_asgi()) as client:
        await client.connect()
        await get_channel_layer().group_send("all", {"type": "x\nERROR forged " + "y" * 100_000})
        await until(lambda: caplog.records)
    (record,) = caplog.records
    assert "\n" not in record.getMessage()
    assert len(record.getMessage()) < 2000
