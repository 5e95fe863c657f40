"""What a connection may do: sizes, rates, numbers per user, and what becomes of a consumer that is too slow."""

from __future__ import annotations

import asyncio
import time
from typing import Any

import pytest

from antiphon import framework
from antiphon.consumers.limits import RateLimit
from antiphon.exceptions import OptionError
from antiphon.generic.websocket import AsyncWebsocketConsumer, WebsocketConsumer
from antiphon.layers import InMemoryChannelLayer, channel_layers, get_channel_layer
from tests.consumers.client import Client, Echo, until, user


async def test_a_frame_beyond_max_message_bytes_closes_with_1009_and_is_not_handled() -> None:
    class App(Echo):
        max_message_bytes = 10

    async with Client(App.as_asgi()) as client:
        await client.connect()
        client.text("x" * 10)
        assert await client.next_text() == "x" * 10
        client.text("x" * 11)
        assert await client.closed() == (1009, "too_big")
        await client.ended()
    async with Client(App.as_asgi()) as client:
        await client.connect()
        client.put({"type": "websocket.receive", "bytes": bytes(11)})
        assert await client.closed() == (1009, "too_big")


async def test_frames_before_the_one_that_is_too_big_are_handled() -> None:
    seen: list[str | None] = []

    class App(AsyncWebsocketConsumer):
        max_message_bytes = 10

        async def receive(self, text_data: str | None = None, bytes_data: bytes | None = None) -> None:
            await asyncio.sleep(0.01)
            seen.append(text_data)

    async with Client(App.as_asgi()) as client:
        await client.connect()
        client.text("1", "2", "x" * 11, "3")
        assert await client.closed() == (1009, "too_big")
        await client.ended()
    assert seen == ["1", "2"]


async def test_a_client_above_its_rate_is_closed_with_1008() -> None:
    class App(Echo):
        rate_limit = "5/m"

    async with Client(App.as_asgi()) as client:
        await client.connect()
        client.text(*"12345")
        assert [await client.next_text() for _ in range(5)] == list("12345")
        client.text("6")
        assert await client.closed() == (1008, "rate_limit")
        await client.ended()
        assert client.texts == list("12345")


async def test_a_client_within_its_rate_goes_on() -> None:
    bucket = RateLimit(5, 0.1)
    began = time.monotonic()
    while time.monotonic() - began < 0.3:
        assert bucket.take()
        await asyncio.sleep(0.022)
    assert all(bucket.take() for _ in range(1))


async def test_a_wrong_rate_is_named_when_the_connection_begins() -> None:
    class App(Echo):
        rate_limit = "often"

    with pytest.raises(OptionError, match="rate_limit: expected '20/s'"):
        await App.as_asgi()({"type": "websocket"}, None, None)


async def test_options_give_the_limits_of_classes_that_name_none() -> None:
    framework.install(framework.Framework(max_message_bytes=5, rate_limit="2/m"))
    async with Client(Echo.as_asgi()) as client:
        await client.connect()
        client.text("123456")
        assert await client.closed() == (1009, "too_big")
    async with Client(Echo.as_asgi()) as client:
        await client.connect()
        client.text("1", "2", "3")
        assert [await client.next_text(), await client.next_text()] == ["1", "2"]
        assert await client.closed() == (1008, "rate_limit")


async def test_the_newest_connection_beyond_max_connections_per_user_is_denied() -> None:
    log: list[str] = []

    class App(Echo):
        max_connections_per_user = 2

        async def connect(self) -> None:
            log.append("connect")
            await self.accept()

        async def disconnect(self, code: int) -> None:
            log.append("disconnect")

    apps = [Client(App.as_asgi(), {"user": user(1)}) for _ in range(3)]
    async with apps[0] as one, apps[1] as two:
        await one.connect()
        await two.connect()
        async with apps[2] as three:
            assert await three.connect() == {
                "type": "websocket.close",
                "code": 4430,
                "reason": "too_many_connections",
            }
            await three.ended()
        async with Client(App.as_asgi(), {"user": user(2)}) as other, Client(App.as_asgi()) as anonymous:
            assert (await other.connect())["type"] == "websocket.accept"
            assert (await anonymous.connect())["type"] == "websocket.accept"
        one.vanish()
        await one.ended()
        async with Client(App.as_asgi(), {"user": user(1)}) as again:
            assert (await again.connect())["type"] == "websocket.accept"
    # The one that was denied saw neither.
    assert (log.count("connect"), log.count("disconnect")) == (5, 5)


@pytest.mark.parametrize("base", [AsyncWebsocketConsumer, WebsocketConsumer])
async def test_a_consumer_too_slow_for_its_mailbox_is_closed_where_the_policy_says_so(base: Any) -> None:
    gate = asyncio.Event()

    class App(AsyncWebsocketConsumer):
        groups = ["all"]
        capacity = 3
        overflow = "close"

        async def tick(self, message: dict[str, Any]) -> None:
            await gate.wait()

    layer = get_channel_layer()
    async with Client(App.as_asgi()) as client:
        await client.connect()
        for _ in range(10):
            await layer.group_send("all", {"type": "tick"})
            await asyncio.sleep(0)
        assert await client.closed() == (1013, "slow")
        gate.set()
        await client.ended()
    assert layer.stats()["drops"]["slow"] == 1


@pytest.mark.parametrize(("policy", "kept"), [("drop_new", [0, 1, 2, 3]), ("drop_old", [0, 7, 8, 9])])
async def test_the_other_policies_drop_and_keep_the_connection(policy: str, kept: list[int]) -> None:
    gate = asyncio.Event()

    class App(AsyncWebsocketConsumer):
        groups = ["all"]
        capacity = 3
        overflow = policy

        async def tick(self, message: dict[str, Any]) -> None:
            await gate.wait()
            await self.send(text_data=str(message["n"]))

    layer = get_channel_layer()
    async with Client(App.as_asgi()) as client:
        await client.connect()
        for n in range(10):
            await layer.group_send("all", {"type": "tick", "n": n})
            await asyncio.sleep(0.001)
        gate.set()
        assert [int(await client.next_text()) for _ in range(4)] == kept
    assert sum(layer.stats()["drops"].values()) == 6


async def test_the_policy_of_the_layer_holds_where_the_class_names_none() -> None:
    channel_layers.set("default", InMemoryChannelLayer(capacity=2, overflow="close"))

    class App(AsyncWebsocketConsumer):
        groups = ["all"]

        async def tick(self, message: dict[str, Any]) -> None:
            await asyncio.sleep(0.05)

    async with Client(App.as_asgi()) as client:
        await client.connect()
        for _ in range(10):
            await get_channel_layer().group_send("all", {"type": "tick"})
        assert await client.closed() == (1013, "slow")


async def test_what_waits_for_a_connection_that_ends_is_counted() -> None:
    gate = asyncio.Event()

    class App(AsyncWebsocketConsumer):
        groups = ["all"]

        async def tick(self, message: dict[str, Any]) -> None:
            await gate.wait()

    layer = get_channel_layer()
    async with Client(App.as_asgi()) as client:
        await client.connect()
        for _ in range(5):
            await layer.group_send("all", {"type": "tick"})
        await until(lambda: layer.stats()["waiting"] == 4)
        client.vanish()
        await until(lambda: client.taken == 2)
        gate.set()
        await client.ended()
    assert layer.stats()["drops"] == {"closed": 4}
