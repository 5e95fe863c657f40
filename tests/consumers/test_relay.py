"""Relays: one call for all members of a class, whatever it returns; and what cannot be one."""

from __future__ import annotations

import asyncio
import json
import logging
from collections.abc import Callable
from typing import Any

import pytest

from antiphon import get_channel_layer, relay
from antiphon.consumers import AsyncHttpConsumer, Relay, WebsocketConsumer
from antiphon.generic.websocket import AsyncJsonWebsocketConsumer, AsyncWebsocketConsumer
from antiphon.testing import WebsocketCommunicator
from antiphon.types import Event
from tests.consumers.client import HTTP, Client, members
from tests.server.uvicorns import serving
from tests.waiting import until


class Room(AsyncWebsocketConsumer):
    """Relays, and a plain handler that sends twice."""

    groups = ["room"]
    calls: list[Any]

    @relay
    def said(message: Any) -> str:
        Room.calls.append(message)
        return str(message["text"])

    async def twice(self, message: Any) -> None:
        await self.send(text_data=f"{message['text']}.1")
        await asyncio.sleep(0)
        await self.send(text_data=f"{message['text']}.2")


@pytest.fixture(autouse=True)
def _no_calls() -> None:
    Room.calls = []


def layer() -> Any:
    return get_channel_layer()


def drops() -> dict[str, int]:
    """Count what was dropped, by reason."""
    found: dict[str, int] = layer().stats()["drops"]
    return found


async def test_it_runs_once_for_all_members_of_a_class_and_each_gets_what_it_returns() -> None:
    app = Room.as_asgi()
    async with Client(app) as one, Client(app) as two, Client(app) as three:
        clients = [one, two, three]
        for client in clients:
            await client.connect()
        await layer().group_send("room", {"type": "said", "text": "hi"})
        assert [await client.next_text() for client in clients] == ["hi"] * 3
        assert Room.calls == [{"type": "said", "text": "hi"}]


async def test_elsewhere_than_on_our_server_each_is_sent_one_shared_event() -> None:
    app = Room.as_asgi()
    async with Client(app) as one, Client(app) as two:
        await one.connect()
        await two.connect()
        await layer().group_send("room", {"type": "said", "text": "hi"})
        assert await one.next() is await two.next()


async def test_on_our_server_the_same_frame_is_written_to_all() -> None:
    async with serving(Room.as_asgi()) as server:
        clients = [await server.client() for _ in range(3)]
        await until(lambda: members("room") == 3)
        await layer().group_send("room", {"type": "said", "text": "hi"})
        assert [await client.frame() for client in clients] == [(0x81, b"hi")] * 3
        assert len(Room.calls) == 1


@pytest.mark.parametrize(
    ("value", "event"),
    [
        ("text", {"text": "text"}),
        (b"\x00\xff", {"bytes": b"\x00\xff"}),
        (bytearray(b"ab"), {"bytes": b"ab"}),
        ({"a": [1, "ü"]}, {"text": json.dumps({"a": [1, "ü"]})}),
        ([], {"text": "[]"}),
        (0, {"text": "0"}),
    ],
)
async def test_text_bytes_and_objects_are_what_it_may_return(value: Any, event: Event) -> None:
    class App(AsyncWebsocketConsumer):
        groups = ["g"]

        @relay
        def note(message: Any) -> Any:
            return value

    async with Client(App.as_asgi()) as client:
        await client.connect()
        await layer().group_send("g", {"type": "note"})
        assert await client.next() == {"type": "websocket.send", **event}


async def test_none_sends_nothing_and_counts_as_delivered() -> None:
    class App(AsyncWebsocketConsumer):
        groups = ["g"]

        @relay
        def note(message: Any) -> Any:
            return message["text"] or None

    async with Client(App.as_asgi()) as client:
        await client.connect()
        receipt = await layer().group_send("g", {"type": "note", "text": ""})
        assert receipt.delivered == 1
        await layer().group_send("g", {"type": "note", "text": "next"})
        assert await client.next_text() == "next"
        assert layer().stats()["dropped"] == 0


@pytest.mark.parametrize("is_async", [True, False])
async def test_objects_are_encoded_by_the_classes_own_encoder(*, is_async: bool) -> None:
    class Plain(AsyncJsonWebsocketConsumer):
        groups = ["g"]

        @relay
        def note(message: Any) -> Any:
            return {"n": 1}

    if is_async:

        class Own(Plain):
            @classmethod
            async def encode_json(cls, content: Any) -> str:
                return f"own {content}"
    else:

        class Own(Plain):  # type: ignore[no-redef]
            @classmethod
            def encode_json(cls, content: Any) -> str:  # type: ignore[override]
                return f"own {content}"

    async with Client(Own.as_asgi()) as client:
        await client.connect()
        await layer().group_send("g", {"type": "note"})
        assert await client.next_text() == "own {'n': 1}"


async def test_an_exception_is_logged_once_counted_per_member_and_closes_nobody(
    caplog: pytest.LogCaptureFixture,
) -> None:
    class App(AsyncWebsocketConsumer):
        groups = ["g"]

        @relay
        def note(message: Any) -> str:
            return str(1 / message["by"])

    app = App.as_asgi()
    async with Client(app) as one, Client(app) as two:
        await one.connect()
        await two.connect()
        with caplog.at_level(logging.ERROR, "antiphon.consumer"):
            receipt = await layer().group_send("g", {"type": "note", "by": 0})
        assert receipt.delivered == 0
        assert receipt.dropped == 2
        [record] = [record for record in caplog.records if record.name == "antiphon.consumer"]
        assert "App.note, a relay, raised ZeroDivisionError" in record.getMessage()
        await until(lambda: drops().get("relay_failed") == 2)
        await layer().group_send("g", {"type": "note", "by": 1})
        assert [await one.next_text(), await two.next_text()] == ["1.0", "1.0"]


async def test_under_test_the_exception_comes_out_of_the_application() -> None:
    class App(AsyncWebsocketConsumer):
        groups = ["g"]

        @relay
        def note(message: Any) -> str:
            raise LookupError("mine")

    communicator = WebsocketCommunicator(App.as_asgi(), "/")
    assert (await communicator.connect())[0]
    await layer().group_send("g", {"type": "note"})
    with pytest.raises(LookupError, match="mine"):
        await communicator.receive_from()


async def test_the_excluded_get_nothing() -> None:
    class App(Room):
        async def receive(self, text_data: str | None = None, bytes_data: bytes | None = None) -> None:
            await self.channel_layer.group_send(
                "room", {"type": "said", "text": text_data}, exclude=[self.channel_name]
            )

    app = App.as_asgi()
    async with Client(app) as one, Client(app) as two:
        await one.connect()
        await two.connect()
        one.text("not to me")
        assert await two.next_text() == "not to me"
        assert one.texts == []


async def test_it_may_change_its_message_and_other_classes_see_theirs() -> None:
    class Changing(AsyncWebsocketConsumer):
        groups = ["g"]

        @relay
        def note(message: Any) -> Any:
            message["text"] = "changed"
            return message["text"]

    class Sharing(AsyncWebsocketConsumer):
        groups = ["g"]
        shares_messages = True

        async def note(self, message: Any) -> None:
            await self.send(text_data=message["text"])

    async with Client(Changing.as_asgi()) as one, Client(Sharing.as_asgi()) as two:
        await one.connect()
        await two.connect()
        await layer().group_send("g", {"type": "note", "text": "as sent"})
        assert [await one.next_text(), await two.next_text()] == ["changed", "as sent"]


async def test_synchronous_consumers_have_relays_too() -> None:
    class App(WebsocketConsumer):
        groups = ["g"]

        @relay
        def note(message: Any) -> Any:
            return message["text"]

        def plain(self, message: Any) -> None:
            self.send(text_data=message["text"])

    async with Client(App.as_asgi()) as client:
        await client.connect()
        for number in range(3):
            await layer().group_send("g", {"type": "plain", "text": f"p{number}"})
            await layer().group_send("g", {"type": "note", "text": f"r{number}"})
        assert [await client.next_text() for _ in range(6)] == ["p0", "r0", "p1", "r1", "p2", "r2"]


async def test_layer_handlers_open_a_type_to_a_relay_and_a_subclass_may_make_it_a_handler() -> None:
    class App(AsyncWebsocketConsumer):
        groups = ["g"]
        layer_handlers = {"news.flash": "note"}

        @relay
        def note(message: Any) -> Any:
            return "relayed"

    class Handled(App):
        async def note(self, message: Any) -> None:
            await self.send(text_data="handled")

    async with Client(App.as_asgi()) as one, Client(Handled.as_asgi()) as two:
        await one.connect()
        await two.connect()
        await layer().group_send("g", {"type": "news.flash"})
        assert [await one.next_text(), await two.next_text()] == ["relayed", "handled"]


async def test_what_is_relayed_before_accept_waits_for_it_and_no_more_than_capacity() -> None:
    class App(Room):
        capacity = 3

        async def connect(self) -> None:
            pass

        async def opening(self, message: Any) -> None:
            await self.accept()
            await self.send(text_data="accepted")

    async with Client(App.as_asgi()) as client:
        client.put({"type": "websocket.connect"})
        await until(lambda: members("room"))
        for number in range(5):
            await layer().group_send("room", {"type": "said", "text": str(number)})
        await until(lambda: drops().get("over_capacity") == 2)
        await layer().group_send("room", {"type": "opening"})
        assert (await client.next())["type"] == "websocket.accept"
        assert [await client.next_text() for _ in range(4)] == ["0", "1", "2", "accepted"]


async def test_on_our_server_a_slow_reader_is_closed_by_its_policy_and_the_others_get_everything() -> None:
    class App(Room):
        overflow = "close"
        capacity = 10
        send_buffer_limit = 10_000

    async with serving(App.as_asgi()) as server:
        slow = await server.client(receive_buffer=4096)
        quick = await server.client()
        await until(lambda: members("room") == 2)
        sent = 0

        async def read() -> list[bytes]:
            return [(await quick.frame())[1] for _ in range(20_000)]

        reading = asyncio.create_task(read())
        while not drops().get("slow"):
            await layer().group_send("room", {"type": "said", "text": f"{sent:08}" * 128})
            sent += 1
            await asyncio.sleep(0)
        for number in range(sent, 20_000):
            await layer().group_send("room", {"type": "said", "text": f"{number:08}" * 128})
            await asyncio.sleep(0)
        assert await reading == [f"{number:08}".encode() * 128 for number in range(20_000)]
        assert (await slow.closed())[1] == "slow"


# What cannot be


def test_async_functions_are_refused_at_class_creation() -> None:
    with pytest.raises(TypeError, match=r"note is async\. A relay may not wait"):

        class App(AsyncWebsocketConsumer):
            @relay
            async def note(message: Any) -> str:
                return "x"


@pytest.mark.parametrize(
    "function",
    [
        lambda: "none",
        lambda self, message: "a method",
        lambda self: "self alone",
        lambda message, *, key: "a keyword",
        lambda message, other: "two",
    ],
)
def test_a_function_that_does_not_take_the_message_alone_is_refused(function: Any) -> None:
    with pytest.raises(TypeError, match=r"must take the message, or \(message, position\), and nothing else"):
        relay(function)


@pytest.mark.parametrize("thing", [3, "note", int, classmethod(lambda cls: None)])
def test_what_is_no_function_is_refused(thing: Any) -> None:
    with pytest.raises(TypeError, match="expected a function"):
        relay(thing)


@pytest.mark.parametrize(
    "function",
    [lambda message: 1, lambda message, extra=1: 1, lambda *messages: 1, staticmethod(lambda message: 1), str],
)
def test_what_can_be_called_with_the_message_is_taken(function: Callable[[Any], Any]) -> None:
    if function is not str:
        assert isinstance(relay(function), Relay)


def test_it_is_written_without_parentheses() -> None:
    with pytest.raises(TypeError, match="write @relay, without parentheses"):
        relay()


def test_it_is_called_as_a_plain_function_in_tests() -> None:
    assert Room.said({"text": "x"}) == "x"
    assert Room().said({"text": "y"}) == "y"


def test_the_name_of_a_method_of_the_framework_is_refused() -> None:
    with pytest.raises(TypeError, match=r"App\.close cannot be a relay: it is a method of the framework"):

        class App(AsyncWebsocketConsumer):
            @relay
            def close(message: Any) -> str:  # type: ignore[override]
                return "x"


def test_a_class_that_overrides_dispatch_may_have_none() -> None:
    with pytest.raises(TypeError, match=r"overrides dispatch\(\), which no relayed message passes"):

        class App(Room):
            async def dispatch(self, message: Any) -> None:
                await super().dispatch(message)


async def test_they_serve_websockets_alone() -> None:
    class App(AsyncHttpConsumer):
        @relay
        def note(message: Any) -> str:
            return "x"

    async with Client(App.as_asgi(), HTTP) as client:
        with pytest.raises(TypeError, match="App has relays: they serve WebSockets, and this is 'http'"):
            await client.ended()


async def test_a_result_that_is_no_json_is_the_relays_failure(caplog: pytest.LogCaptureFixture) -> None:
    class App(AsyncWebsocketConsumer):
        groups = ["g"]

        @relay
        def note(message: Any) -> Any:
            return {"x": object()}

    async with Client(App.as_asgi()) as client:
        await client.connect()
        receipt = await layer().group_send("g", {"type": "note"})
        assert receipt.dropped == 1
        assert "not JSON serializable" in caplog.text
