from __future__ import annotations

import asyncio
from types import SimpleNamespace
from typing import Any

import pytest
from asgiref.sync import async_to_sync

from antiphon.exceptions import JoinDenied, StopConsumer
from antiphon.generic.websocket import AsyncWebsocketConsumer, WebsocketConsumer
from antiphon.layers import get_channel_layer
from tests.consumers.client import Client, until


class Chat(AsyncWebsocketConsumer):
    """Joins "all", sends on what comes from it, and joins or leaves what the client says."""

    async def connect(self) -> None:
        await self.join("all")
        await self.accept()

    async def receive(self, text_data: str | None = None, bytes_data: bytes | None = None) -> None:
        verb, _, group = (text_data or "").partition(" ")
        if verb == "join":
            result = await self.join(group)
            await self.send(text_data=f"{result.group} {result.recovered}")
        elif verb == "leave":
            await self.leave(group)
            await self.send(text_data="left")
        elif verb == "fail":
            raise LookupError(group)

    async def chat_message(self, message: dict[str, Any]) -> None:
        await self.send(text_data=message["text"])


def user(pk: Any) -> Any:
    return SimpleNamespace(pk=pk, is_authenticated=True)


async def test_join_and_leave_decide_what_arrives() -> None:
    layer = get_channel_layer()
    async with Client(Chat.as_asgi()) as client:
        await client.connect()
        client.text("join room")
        assert await client.next_text() == "room None"
        await layer.group_send("room", {"type": "chat.message", "text": "1"})
        assert await client.next_text() == "1"
        client.text("leave room", "leave never.joined")
        assert [await client.next_text() for _ in range(2)] == ["left", "left"]
        await layer.group_send("room", {"type": "chat.message", "text": "2"})
        await layer.group_send("all", {"type": "chat.message", "text": "3"})
        assert await client.next_text() == "3"


async def test_joining_twice_brings_each_message_once() -> None:
    async with Client(Chat.as_asgi()) as client:
        await client.connect()
        client.text("join room", "join room")
        await client.next_text()
        await client.next_text()
        await get_channel_layer().group_send("room", {"type": "chat.message", "text": "1"})
        await get_channel_layer().group_send("room", {"type": "chat.message", "text": "2"})
        assert [await client.next_text(), await client.next_text()] == ["1", "2"]


@pytest.mark.parametrize("name", ["", "no spaces", "x" * 100, None, 7, "ünicode", "line\n"])
async def test_a_wrong_group_name_is_refused_at_the_call(name: Any) -> None:
    caught: list[Any] = []

    class App(AsyncWebsocketConsumer):
        async def connect(self) -> None:
            for call in (self.join, self.leave):
                with pytest.raises(TypeError, match="Group name must be a valid unicode string") as info:
                    await call(name)
                caught.append(str(info.value))
            await self.accept()

    async with Client(App.as_asgi()) as client:
        await client.connect()
    assert all(repr(name)[:100] in text for text in caught)
    assert len(caught) == 2


async def test_authorize_join_decides_and_in_connect_a_denied_join_denies_the_connection() -> None:
    class App(AsyncWebsocketConsumer):
        async def authorize_join(self, group: str) -> bool:
            return group == "public"

        async def connect(self) -> None:
            await self.join("public")
            await self.join(self.scope["path"].strip("/"))
            await self.accept()

    layer = get_channel_layer()
    async with Client(App.as_asgi(), {"path": "/secret/"}) as client:
        assert (await client.connect())["type"] == "websocket.close"
    assert layer.groups == {}
    async with Client(App.as_asgi(), {"path": "/public/"}) as client:
        assert (await client.connect())["type"] == "websocket.accept"


async def test_the_groups_of_the_class_are_authorized_too() -> None:
    class App(WebsocketConsumer):
        groups = ["secret"]

        def authorize_join(self, group: str) -> bool:  # type: ignore[override]  # the synchronous twin
            return False

    async with Client(App.as_asgi()) as client:
        assert (await client.connect())["type"] == "websocket.close"
    assert get_channel_layer().groups == {}


async def test_a_join_denied_later_can_be_caught_and_names_consumer_and_group() -> None:
    class App(AsyncWebsocketConsumer):
        async def authorize_join(self, group: str) -> bool:
            return False

        async def receive(self, text_data: str | None = None, bytes_data: bytes | None = None) -> None:
            try:
                await self.join("secret")
            except JoinDenied as exc:
                await self.send(text_data=str(exc))

    async with Client(App.as_asgi()) as client:
        await client.connect()
        client.text("?")
        said = await client.next_text()
        assert "App.authorize_join('secret') said no" in said


async def test_a_sync_consumer_joins_and_leaves_from_its_thread() -> None:
    class App(WebsocketConsumer):
        def connect(self) -> None:
            assert self.join("room").group == "room"
            self.accept()

        def receive(self, text_data: str | None = None, bytes_data: bytes | None = None) -> None:
            self.leave("room")
            self.send(text_data="left")

        def chat_message(self, message: dict[str, Any]) -> None:
            self.send(text_data=message["text"])

    layer = get_channel_layer()
    async with Client(App.as_asgi()) as client:
        await client.connect()
        await layer.group_send("room", {"type": "chat.message", "text": "1"})
        assert await client.next_text() == "1"
        client.text("leave")
        assert await client.next_text() == "left"
        assert layer.groups == {}


async def test_groups_are_left_however_the_connection_ends() -> None:
    class Failing(Chat):
        async def disconnect(self, code: int) -> None:
            raise LookupError("in disconnect")

    class Stopping(Chat):
        async def receive(self, text_data: str | None = None, bytes_data: bytes | None = None) -> None:
            raise StopConsumer

    class Raw(Chat):
        async def connect(self) -> None:
            await self.channel_layer.group_add("all", self.channel_name)
            await self.accept()

    async def leave(client: Client) -> None:
        client.vanish(1000)

    async def vanish(client: Client) -> None:
        client.vanish(1006)

    async def cancel(client: Client) -> None:
        client.task.cancel()

    async def text(client: Client) -> None:
        client.text("fail")

    ends: list[tuple[type[Chat], Any]] = [
        (Chat, leave),
        (Chat, vanish),
        (Chat, cancel),
        (Chat, text),
        (Failing, leave),
        (Failing, cancel),
        (Stopping, text),
        (Raw, leave),
        (Raw, cancel),
    ]
    layer = get_channel_layer()
    for app, end in ends:
        async with Client(app.as_asgi()) as client:
            await client.connect()
            assert list(layer.groups) == ["all"]
            await end(client)
            await asyncio.wait({client.task}, timeout=30)
            assert client.task.done(), (app, end)
            assert layer.groups == {}, (app, end)
            assert not layer.channels, (app, end)


async def test_groups_are_left_when_receive_of_the_server_fails() -> None:
    async def receive() -> Any:
        if not events:
            raise ConnectionResetError("the server's own trouble")
        return events.pop()

    async def send(event: Any) -> None:
        pass

    codes: list[int] = []

    class App(Chat):
        async def disconnect(self, code: int) -> None:
            codes.append(code)

    events = [{"type": "websocket.connect"}]
    with pytest.raises(ConnectionResetError):
        await App.as_asgi()({"type": "websocket"}, receive, send)
    assert get_channel_layer().groups == {}
    assert codes == [1006]


async def test_a_handler_that_is_late_cannot_join_after_its_client_has_gone() -> None:
    gate = asyncio.Event()

    class App(AsyncWebsocketConsumer):
        async def receive(self, text_data: str | None = None, bytes_data: bytes | None = None) -> None:
            await gate.wait()
            await self.join("late")
            seen.append(dict(layer.groups))

    seen: list[Any] = []
    layer = get_channel_layer()
    async with Client(App.as_asgi()) as client:
        await client.connect()
        client.text("x")
        client.vanish()
        await until(lambda: client.taken == 3)
        gate.set()
        await client.ended()
    assert seen == [{}]


async def test_user_send_reaches_all_connections_of_a_user_whose_class_asks_for_it() -> None:
    class Inbox(AsyncWebsocketConsumer):
        user_channel = True

        async def note(self, message: dict[str, Any]) -> None:
            await self.send(text_data=message["text"])

    class Deaf(Inbox):
        user_channel = False

    layer = get_channel_layer()
    apps = [(Inbox, user(1)), (Inbox, user(1)), (Deaf, user(1)), (Inbox, user(2)), (Inbox, None)]
    clients = [Client(app.as_asgi(), {"user": who}) for app, who in apps]
    for client in clients:
        client.start()
        await client.connect()
    await layer.user_send(user(1), {"type": "note", "text": "for one"})
    await layer.user_send(2, {"type": "note", "text": "for two"})
    assert [await clients[n].next_text() for n in (0, 1, 3)] == ["for one", "for one", "for two"]
    for client in clients:
        client.vanish()
        await client.ended()
    assert [client.texts for client in clients] == [["for one"], ["for one"], [], ["for two"], []]
    assert not layer.channels
    assert (await layer.user_send(1, {"type": "note", "text": "nobody"})).delivered in (0, None)


async def test_async_to_sync_of_a_group_send_inside_a_sync_handler_reaches_the_group() -> None:
    class App(WebsocketConsumer):
        groups = ["room"]

        def receive(self, text_data: str | None = None, bytes_data: bytes | None = None) -> None:
            async_to_sync(self.channel_layer.group_send)("room", {"type": "chat.message", "text": text_data})

        def chat_message(self, message: dict[str, Any]) -> None:
            self.send(text_data=message["text"])

    async with Client(App.as_asgi()) as one, Client(App.as_asgi()) as two:
        await one.connect()
        await two.connect()
        one.text("hello")
        assert (await one.next_text(), await two.next_text()) == ("hello", "hello")


async def test_group_add_from_the_layer_with_the_channel_name_works_in_sync_handlers() -> None:
    class App(WebsocketConsumer):
        def connect(self) -> None:
            async_to_sync(self.channel_layer.group_add)("room", self.channel_name)
            self.accept()

        def disconnect(self, code: int) -> None:
            async_to_sync(self.channel_layer.group_discard)("room", self.channel_name)

    layer = get_channel_layer()
    async with Client(App.as_asgi()) as client:
        await client.connect()
        assert list(layer.groups) == ["room"]
    assert layer.groups == {}
