from __future__ import annotations

import asyncio
from contextvars import ContextVar
from typing import Any

import pytest

from antiphon.consumer import AsyncConsumer, SyncConsumer
from antiphon.exceptions import InvalidChannelLayerError, StopConsumer
from antiphon.generic.websocket import AsyncWebsocketConsumer, WebsocketConsumer
from antiphon.layers import get_channel_layer
from antiphon.testing import ApplicationCommunicator, WebsocketCommunicator
from tests.consumers.client import Client, until

who: ContextVar[str] = ContextVar("who", default="nobody")


async def test_an_event_calls_the_method_that_its_type_names() -> None:
    class App(AsyncConsumer):
        async def http_request(self, message: dict[str, Any]) -> None:
            await self.send({"type": "seen", "body": message["body"]})

    app = ApplicationCommunicator(App.as_asgi(), {"type": "test"})
    await app.send_input({"type": "http.request", "body": b"x"})
    assert await app.receive_output() == {"type": "seen", "body": b"x"}
    app.stop()


async def test_each_connection_gets_an_instance_made_with_the_keywords_of_as_asgi() -> None:
    made: list[Any] = []

    class App(AsyncWebsocketConsumer):
        def __init__(self, colour: str) -> None:
            super().__init__()
            self.colour = colour
            made.append(self)

    app = App.as_asgi(colour="red")
    assert app.consumer_class is App
    assert app.consumer_initkwargs == {"colour": "red"}
    assert app.__name__ == "App"
    async with Client(app) as one, Client(app) as two:
        await one.connect()
        await two.connect()
    assert [consumer.colour for consumer in made] == ["red", "red"]
    assert made[0] is not made[1]


async def test_an_instance_knows_its_scope_layer_and_channel_before_the_first_handler() -> None:
    class App(AsyncWebsocketConsumer):
        async def connect(self) -> None:
            assert self.scope["path"] == "/here"
            assert self.channel_layer is get_channel_layer()
            await self.accept()
            await self.send(text_data=self.channel_name)

    async with Client(App.as_asgi(), {"path": "/here"}) as client:
        await client.connect()
        channel = await client.next_text()
        await get_channel_layer().send(channel, {"type": "nobody.handles.this"})
        assert channel.startswith("specific.")


async def test_two_instances_have_different_channels() -> None:
    class App(AsyncWebsocketConsumer):
        async def connect(self) -> None:
            await self.accept(headers=[(b"x-channel", self.channel_name.encode())])

    async with Client(App.as_asgi()) as one, Client(App.as_asgi()) as two:
        assert (await one.connect())["headers"] != (await two.connect())["headers"]


async def test_handlers_of_one_connection_run_one_at_a_time_and_in_order() -> None:
    running: list[str] = []
    most = 0

    class App(AsyncWebsocketConsumer):
        async def receive(self, text_data: str | None = None, bytes_data: bytes | None = None) -> None:
            await self.work(f"client {text_data}")

        async def tick(self, message: dict[str, Any]) -> None:
            await self.work(f"layer {message['n']}")

        async def work(self, name: str) -> None:
            nonlocal most
            running.append(name)
            most = max(most, len(running))
            await asyncio.sleep(0.001)
            running.remove(name)
            await self.send(text_data=name)

        async def connect(self) -> None:
            await self.join("all")
            await self.accept()

    async with Client(App.as_asgi()) as client:
        await client.connect()
        for n in range(20):
            client.text(str(n))
            await get_channel_layer().group_send("all", {"type": "tick", "n": n})
        await until(lambda: len(client.texts) == 40)
        assert most == 1
        for kind in ("client", "layer"):
            assert [t for t in client.texts if t.startswith(kind)] == [f"{kind} {n}" for n in range(20)]


async def test_client_events_and_layer_messages_are_taken_in_turn() -> None:
    gate = asyncio.Event()

    class App(AsyncWebsocketConsumer):
        async def receive(self, text_data: str | None = None, bytes_data: bytes | None = None) -> None:
            await gate.wait()
            await self.send(text_data="c")

        async def tick(self, message: dict[str, Any]) -> None:
            await self.send(text_data="l")

        async def connect(self) -> None:
            await self.join("all")
            await self.accept()

    async with Client(App.as_asgi()) as client:
        await client.connect()
        client.text(*"123456")
        await until(lambda: client.taken == 7)
        for _ in range(6):
            await get_channel_layer().group_send("all", {"type": "tick"})
        gate.set()
        await until(lambda: len(client.texts) == 12)
        assert "".join(client.texts) == "clclclclclcl"


async def test_a_flood_of_layer_messages_does_not_keep_the_client_waiting() -> None:
    class App(AsyncWebsocketConsumer):
        capacity = 1000

        async def receive(self, text_data: str | None = None, bytes_data: bytes | None = None) -> None:
            await self.send(text_data="answer")

        async def tick(self, message: dict[str, Any]) -> None:
            await asyncio.sleep(0)
            await self.send(text_data="tick")
            await self.channel_layer.send(self.channel_name, {"type": "tick"})

    async with Client(App.as_asgi()) as client:
        await client.connect()
        consumer_channel = next(iter(get_channel_layer().channels))
        for _ in range(10):
            await get_channel_layer().send(consumer_channel, {"type": "tick"})
        await until(lambda: client.texts.count("tick") > 20)
        client.text("ask")
        await until(lambda: "answer" in client.texts)


async def test_layer_messages_are_handled_before_the_connection_is_accepted() -> None:
    class App(AsyncWebsocketConsumer):
        async def connect(self) -> None:
            await self.join("doors")

        async def open_up(self, message: dict[str, Any]) -> None:
            await self.accept(subprotocol=message["subprotocol"])

    async with Client(App.as_asgi()) as client:
        client.put({"type": "websocket.connect"})
        layer = get_channel_layer()
        await until(lambda: "doors" in layer.groups)
        await layer.group_send("doors", {"type": "open.up", "subprotocol": "b"})
        assert await client.next() == {"type": "websocket.accept", "subprotocol": "b"}


async def test_what_one_handler_sets_in_its_context_the_next_one_sees_and_no_other_connection() -> None:
    class App(AsyncWebsocketConsumer):
        async def connect(self) -> None:
            who.set(self.scope["path"])
            await self.join("all")
            await self.accept()

        async def receive(self, text_data: str | None = None, bytes_data: bytes | None = None) -> None:
            await self.send(text_data=who.get())

        async def tick(self, message: dict[str, Any]) -> None:
            await self.send(text_data=who.get())

    async with Client(App.as_asgi(), {"path": "/a"}) as one, Client(App.as_asgi(), {"path": "/b"}) as two:
        await one.connect()
        await two.connect()
        one.text("?")
        two.text("?")
        assert (await one.next_text(), await two.next_text()) == ("/a", "/b")
        who.set("the sender")
        await get_channel_layer().group_send("all", {"type": "tick"})
        assert (await one.next_text(), await two.next_text()) == ("/a", "/b")


async def test_a_middleware_s_context_reaches_the_handlers() -> None:
    class App(AsyncWebsocketConsumer):
        async def receive(self, text_data: str | None = None, bytes_data: bytes | None = None) -> None:
            await self.send(text_data=who.get())

    inner = App.as_asgi()

    async def middleware(scope: Any, receive: Any, send: Any) -> None:
        who.set("set by the middleware")
        await inner(scope, receive, send)

    async with Client(middleware) as client:
        await client.connect()
        client.text("?")
        assert await client.next_text() == "set by the middleware"


async def test_stop_consumer_ends_the_application_from_any_handler() -> None:
    class App(AsyncWebsocketConsumer):
        async def receive(self, text_data: str | None = None, bytes_data: bytes | None = None) -> None:
            raise StopConsumer

        async def enough(self, message: dict[str, Any]) -> None:
            raise StopConsumer

        async def connect(self) -> None:
            await self.join("all")
            await self.accept()

    layer = get_channel_layer()
    async with Client(App.as_asgi()) as client:
        await client.connect()
        client.text("stop")
        await client.ended()
    async with Client(App.as_asgi()) as client:
        await client.connect()
        await layer.group_send("all", {"type": "enough"})
        await client.ended()
    assert layer.groups == {}
    assert not layer.channels


async def test_an_overridden_dispatch_sees_client_events_and_layer_messages() -> None:
    seen: list[str] = []

    class App(AsyncWebsocketConsumer):
        layer_handlers = {"note.open": "note"}

        async def dispatch(self, message: dict[str, Any]) -> None:
            seen.append(message["type"])
            await super().dispatch(message)

        async def connect(self) -> None:
            await self.join("all")
            await self.accept()

        async def note(self, message: dict[str, Any]) -> None:
            await self.send(text_data=message["text"])

    async with Client(App.as_asgi()) as client:
        await client.connect()
        await get_channel_layer().group_send("all", {"type": "note", "text": "1"})
        await get_channel_layer().group_send("all", {"type": "note.open", "text": "2"})
        assert [await client.next_text(), await client.next_text()] == ["1", "2"]
        client.text("x")
        await until(lambda: len(seen) == 4)
    assert seen == ["websocket.connect", "note", "note.open", "websocket.receive", "websocket.disconnect"]


async def test_an_overridden_dispatch_of_a_sync_consumer_sees_every_event_and_its_handlers_run_on_a_thread() -> None:
    seen: list[str] = []

    class App(WebsocketConsumer):
        async def dispatch(self, message: dict[str, Any]) -> None:
            seen.append(message["type"])
            await super().dispatch(message)

        def connect(self) -> None:
            self.join("all")
            self.accept()

        def note(self, message: dict[str, Any]) -> None:
            with pytest.raises(RuntimeError, match="no running event loop"):
                asyncio.get_running_loop()
            self.send(text_data=message["text"])

    async with Client(App.as_asgi()) as client:
        await client.connect()
        await get_channel_layer().group_send("all", {"type": "note", "text": "1"})
        assert await client.next_text() == "1"
    assert seen == ["websocket.connect", "note", "websocket.disconnect"]


async def test_after_a_layer_message_an_overridden_dispatch_finds_client_handlers_again() -> None:
    class App(AsyncWebsocketConsumer):
        layer_handlers = {"note": "note"}

        async def dispatch(self, message: dict[str, Any]) -> None:
            await super().dispatch(message)

        async def connect(self) -> None:
            await self.join("all")
            await self.accept()

        async def note(self, message: dict[str, Any]) -> None:
            raise ValueError("no")

        async def on_error(self, exc: Exception, handler: str) -> bool:
            return True

        async def receive(self, text_data: str | None = None, bytes_data: bytes | None = None) -> None:
            await self.send(text_data=f"got {text_data}")

    async with Client(App.as_asgi()) as client:
        await client.connect()
        await get_channel_layer().group_send("all", {"type": "note"})
        client.text("x")
        assert await client.next_text() == "got x"


async def test_an_unknown_layer_alias_is_named_at_the_connection() -> None:
    class App(AsyncWebsocketConsumer):
        channel_layer_alias = "nowhere"

    async with Client(App.as_asgi()) as client:
        with pytest.raises(InvalidChannelLayerError, match=r"no channel layer 'nowhere'; configured: 'default'"):
            await client.connect()


async def test_a_sync_consumer_dispatches_by_type_too() -> None:
    class App(SyncConsumer):
        def test_event(self, message: dict[str, Any]) -> None:
            self.send({"type": "answer", "n": message["n"] + 1})

    app = ApplicationCommunicator(App.as_asgi(), {"type": "test"})
    await app.send_input({"type": "test.event", "n": 1})
    assert await app.receive_output() == {"type": "answer", "n": 2}
    app.stop()


@pytest.mark.parametrize("kind", [None, 5, "", "_private", ".private", b"x"])
async def test_under_a_test_communicator_a_malformed_type_is_raised(kind: Any) -> None:
    class App(AsyncConsumer):
        pass

    app = ApplicationCommunicator(App.as_asgi(), {"type": "test"})
    await app.send_input({"type": kind} if kind is not None else {"no": "type"})
    with pytest.raises((ValueError, KeyError)):
        await app.wait()


async def test_under_a_test_communicator_what_a_handler_raises_is_raised_out_of_the_application() -> None:
    class App(AsyncWebsocketConsumer):
        async def receive(self, text_data: str | None = None, bytes_data: bytes | None = None) -> None:
            raise LookupError("mine")

    client = WebsocketCommunicator(App.as_asgi(), "/")
    await client.connect()
    await client.send_to("x")
    with pytest.raises(LookupError, match="mine"):
        await client.wait()
