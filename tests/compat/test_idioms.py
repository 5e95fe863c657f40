"""What public code does with consumers of Channels beyond their documentation, and must go on working."""

from __future__ import annotations

import asyncio
import contextlib
from typing import Any
from unittest import mock

from antiphon import framework
from antiphon.compat.testing import WebsocketCommunicator
from antiphon.consumer import AsyncConsumer
from antiphon.generic.websocket import AsyncJsonWebsocketConsumer, AsyncWebsocketConsumer, WebsocketConsumer
from antiphon.layers import get_channel_layer


class Room(AsyncWebsocketConsumer):
    groups: Any = ("room",)

    async def chat_message(self, event: dict[str, Any]) -> None:
        await self.send(text_data=event["text"])


@contextlib.asynccontextmanager
async def connected(consumer: Any) -> Any:
    communicator = WebsocketCommunicator(consumer.as_asgi(), "/")
    assert await communicator.connect() == (True, None)
    yield communicator
    await communicator.disconnect()


async def tell(kind: str, **message: Any) -> None:
    await get_channel_layer().group_send("room", {"type": kind, **message})


async def test_a_class_that_overrides_dispatch_sees_messages_that_no_handler_takes() -> None:
    class Listening(Room):
        async def dispatch(self, message: dict[str, Any]) -> None:
            if message["type"] == "graph.event":
                await self.send(text_data=f"listened: {message['n']}")
                return
            await super().dispatch(message)

    async with connected(Listening) as client:
        await tell("graph.event", n=1)
        assert await client.receive_from() == "listened: 1"
        await tell("chat.message", text="and handled")
        assert await client.receive_from() == "and handled"


async def test_what_an_overridden_dispatch_passes_on_is_what_is_handled() -> None:
    class Renaming(Room):
        async def dispatch(self, message: dict[str, Any]) -> None:
            await super().dispatch({**message, "type": message["type"].replace("-", "_")})

    async with connected(Renaming) as client:
        await tell("chat-message", text="renamed")
        assert await client.receive_from() == "renamed"


async def test_an_overridden_dispatch_may_swallow_what_nobody_handles() -> None:
    class Lenient(Room):
        async def dispatch(self, message: dict[str, Any]) -> None:
            with contextlib.suppress(ValueError):
                await super().dispatch(message)

    async with connected(Lenient) as client:
        await tell("nobody.handles.this")
        await tell("_malformed")
        await tell("chat.message", text="still here")
        assert await client.receive_from() == "still here"


async def test_a_dispatch_in_a_task_still_refuses_the_framework_s_own_names() -> None:
    refused = []

    class Concurrent(Room):
        async def dispatch(self, message: dict[str, Any]) -> None:
            if message["type"].startswith("websocket."):
                await super().dispatch(message)
                return
            task = asyncio.create_task(super().dispatch(message))
            task.add_done_callback(lambda done: refused.append(done.exception()))

    async with connected(Concurrent) as client:
        await tell("close")
        await tell("chat.message", text="open")
        assert await client.receive_from() == "open"
    assert "close() is a method of the framework" in str(refused[0])


async def test_a_synchronous_class_may_override_dispatch_too() -> None:
    seen = []

    class Watching(WebsocketConsumer):
        groups = ("room",)

        async def dispatch(self, message: dict[str, Any]) -> None:
            seen.append(message["type"])
            await super().dispatch(message)

        def chat_message(self, event: dict[str, Any]) -> None:
            self.send(text_data=event["text"])

    async with connected(Watching) as client:
        await tell("chat.message", text="seen")
        assert await client.receive_from() == "seen"
    assert seen == ["websocket.connect", "chat.message", "websocket.disconnect"]


async def test_send_json_may_be_called_through_the_layer() -> None:
    class Json(AsyncJsonWebsocketConsumer):
        groups: Any = ("room",)

    async with connected(Json) as client:
        await tell("send_json", text="whole")
        assert await client.receive_json_from() == {"type": "send_json", "text": "whole"}


async def test_handlers_may_have_names_that_only_antiphon_uses() -> None:
    class Game(Room):
        async def join(self, event: Any) -> Any:  # type: ignore[override]  # as an application may have it
            await self.send(text_data=f"{event['who']} joined")

        async def leave(self, event: Any) -> Any:
            await self.send(text_data=f"{event['who']} left")

    with mock.patch.object(framework, "compat", new=True):
        async with connected(Game) as client:
            await tell("join", who="ann")
            assert await client.receive_from() == "ann joined"
            await tell("leave", who="ann")
            assert await client.receive_from() == "ann left"


def test_names_of_ours_that_channels_does_not_have_say_whose_they_are() -> None:
    classes = {base for cls in (AsyncJsonWebsocketConsumer, WebsocketConsumer) for base in cls.__mro__} - {object}
    private = {name for cls in classes for name in vars(cls) if name.startswith("_") and not name.startswith("__")}
    assert AsyncConsumer in classes
    assert {name for name in private if not name.startswith("_antiphon")} <= {"_sync"}
