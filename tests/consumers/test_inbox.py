from __future__ import annotations

import asyncio
from typing import Any

from antiphon import framework
from antiphon.generic.websocket import AsyncWebsocketConsumer
from antiphon.layers import get_channel_layer
from tests.consumers.client import Client, until


class Gated(AsyncWebsocketConsumer):
    """Handles a frame each time its gate is opened."""

    gate: asyncio.Semaphore

    async def receive(self, text_data: str | None = None, bytes_data: bytes | None = None) -> None:
        await self.gate.acquire()
        await self.send(text_data=text_data if text_data is not None else str(len(bytes_data or b"")))


def gated(**attributes: Any) -> Any:
    return type("App", (Gated,), {"gate": asyncio.Semaphore(0), **attributes})


async def settled(client: Client) -> int:
    """Return how many events were taken once no more are."""
    taken = -1
    while taken != client.taken:
        taken = client.taken
        await asyncio.sleep(0.02)
    return taken


async def test_a_full_inbox_stops_the_reading_and_it_goes_on_when_there_is_room() -> None:
    App = gated(receive_limit=(3, 1 << 20))
    async with Client(App.as_asgi()) as client:
        await client.connect()
        client.text(*(str(n) for n in range(50)))
        # The connect, one frame in the handler, three that wait.
        assert await settled(client) == 1 + 1 + 3
        App.gate.release()
        assert await settled(client) == 1 + 2 + 3
        for _ in range(49):
            App.gate.release()
        await until(lambda: len(client.texts) == 50)
        assert client.texts == [str(n) for n in range(50)]


async def test_bytes_that_wait_stop_the_reading_too() -> None:
    App = gated(receive_limit=(1000, 100))
    async with Client(App.as_asgi()) as client:
        await client.connect()
        for _ in range(20):
            client.put({"type": "websocket.receive", "bytes": bytes(40)})
        assert await settled(client) == 1 + 1 + 3  # 3 x 40 is the first that is not below 100
        for _ in range(20):
            App.gate.release()
        await until(lambda: len(client.texts) == 20)


async def test_the_option_gives_the_limits_and_a_class_may_give_one_of_them() -> None:
    framework.install(framework.Framework(receive_limit_frames=2, receive_limit_bytes=100))
    for limit, waiting in ((None, 2), ((5, None), 5), ((None, 10), 1)):
        App = gated(receive_limit=limit)
        async with Client(App.as_asgi()) as client:
            await client.connect()
            client.text(*["0123456789"] * 9)
            assert await settled(client) == 1 + 1 + waiting
            for _ in range(9):
                App.gate.release()
            await until(lambda: len(client.texts) == 9)


async def test_one_frame_larger_than_the_byte_limit_passes() -> None:
    App = gated(receive_limit=(64, 10))
    async with Client(App.as_asgi()) as client:
        await client.connect()
        client.text("x" * 1000, "y")
        App.gate.release()
        App.gate.release()
        assert await client.next_text() == "x" * 1000
        assert await client.next_text() == "y"


async def test_layer_messages_pass_a_full_inbox() -> None:
    class App(Gated):
        groups = ["all"]
        gate = asyncio.Semaphore(0)
        receive_limit = (1, 100)

        async def tick(self, message: dict[str, Any]) -> None:
            await self.send(text_data="tick")

    async with Client(App.as_asgi()) as client:
        await client.connect()
        client.text("1", "2", "3")
        await settled(client)
        await get_channel_layer().group_send("all", {"type": "tick"})
        App.gate.release()
        assert [await client.next_text(), await client.next_text()] == ["1", "tick"]
        App.gate.release()
        App.gate.release()


async def test_a_connection_closed_by_us_ends_although_its_inbox_is_full() -> None:
    class App(Gated):
        gate = asyncio.Semaphore(0)
        receive_limit = (1, 100)
        disconnect_grace_s = 0.05

    layer = get_channel_layer()
    async with Client(App.as_asgi()) as client:
        await client.connect()
        client.text("1", "2", "3", "4")
        await settled(client)
        (channel,) = layer.channels
        await layer.close_channel(channel)
        assert await client.closed() == (4403, "revoked")
        await client.ended()
