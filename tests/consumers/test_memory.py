from __future__ import annotations

import asyncio
import gc
import sys
import weakref
from typing import Any

import pytest

from antiphon.consumers import connection
from antiphon.generic.http import AsyncHttpConsumer
from antiphon.generic.websocket import AsyncWebsocketConsumer, WebsocketConsumer
from antiphon.layers import get_channel_layer
from tests.consumers.client import Client

ROUNDS = 200


@pytest.mark.parametrize("how", ["leave", "cancel", "error"])
@pytest.mark.parametrize("base", [AsyncWebsocketConsumer, WebsocketConsumer])
async def test_connections_that_come_and_go_leave_nothing(
    base: Any, how: str, caplog: pytest.LogCaptureFixture
) -> None:
    made: list[weakref.ref[Any]] = []

    class AsyncApp(AsyncWebsocketConsumer):
        groups = ["all"]

        def __init__(self) -> None:
            super().__init__()
            made.append(weakref.ref(self))

        async def receive(self, text_data: str | None = None, bytes_data: bytes | None = None) -> None:
            await self.send(text_data="seen")
            if how == "error":
                raise LookupError

        def on_error(self, exc: Exception, handler: str) -> None:
            pass

    class SyncApp(WebsocketConsumer):
        groups = ["all"]

        def __init__(self) -> None:
            super().__init__()
            made.append(weakref.ref(self))

        def receive(self, text_data: str | None = None, bytes_data: bytes | None = None) -> None:
            self.send(text_data="seen")
            if how == "error":
                raise LookupError

        def on_error(self, exc: Exception, handler: str) -> None:
            pass

    app = (AsyncApp if base is AsyncWebsocketConsumer else SyncApp).as_asgi()
    layer = get_channel_layer()
    tasks = len(asyncio.all_tasks())

    async def one() -> None:
        async with Client(app) as client:
            await client.connect()
            client.text("x")
            await client.next()
            if how == "cancel":
                client.task.cancel()
                await asyncio.wait({client.task})
            elif how == "leave":
                client.vanish()
            await asyncio.wait({client.task})

    for _ in range(ROUNDS // 10):
        await asyncio.gather(*(one() for _ in range(10)))
    await asyncio.sleep(0)
    gc.collect()
    assert len(made) == ROUNDS
    # The thread that ran the last handler may hold the last call a moment longer.
    alive = [ref for ref in made if ref() is not None]
    assert len(alive) <= (32 if base is WebsocketConsumer else 0)
    assert len(asyncio.all_tasks()) == tasks
    assert not layer.channels
    assert layer.groups == {}
    stats = layer.stats()
    assert (stats["channels"], stats["groups"], stats["waiting"]) == (0, 0, 0)
    janitor = connection._janitors.get(asyncio.get_running_loop())
    assert janitor is None or janitor.connections == 0


async def test_requests_that_come_and_go_leave_nothing() -> None:
    made: list[weakref.ref[Any]] = []

    class App(AsyncHttpConsumer):
        def __init__(self) -> None:
            super().__init__()
            made.append(weakref.ref(self))

        async def handle(self, body: bytes) -> None:
            await self.join("all")
            await self.send_response(200, body)

    app = App.as_asgi()
    tasks = len(asyncio.all_tasks())

    async def one(n: int) -> None:
        async with Client(app, {"type": "http"}) as client:
            client.put({"type": "http.request", "body": b"x"})
            if n % 2:
                await client.ended()

    for n in range(ROUNDS):
        await one(n)
    await asyncio.sleep(0)
    gc.collect()
    assert [ref for ref in made if ref() is not None] == []
    assert len(asyncio.all_tasks()) == tasks
    assert not get_channel_layer().channels


async def test_the_scope_that_a_server_may_keep_does_not_keep_the_consumer() -> None:
    made: list[weakref.ref[Any]] = []

    class App(AsyncWebsocketConsumer):
        async def connect(self) -> None:
            made.append(weakref.ref(self))
            await self.accept()

    scopes: list[dict[str, Any]] = []

    async def one() -> None:
        async with Client(App.as_asgi()) as client:
            scopes.append(client.scope)
            await client.connect()

    for _ in range(3):
        await one()
    gc.collect()
    assert [ref() for ref in made] == [None] * 3
    assert all("antiphon.connection" not in scope for scope in scopes)


@pytest.mark.skipif(sys.implementation.name != "cpython", reason="counts references")
async def test_an_idle_connection_costs_two_tasks_and_no_timer() -> None:
    class App(AsyncWebsocketConsumer):
        groups = ["all"]

    app = App.as_asgi()
    async with Client(app) as first:
        await first.connect()
        loop: Any = asyncio.get_running_loop()

        def timers() -> int:
            return len([timer for timer in getattr(loop, "_scheduled", ()) if not timer.cancelled()])

        tasks, before = len(asyncio.all_tasks()), timers()
        clients = [Client(app) for _ in range(20)]
        for client in clients:
            client.start()
            await client.connect()
        assert len(asyncio.all_tasks()) - tasks == 2 * 20
        assert timers() == before
        for client in clients:
            client.vanish()
            await client.ended()
