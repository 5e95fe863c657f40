from __future__ import annotations

import asyncio
from typing import Any

import pytest

from antiphon import framework, relay
from antiphon.consumer import AsyncConsumer
from antiphon.exceptions import InvalidChannelLayerError
from antiphon.generic.websocket import AsyncWebsocketConsumer, WebsocketConsumer
from antiphon.layers import channel_layers
from antiphon.testing import ApplicationCommunicator
from tests.consumers.client import Client, left, until


class Foreign:
    """A layer with nothing but what the specification of channel layers names, one queue a channel."""

    extensions = ["groups"]
    capacity = 100

    def __init__(self) -> None:
        self.queues: dict[str, asyncio.Queue[Any]] = {}
        self.groups: dict[str, set[str]] = {}
        self.made = 0

    async def new_channel(self, prefix: str = "specific") -> str:
        self.made += 1
        return f"{prefix}.theirs!{self.made}"

    async def send(self, channel: str, message: dict[str, Any]) -> None:
        self.queues.setdefault(channel, asyncio.Queue()).put_nowait(dict(message))

    async def receive(self, channel: str) -> Any:
        return await self.queues.setdefault(channel, asyncio.Queue()).get()

    async def group_add(self, group: str, channel: str) -> None:
        self.groups.setdefault(group, set()).add(channel)

    async def group_discard(self, group: str, channel: str) -> None:
        self.groups[group].discard(channel)
        if not self.groups[group]:
            del self.groups[group]

    async def group_send(self, group: str, message: dict[str, Any]) -> None:
        for channel in self.groups.get(group, ()):
            await self.send(channel, message)


class OnlyReceive:
    """A layer without groups."""

    async def new_channel(self) -> str:
        return "only!1"

    async def receive(self, channel: str) -> Any:
        return await queue.get()


queue: asyncio.Queue[Any] = asyncio.Queue()


@pytest.fixture
def layer() -> Foreign:
    foreign = Foreign()
    channel_layers.set("default", foreign)
    return foreign


class Chat(AsyncWebsocketConsumer):
    groups = ["all"]

    async def chat_message(self, message: dict[str, Any]) -> None:
        await self.send(text_data=message["text"])


class SyncChat(WebsocketConsumer):
    groups = ["all"]

    def chat_message(self, message: dict[str, Any]) -> None:
        self.send(text_data=message["text"])


@pytest.mark.parametrize("App", [Chat, SyncChat])
async def test_a_consumer_runs_over_a_foreign_layer_and_leaves_its_groups(App: Any, layer: Foreign) -> None:
    async with Client(App.as_asgi()) as one, Client(App.as_asgi()) as two:
        await one.connect()
        await two.connect()
        await layer.group_send("all", {"type": "chat.message", "text": "hello"})
        assert (await one.next_text(), await two.next_text()) == ("hello", "hello")
        two.task.cancel()
        await asyncio.wait({two.task})
        assert layer.groups == {"all": {"specific.theirs!1"}}
    assert layer.groups == {}


async def test_messages_arrive_in_order_and_one_at_a_time(layer: Foreign) -> None:
    async with Client(Chat.as_asgi()) as client:
        await client.connect()
        for n in range(50):
            await layer.group_send("all", {"type": "chat.message", "text": str(n)})
        assert [await client.next_text() for _ in range(50)] == [str(n) for n in range(50)]


async def test_a_stuck_handler_leaves_messages_in_the_layer_whose_capacity_then_holds(layer: Foreign) -> None:
    gate = asyncio.Event()

    class App(Chat):
        async def chat_message(self, message: dict[str, Any]) -> None:
            await gate.wait()
            await self.send(text_data=message["text"])

    async with Client(App.as_asgi()) as client:
        await client.connect()
        for n in range(50):
            await layer.group_send("all", {"type": "chat.message", "text": str(n)})
        await asyncio.sleep(0.02)
        assert layer.queues["specific.theirs!1"].qsize() >= 48
        gate.set()
        assert [await client.next_text() for _ in range(50)] == [str(n) for n in range(50)]


async def test_the_guard_holds_over_a_foreign_layer(layer: Foreign, caplog: pytest.LogCaptureFixture) -> None:
    async with Client(Chat.as_asgi()) as client:
        await client.connect()
        await layer.group_send("all", {"type": "close"})
        await layer.group_send("all", {"type": "chat.message", "text": "still here"})
        assert await client.next_text() == "still here"
    assert "'close' is refused" in caplog.text


async def test_a_layer_that_only_has_receive_serves_a_consumer() -> None:
    channel_layers.set("default", OnlyReceive())

    class App(AsyncConsumer):
        async def note(self, message: dict[str, Any]) -> None:
            await self.send({"type": "noted", "text": message["text"]})

    app = ApplicationCommunicator(App.as_asgi(), {"type": "test"})
    _ = app.future
    queue.put_nowait({"type": "note", "text": "x"})
    assert await app.receive_output() == {"type": "noted", "text": "x"}
    app.stop()


async def test_joining_over_a_layer_without_groups_says_so() -> None:
    channel_layers.set("default", OnlyReceive())
    async with Client(Chat.as_asgi(), {"antiphon.test": True}) as client:
        with pytest.raises(InvalidChannelLayerError, match="doesn't support groups"):
            await client.connect()


async def test_a_layer_whose_receive_fails_ends_the_connection_and_disconnect_runs(layer: Foreign) -> None:
    codes: list[int] = []

    class App(Chat):
        async def disconnect(self, code: int) -> None:
            codes.append(code)

    async def receive(channel: str) -> Any:
        await asyncio.sleep(0.01)
        raise ConnectionError("their server is gone")

    layer.receive = receive  # type: ignore[method-assign]
    client = Client(App.as_asgi())
    client.start()
    await client.connect()
    with pytest.raises(ConnectionError, match="their server is gone"):
        await client.ended()
    assert codes == [1006]
    assert layer.groups == {}


async def test_a_disconnect_runs_although_leaving_a_group_fails(
    layer: Foreign, caplog: pytest.LogCaptureFixture
) -> None:
    codes: list[int] = []

    class App(Chat):
        async def disconnect(self, code: int) -> None:
            codes.append(code)

    async def group_discard(group: str, channel: str) -> None:
        raise ConnectionError("their server is gone")

    layer.group_discard = group_discard  # type: ignore[method-assign]
    await left(App.as_asgi())
    assert codes == [1006]


async def test_where_channels_ways_hold_a_consumer_runs_without_any_layer(monkeypatch: pytest.MonkeyPatch) -> None:
    class App(AsyncWebsocketConsumer):
        channel_layer_alias = "nowhere"

        async def connect(self) -> None:
            assert self.channel_layer is None
            await self.accept()

    with monkeypatch.context() as patch:
        patch.setattr(framework, "compat", True)
        async with Client(App.as_asgi()) as client:
            assert (await client.connect())["type"] == "websocket.accept"


async def test_limits_and_grace_hold_over_a_foreign_layer(layer: Foreign) -> None:
    log: list[str] = []

    class App(Chat):
        disconnect_grace_s = 0.05
        max_message_bytes = 5

        async def receive(self, text_data: str | None = None, bytes_data: bytes | None = None) -> None:
            log.append("begun")
            await asyncio.sleep(3600)

    async with Client(App.as_asgi()) as client:
        await client.connect()
        client.text("short", "too long")
        assert await client.closed() == (1009, "too_big")
        await client.ended()
    await until(lambda: layer.groups == {})
    assert log == ["begun"]


async def test_relays_work_for_messages_of_a_foreign_layer(layer: Foreign) -> None:
    class App(AsyncWebsocketConsumer):
        groups = ["g"]

        @relay
        def note(message: Any) -> Any:
            return message["text"]

    async with Client(App.as_asgi()) as client:
        await client.connect()
        await layer.group_send("g", {"type": "note", "text": "relayed"})
        assert await client.next_text() == "relayed"
