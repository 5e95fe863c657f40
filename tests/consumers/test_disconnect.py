"""The client goes: what is still handled, what is not, and that disconnect runs once."""

from __future__ import annotations

import asyncio
from typing import Any

import pytest

from antiphon.generic.websocket import AsyncWebsocketConsumer
from antiphon.layers import get_channel_layer
from antiphon.types import Event
from tests.consumers.client import Client, left, until


async def test_groups_are_left_at_once_while_a_handler_still_runs() -> None:
    gate = asyncio.Event()

    class App(AsyncWebsocketConsumer):
        groups = ["all"]

        async def receive(self, text_data: str | None = None, bytes_data: bytes | None = None) -> None:
            await gate.wait()

    layer = get_channel_layer()
    async with Client(App.as_asgi()) as client:
        await client.connect()
        client.text("x")
        client.vanish()
        await until(lambda: layer.groups == {})
        assert not client.task.done()
        assert (await layer.group_send("all", {"type": "tick"})).delivered in (0, None)
        gate.set()
        await client.ended()


async def test_frames_that_arrived_before_the_disconnect_are_handled_before_it() -> None:
    log: list[str] = []

    class App(AsyncWebsocketConsumer):
        async def receive(self, text_data: str | None = None, bytes_data: bytes | None = None) -> None:
            await asyncio.sleep(0.005)
            log.append(str(text_data))

        async def disconnect(self, code: int) -> None:
            log.append(f"gone {code}")

    await left(App.as_asgi(), "1", "2", "3")
    assert log == ["1", "2", "3", "gone 1006"]


async def test_layer_messages_that_wait_are_not_handled_once_the_client_has_gone() -> None:
    gate = asyncio.Event()
    log: list[str] = []

    class App(AsyncWebsocketConsumer):
        groups = ["all"]

        async def receive(self, text_data: str | None = None, bytes_data: bytes | None = None) -> None:
            await gate.wait()
            log.append("frame")

        async def tick(self, message: dict[str, Any]) -> None:
            log.append("tick")

        async def disconnect(self, code: int) -> None:
            log.append("disconnect")

    async with Client(App.as_asgi()) as client:
        await client.connect()
        client.text("x")
        await until(lambda: client.taken == 2)
        for _ in range(3):
            await get_channel_layer().group_send("all", {"type": "tick"})
        client.vanish()
        await until(lambda: client.taken == 3)
        gate.set()
        await client.ended()
    assert log == ["frame", "disconnect"]


async def test_disconnect_runs_once_even_if_the_server_goes_on_reporting() -> None:
    codes: list[int] = []

    class App(AsyncWebsocketConsumer):
        async def disconnect(self, code: int) -> None:
            codes.append(code)

    async with Client(App.as_asgi()) as client:
        await client.connect()
        client.vanish(1001)
        client.vanish(1006)
        await client.ended()
    assert codes == [1001]


async def test_an_instance_is_gone_from_the_layer_while_nobody_waits_for_its_disconnect() -> None:
    class App(AsyncWebsocketConsumer):
        groups = ["all"]

        async def disconnect(self, code: int) -> None:
            # Sends of a moment too late reach nobody and disturb nobody.
            await self.send(text_data="bye")
            await self.channel_layer.group_send("all", {"type": "left"})

        async def left(self, message: dict[str, Any]) -> None:
            await self.send(text_data="somebody left")

    async with Client(App.as_asgi()) as stays:
        await stays.connect()
        async with Client(App.as_asgi(), raises_when_gone=True) as leaves:
            await leaves.connect()
        assert await stays.next_text() == "somebody left"
        assert leaves.texts == []


class Forgetful(Client):
    """As uvicorn, which forgets an accept when its client is just going."""

    async def _send(self, event: Event) -> None:
        raise RuntimeError(f"Expected ASGI message 'websocket.accept' but got {event['type']!r}.")


async def test_a_client_that_goes_while_it_is_accepted_is_no_error(caplog: pytest.LogCaptureFixture) -> None:
    log: list[str] = []

    class App(AsyncWebsocketConsumer):
        async def connect(self) -> None:
            await self.accept()
            await self.send("Welcome")
            log.append("connected")

        async def disconnect(self, code: int) -> None:
            log.append(f"gone {code}")

    async with Forgetful(App.as_asgi()) as client:
        client.put({"type": "websocket.connect"})
        await until(lambda: log)
        client.vanish()
        await client.ended()
    assert log == ["connected", "gone 1006"]
    assert caplog.records == []


async def test_what_a_server_refuses_for_another_reason_is_an_error(caplog: pytest.LogCaptureFixture) -> None:
    class App(AsyncWebsocketConsumer):
        async def connect(self) -> None:
            await self.base_send({"type": "websocket.wave"})

    async with Forgetful(App.as_asgi()) as client:
        client.put({"type": "websocket.connect"})
        await until(lambda: caplog.records)
        client.vanish()
    assert "websocket.wave" in caplog.text
