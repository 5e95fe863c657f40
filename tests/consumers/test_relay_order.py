"""Relays and handlers, accept and close: each member sees them in the order in which they were sent, on any server."""

from __future__ import annotations

import asyncio
from typing import Any

from hypothesis import given, settings
from hypothesis import strategies as st

from antiphon import get_channel_layer, relay
from antiphon.generic.websocket import AsyncWebsocketConsumer
from antiphon.types import Event
from tests.consumers.client import Client, members
from tests.server.uvicorns import serving
from tests.waiting import until


class Gated(AsyncWebsocketConsumer):
    """Accepts and closes when it is told to; the rest as a room does."""

    groups = ["gated"]

    async def connect(self) -> None:
        pass

    async def opening(self, message: Any) -> None:
        await asyncio.sleep(0)
        await self.accept()
        await self.send(text_data="open")

    async def closing(self, message: Any) -> None:
        await asyncio.sleep(0)
        await self.close()

    @relay
    def said(message: Any) -> str:
        return str(message["text"])

    async def twice(self, message: Any) -> None:
        await self.send(text_data=f"{message['text']}.1")
        await asyncio.sleep(0)
        await self.send(text_data=f"{message['text']}.2")


class Hesitating(Client):
    """A server whose ``send`` takes turns of the loop."""

    waits: list[int]

    async def _send(self, event: Event) -> None:
        for _ in range(self.waits.pop() if self.waits else 0):
            await asyncio.sleep(0)
        await super()._send(event)


PAUSES = st.integers(0, 3)
PLAY = st.tuples(
    st.lists(PAUSES, max_size=5),  # relays before accept, each with turns of the loop after it
    st.lists(st.tuples(st.sampled_from(["said", "twice"]), PAUSES), max_size=12),
    st.booleans(),  # closed, and more is said
)


def script(play: tuple[list[int], list[tuple[str, int]], bool]) -> tuple[list[tuple[dict[str, Any], int]], list[str]]:
    """Return the messages to send, each with the turns of the loop after it, and what a client is to see."""
    before, after, closed = play
    messages: list[tuple[dict[str, Any], int]] = []
    seen: list[str] = []
    for number, pause in enumerate(before):
        messages.append(({"type": "said", "text": f"b{number}"}, pause))
        seen.append(f"b{number}")
    messages.append(({"type": "opening"}, 0))
    seen.append("open")
    for number, (kind, pause) in enumerate(after):
        messages.append(({"type": kind, "text": f"{number}"}, pause))
        seen += [f"{number}"] if kind == "said" else [f"{number}.1", f"{number}.2"]
    if closed:
        messages += [
            ({"type": "closing"}, 1),
            ({"type": "said", "text": "late"}, 0),
            ({"type": "twice", "text": "l"}, 0),
        ]
    else:
        messages.append(({"type": "said", "text": "end"}, 0))
        seen.append("end")
    return messages, seen


async def play_out(messages: list[tuple[dict[str, Any], int]]) -> None:
    for message, pause in messages:
        await get_channel_layer().group_send("gated", message)
        for _ in range(pause):
            await asyncio.sleep(0)


@settings(max_examples=60, deadline=None)
@given(play=PLAY, waits=st.lists(st.lists(PAUSES, max_size=20), min_size=2, max_size=2))
def test_every_member_sees_relays_and_handlers_in_the_order_of_the_sends(play: Any, waits: list[list[int]]) -> None:
    messages, seen = script(play)

    async def run() -> None:
        app = Gated.as_asgi()
        async with Hesitating(app) as one, Hesitating(app) as two:
            for client, turns in zip((one, two), waits, strict=True):
                client.waits = list(turns)
                client.put({"type": "websocket.connect"})
            await until(lambda: members("gated") == 2)
            await play_out(messages)
            for client in (one, two):
                await until(lambda client=client: len(client.texts) >= len(seen))  # type: ignore[misc]
                if play[2]:
                    await client.ended()
                assert client.texts == seen
        await get_channel_layer().close()

    asyncio.run(run())


@settings(max_examples=25, deadline=None)
@given(play=PLAY)
def test_and_on_our_server_too(play: Any) -> None:
    messages, seen = script(play)

    async def run() -> None:
        async with serving(Gated.as_asgi()) as server:
            clients = [await server.connect() for _ in range(2)]
            answers = [asyncio.create_task(client.ask()) for client in clients]
            await until(lambda: members("gated") == 2)
            await play_out(messages)
            for client, answer in zip(clients, answers, strict=True):
                assert (await answer).startswith(b"HTTP/1.1 101 ")
                assert [(await client.frame())[1].decode() for _ in seen] == seen
                if play[2]:
                    assert await client.closed() == (1000, "")
        await get_channel_layer().close()

    asyncio.run(run())
