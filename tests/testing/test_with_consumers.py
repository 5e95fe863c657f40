"""The communicators with consumers: their errors, the database of the test, messages that wait for a commit."""

from __future__ import annotations

import asyncio
from typing import Any

import pytest
from asgiref.sync import sync_to_async
from django.contrib.auth import get_user_model
from django.db import connection
from django.test import TestCase

import antiphon
from antiphon import get_channel_layer
from antiphon.db import database_sync_to_async
from antiphon.generic.http import AsyncHttpConsumer
from antiphon.generic.websocket import AsyncJsonWebsocketConsumer, AsyncWebsocketConsumer, WebsocketConsumer
from antiphon.testing import GroupMessagesMixin, HttpCommunicator, WebsocketCommunicator


def names() -> str:
    return ",".join(get_user_model().objects.order_by("username").values_list("username", flat=True))


class SyncNames(WebsocketConsumer):
    """Runs its queries in synchronous handlers, and tells a group."""

    groups = ("names",)

    def receive(self, text_data: str | None = None, bytes_data: bytes | None = None) -> None:
        get_user_model().objects.create(username=text_data or "")
        antiphon.group_send("names", {"type": "names.changed"})
        self.send(names())

    def names_changed(self, event: dict[str, Any]) -> None:
        self.send("changed: " + names())


class AsyncNames(AsyncWebsocketConsumer):
    """Runs its queries in a thread and natively."""

    async def receive(self, text_data: str | None = None, bytes_data: bytes | None = None) -> None:
        await get_user_model().objects.acreate(username=text_data or "")
        await self.send(await database_sync_to_async(names)())


class HttpNames(AsyncHttpConsumer):
    """Answers with the names."""

    async def handle(self, body: bytes) -> None:
        found = await database_sync_to_async(names)()
        await self.send_response(200, found.encode(), headers=[(b"Content-Type", b"text/plain")])


class InsideATransaction(GroupMessagesMixin, TestCase):
    """Consumers see the rows of a TestCase, whichever way they ask, and its connection stays open."""

    @classmethod
    def setUpTestData(cls) -> None:
        get_user_model().objects.create(username="ada")

    async def test_synchronous_handlers(self) -> None:
        async with WebsocketCommunicator(SyncNames.as_asgi(), "/") as client:
            await client.send_to("bob")
            assert await client.receive_from() == "ada,bob"
            assert await client.receive_nothing(timeout=0.02)  # the message waits for the commit
            assert self.group_messages.to("names") == [{"type": "names.changed"}]
            await self.group_messages.acommit()
            assert await client.receive_from() == "changed: ada,bob"
        assert await sync_to_async(names)() == "ada,bob"

    async def test_asynchronous_handlers(self) -> None:
        async with WebsocketCommunicator(AsyncNames.as_asgi(), "/") as client:
            for name in ("bob", "eve"):
                await client.send_to(name)
                assert str(await client.receive_from()).endswith(name)
        assert await sync_to_async(names)() == "ada,bob,eve"

    async def test_http(self) -> None:
        response = await HttpCommunicator(HttpNames.as_asgi(), "GET", "/").get_response()
        assert response["body"] == b"ada"

    async def test_the_connection_of_the_test_is_not_closed(self) -> None:
        before = await sync_to_async(lambda: connection.connection)()
        async with WebsocketCommunicator(AsyncNames.as_asgi(), "/") as client:
            await client.send_to("bob")
            await client.receive_from()
        assert await sync_to_async(lambda: connection.connection)() is before is not None


class Fragile(AsyncJsonWebsocketConsumer):
    """Fails where it is told to."""

    async def connect(self) -> None:
        if self.scope["path"] == "/connect/":
            raise LookupError("in connect")
        await self.accept()

    async def receive_json(self, content: Any, **kwargs: Any) -> None:
        raise LookupError("in receive_json")

    async def disconnect(self, code: int) -> None:
        if self.scope["path"] == "/disconnect/":
            raise LookupError("in disconnect")


async def test_what_connect_raises_comes_out() -> None:
    with pytest.raises(LookupError, match="in connect"):
        await WebsocketCommunicator(Fragile.as_asgi(), "/connect/").connect()


async def test_what_a_handler_raises_comes_out() -> None:
    client = WebsocketCommunicator(Fragile.as_asgi(), "/")
    await client.connect()
    await client.send_json_to({})
    with pytest.raises(LookupError, match="in receive_json"):
        await client.receive_json_from()


async def test_what_disconnect_raises_comes_out() -> None:
    client = WebsocketCommunicator(Fragile.as_asgi(), "/disconnect/")
    await client.connect()
    with pytest.raises(LookupError, match="in disconnect"):
        await client.disconnect()


async def test_an_unknown_type_of_message_comes_out() -> None:
    class Listens(AsyncWebsocketConsumer):
        groups = ("room",)

    client = WebsocketCommunicator(Listens.as_asgi(), "/")
    await client.connect()
    await get_channel_layer().group_send("room", {"type": "no.such.handler"})
    with pytest.raises(ValueError, match=r"no[._]such[._]handler"):
        await client.receive_from()


async def test_a_stopped_communicator_leaves_its_groups() -> None:
    class Listens(AsyncWebsocketConsumer):
        groups = ("room",)

    client = WebsocketCommunicator(Listens.as_asgi(), "/")
    await client.connect()
    layer = get_channel_layer()
    assert await layer.group_count("room") == 1
    client.stop()
    await asyncio.wait({client.future}, timeout=30)
    assert await layer.group_count("room") == 0
