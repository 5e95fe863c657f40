"""A client's events: awaited as ASGI has it, or pushed; and a client that sends faster than they are taken."""

from __future__ import annotations

import asyncio
from typing import Any

from antiphon.types import Event
from antiphon.wire.frames import TEXT
from antiphon.wire.prebuilt import EXTENSION, FrameSocket
from tests.server.uvicorns import masked, serving
from tests.waiting import until


class Sink:
    """Takes events as they come."""

    def __init__(self) -> None:
        self.events: list[Event] = []

    def client_event(self, event: Event) -> None:
        self.events.append(event)


class Pushed:
    """An application that has its events pushed."""

    def __init__(self) -> None:
        self.sink = Sink()
        self.ends = asyncio.Event()
        self.socket: FrameSocket

    async def __call__(self, scope: Any, receive: Any, send: Any) -> None:
        self.socket = scope["extensions"][EXTENSION]
        self.socket.attach(self.sink)
        await send({"type": "websocket.accept"})
        await self.ends.wait()


async def test_events_are_pushed_in_order_the_first_that_waited_included() -> None:
    app = Pushed()
    async with serving(app) as server:
        client = await server.client()
        client.writer.write(masked(TEXT, b"one") + masked(TEXT, b"two"))
        client.writer.write(masked(8, (4000).to_bytes(2, "big") + b"bye"))
        await until(lambda: len(app.sink.events) == 4)
        assert app.sink.events == [
            {"type": "websocket.connect"},
            {"type": "websocket.receive", "text": "one"},
            {"type": "websocket.receive", "text": "two"},
            {"type": "websocket.disconnect", "code": 4000, "reason": "bye"},
        ]
        app.ends.set()


async def test_a_client_that_is_held_waits_in_the_kernel_until_it_may_go_on() -> None:
    app = Pushed()
    async with serving(app) as server:
        client = await server.client()
        await until(lambda: app.sink.events)
        app.socket.hold()
        blob = masked(TEXT, b"x" * 60_000)
        for _ in range(400):
            client.writer.write(blob)
        await asyncio.sleep(0.05)
        assert len(app.sink.events) < 300  # what was read before the hold took effect, at most
        app.socket.go_on()
        await until(lambda: len(app.sink.events) == 401)
        app.ends.set()


async def test_an_application_that_does_not_receive_is_not_read_for() -> None:
    taking = asyncio.Event()
    taken = 0

    async def app(scope: Any, receive: Any, send: Any) -> None:
        nonlocal taken
        await receive()
        await send({"type": "websocket.accept"})
        await taking.wait()
        while (await receive())["type"] != "websocket.disconnect":
            taken += 1

    async with serving(app) as server:
        client = await server.client()
        blob = masked(TEXT, b"x" * 60_000)
        for _ in range(1000):
            client.writer.write(blob)
        await asyncio.sleep(0.05)
        assert len(server.protocols[0]._events or ()) < 10
        taking.set()
        await until(lambda: taken == 1000)
