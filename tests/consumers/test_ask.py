"""``ask``: one consumer's answer, or the reason why there is none."""

from __future__ import annotations

import asyncio
from collections.abc import Iterator
from typing import Any

import pytest

from antiphon.engines.memory import MemoryBus
from antiphon.exceptions import AskFailed, ChannelFull, NodeUnreachable
from antiphon.generic.websocket import AsyncWebsocketConsumer, WebsocketConsumer
from antiphon.layers import channel_layers, get_channel_layer
from tests.consumers.client import Client
from tests.layer.places import FarLayer, Place


class Answers(AsyncWebsocketConsumer):
    capacity = 2
    disconnect_grace_s = 0.1

    async def double(self, message: dict[str, Any]) -> Any:
        return message["n"] * 2

    async def wait(self, message: dict[str, Any]) -> str:
        await asyncio.sleep(0.01)
        return "waited"

    async def never(self, message: dict[str, Any]) -> None:
        await asyncio.Event().wait()

    async def wrong(self, message: dict[str, Any]) -> Any:
        raise LookupError("no such thing")

    async def strange(self, message: dict[str, Any]) -> Any:
        return object()

    def on_error(self, exc: Exception, handler: str) -> Any:
        return True


class SyncAnswers(WebsocketConsumer):
    def double(self, message: dict[str, Any]) -> Any:
        return message["n"] * 2


async def channel_of(client: Client) -> str:
    await client.connect()
    layer: Any = get_channel_layer()
    (channel,) = [name for node in layer._alive() for name in node.hub.mailboxes]
    return str(channel)


@pytest.mark.parametrize("cls", [Answers, SyncAnswers])
async def test_a_consumer_answers_with_what_its_handler_returns(cls: Any) -> None:
    layer: Any = get_channel_layer()
    async with Client(cls.as_asgi()) as client:
        channel = await channel_of(client)
        assert await layer.ask(channel, {"type": "double", "n": 21}) == 42
        answers = await asyncio.gather(*(layer.ask(channel, {"type": "double", "n": n}) for n in range(2)))
        assert answers == [0, 2]


async def test_a_handler_may_wait_and_messages_keep_their_order() -> None:
    layer: Any = get_channel_layer()
    async with Client(Answers.as_asgi()) as client:
        channel = await channel_of(client)
        first = asyncio.ensure_future(layer.ask(channel, {"type": "wait"}))
        second = asyncio.ensure_future(layer.ask(channel, {"type": "double", "n": 1}))
        await asyncio.wait([first, second], return_when=asyncio.FIRST_COMPLETED)
        assert first.done()
        assert (await first, await second) == ("waited", 2)


async def test_what_gives_no_answer_says_why() -> None:
    layer: Any = get_channel_layer()
    async with Client(Answers.as_asgi()) as client:
        channel = await channel_of(client)
        for kind, said in (
            ("wrong", r"Answers.wrong raised LookupError\('no such thing'\)"),
            ("strange", "Answers.strange returned what cannot travel.*object"),
            ("unknown", "No handler for message type unknown.*has the handlers"),
            ("close", "method of the framework"),
        ):
            with pytest.raises(AskFailed, match=said):
                await layer.ask(channel, {"type": kind})
        with pytest.raises(AskFailed, match="no consumer has the channel"):
            await layer.ask(channel + "0", {"type": "double"})
        with pytest.raises(AskFailed, match="no consumer has the channel"):
            await layer.ask(await layer.new_channel(), {"type": "double"})
        with pytest.raises(TypeError, match="is a worker channel"):
            await layer.ask("thumbnails", {"type": "double"})
        # And it is as well as before.
        assert await layer.ask(channel, {"type": "double", "n": 3}) == 6


async def test_a_busy_consumer_is_late_and_a_full_one_is_full() -> None:
    layer: Any = get_channel_layer()
    async with Client(Answers.as_asgi()) as client:
        channel = await channel_of(client)
        with pytest.raises(NodeUnreachable, match=r"did not answer within 0\.05 s"):
            await layer.ask(channel, {"type": "never"}, timeout_s=0.05)
        with pytest.raises(NodeUnreachable, match="did not answer"):
            await layer.ask(channel, {"type": "double", "n": 1}, timeout_s=0.05)
        for n in range(2):
            await layer.send(channel, {"type": "double", "n": n})
        with pytest.raises(ChannelFull):
            await layer.ask(channel, {"type": "double", "n": 1})


async def test_who_asks_a_connection_that_ends_is_told() -> None:
    layer: Any = get_channel_layer()
    client = Client(Answers.as_asgi())
    client.start()
    channel = await channel_of(client)
    busy = asyncio.ensure_future(layer.ask(channel, {"type": "never"}))
    waiting = asyncio.ensure_future(layer.ask(channel, {"type": "double", "n": 1}))
    await asyncio.sleep(0)
    client.task.cancel()
    for asked in (busy, waiting):
        with pytest.raises(AskFailed, match="has ended|raised CancelledError"):
            await asked
    await asyncio.wait([client.task])


@pytest.fixture
def far() -> Iterator[tuple[Place, Place]]:
    bus = MemoryBus("ask")
    places = Place(FarLayer(bus)), Place(FarLayer(bus))
    yield places
    for place in places:
        place.stop()


async def test_over_nodes(far: tuple[Place, Place]) -> None:
    here, there = far
    channel_layers.set("default", there.layer)

    async def open_it() -> tuple[Client, str]:
        client = Client(Answers.as_asgi())
        client.start()
        await client.connect()
        (channel,) = [name for node in there.layer._alive() for name in node.hub.mailboxes]
        return client, channel

    client, channel = there.run(open_it())
    assert here.run(here.layer.ask(channel, {"type": "double", "n": 4})) == 8
    with pytest.raises(AskFailed, match="LookupError"):
        here.run(here.layer.ask(channel, {"type": "wrong"}))
    with pytest.raises(NodeUnreachable, match="did not answer"):
        here.run(here.layer.ask(channel, {"type": "never"}, timeout_s=0.1))
    with pytest.raises(NodeUnreachable, match="is gone"):
        here.run(here.layer.ask("specific.0123456789ab!1", {"type": "double"}))

    async def end() -> None:
        client.task.cancel()
        await asyncio.wait([client.task])

    there.run(end())
