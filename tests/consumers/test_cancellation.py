"""A connection's task cancelled from outside, and time-outs in and around it: nothing is swallowed."""

from __future__ import annotations

import asyncio
from typing import Any

import pytest

from antiphon.generic.websocket import AsyncWebsocketConsumer
from antiphon.layers import get_channel_layer
from tests.consumers.client import Client, left, until


async def test_cancelling_the_task_from_outside_runs_disconnect_and_is_not_swallowed() -> None:
    log: list[str] = []

    class App(AsyncWebsocketConsumer):
        async def disconnect(self, code: int) -> None:
            await asyncio.sleep(0.01)
            log.append(f"disconnect {code}")

    async with Client(App.as_asgi()) as client:
        await client.connect()
        client.task.cancel()
        with pytest.raises(asyncio.CancelledError):
            await client.ended()
    assert log == ["disconnect 1006"]


async def test_cancelling_the_task_inside_a_handler_runs_disconnect_and_is_not_swallowed() -> None:
    log: list[str] = []

    class App(AsyncWebsocketConsumer):
        async def receive(self, text_data: str | None = None, bytes_data: bytes | None = None) -> None:
            log.append("begun")
            await asyncio.sleep(3600)

        async def disconnect(self, code: int) -> None:
            log.append("disconnect")

    async with Client(App.as_asgi()) as client:
        await client.connect()
        client.text("x")
        await until(lambda: log)
        client.task.cancel()
        with pytest.raises(asyncio.CancelledError):
            await client.ended()
    assert log == ["begun", "disconnect"]


async def test_cancelled_with_a_disconnect_that_hangs_the_task_ends_after_the_grace() -> None:
    class App(AsyncWebsocketConsumer):
        disconnect_grace_s = 0.5

        async def disconnect(self, code: int) -> None:
            await asyncio.sleep(3600)

    async with Client(App.as_asgi()) as client:
        await client.connect()
        client.task.cancel()
        with pytest.raises(asyncio.CancelledError):
            await client.ended()
    assert not get_channel_layer().channels


async def test_an_outside_cancellation_together_with_our_own_is_not_swallowed() -> None:
    class App(AsyncWebsocketConsumer):
        disconnect_grace_s = 0.03

        async def receive(self, text_data: str | None = None, bytes_data: bytes | None = None) -> None:
            try:
                await asyncio.sleep(3600)
            finally:
                client.task.cancel()  # the server, at this very moment

    async with Client(App.as_asgi()) as client:
        await client.connect()
        client.text("x")
        client.vanish()
        with pytest.raises(asyncio.CancelledError):
            await client.ended()
    assert not get_channel_layer().channels


async def test_a_time_out_inside_a_handler_still_works() -> None:
    class App(AsyncWebsocketConsumer):
        async def receive(self, text_data: str | None = None, bytes_data: bytes | None = None) -> None:
            try:
                async with asyncio.timeout(0.01):
                    await asyncio.sleep(3600)
            except TimeoutError:
                await self.send(text_data="timed out")

    async with Client(App.as_asgi()) as client:
        await client.connect()
        client.text("x")
        assert await client.next_text() == "timed out"


async def test_a_time_out_inside_disconnect_works_after_a_handler_was_cancelled() -> None:
    log: list[str] = []

    class App(AsyncWebsocketConsumer):
        disconnect_grace_s = 0.5

        async def receive(self, text_data: str | None = None, bytes_data: bytes | None = None) -> None:
            async with asyncio.timeout(30):
                await asyncio.sleep(3600)

        async def disconnect(self, code: int) -> None:
            try:
                async with asyncio.timeout(0.01):
                    await asyncio.sleep(3600)
            except TimeoutError:
                log.append("timed out")
            async with asyncio.TaskGroup() as group:
                group.create_task(asyncio.sleep(0))
            log.append("done")

    await left(App.as_asgi(), "x")
    assert log == ["timed out", "done"]


async def test_a_time_out_around_the_application_is_seen_by_whoever_set_it() -> None:
    inner = AsyncWebsocketConsumer.as_asgi()
    said: list[str] = []

    async def middleware(scope: Any, receive: Any, send: Any) -> None:
        try:
            async with asyncio.timeout(0.05):
                await inner(scope, receive, send)
        except TimeoutError:
            said.append("timed out")

    async with Client(middleware) as client:
        await client.connect()
        await client.ended()
    assert said == ["timed out"]


async def test_disconnect_does_not_run_for_a_connection_whose_connect_never_ran(
    caplog: pytest.LogCaptureFixture,
) -> None:
    log: list[str] = []

    class App(AsyncWebsocketConsumer):
        async def connect(self) -> None:
            self.room = "a"
            await self.accept()

        async def disconnect(self, code: int) -> None:
            log.append(self.room)

    async with Client(App.as_asgi()) as client:
        await asyncio.sleep(0.01)
        client.task.cancel()
        with pytest.raises(asyncio.CancelledError):
            await client.ended()
    assert log == []
    assert caplog.records == []
