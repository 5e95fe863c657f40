"""Antiphon's consumers over a layer written for Channels: the real in-memory one. Run by test_with_channels.py."""

from __future__ import annotations

from typing import Any

import pytest
from channels.layers import InMemoryChannelLayer

from antiphon.generic.websocket import AsyncWebsocketConsumer, WebsocketConsumer
from antiphon.layers import channel_layers, get_channel_layer
from antiphon.testing import WebsocketCommunicator


class Chat(AsyncWebsocketConsumer):
    groups = ("chat",)

    async def receive(self, text_data: str | None = None, bytes_data: bytes | None = None) -> None:
        await self.channel_layer.group_send("chat", {"type": "chat.message", "text": text_data})

    async def chat_message(self, event: dict[str, Any]) -> None:
        await self.send(text_data=event["text"])


class SyncChat(WebsocketConsumer):
    groups = ("chat",)

    def chat_message(self, event: dict[str, Any]) -> None:
        self.send(text_data=event["text"])


class Joining(AsyncWebsocketConsumer):
    async def connect(self) -> None:
        await self.join("chat")
        await self.accept()

    async def chat_message(self, event: dict[str, Any]) -> None:
        await self.send(text_data=event["text"])


@pytest.fixture
def layer() -> Any:
    channel_layers.backends.clear()
    layer = get_channel_layer()
    assert type(layer) is InMemoryChannelLayer
    return layer


@pytest.mark.parametrize("consumer", [Chat, SyncChat, Joining])
async def test_consumers_hear_their_groups_and_leave_them(layer: Any, consumer: Any) -> None:
    one, two = (WebsocketCommunicator(consumer.as_asgi(), "/") for _ in range(2))
    assert await one.connect() == await two.connect() == (True, None)
    assert len(layer.groups["chat"]) == 2
    for text in ("first", "second"):
        await layer.group_send("chat", {"type": "chat.message", "text": text})
        assert await one.receive_from() == await two.receive_from() == text
    await one.disconnect()
    await layer.group_send("chat", {"type": "chat.message", "text": "third"})
    assert await two.receive_from() == "third"
    await two.disconnect()
    assert layer.groups == {}


async def test_clients_reach_each_other(layer: Any) -> None:
    one, two = (WebsocketCommunicator(Chat.as_asgi(), "/") for _ in range(2))
    await one.connect()
    await two.connect()
    await one.send_to(text_data="hello")
    assert await one.receive_from() == await two.receive_from() == "hello"
    await one.disconnect()
    await two.disconnect()


async def test_a_message_for_one_channel_arrives(layer: Any) -> None:
    class Named(Chat):
        async def connect(self) -> None:
            await self.accept()
            await self.send(text_data=self.channel_name)

    communicator = WebsocketCommunicator(Named.as_asgi(), "/")
    await communicator.connect()
    await layer.send(await communicator.receive_from(), {"type": "chat.message", "text": "direct"})
    assert await communicator.receive_from() == "direct"
    await communicator.disconnect()
