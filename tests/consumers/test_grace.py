"""How long a handler may go on after its client has gone: the grace, and the cancellation at its end."""

from __future__ import annotations

import asyncio
import logging
import time
from typing import Any

import pytest

from antiphon import framework
from antiphon.generic.websocket import AsyncWebsocketConsumer, WebsocketConsumer
from antiphon.layers import get_channel_layer
from tests.consumers.client import Client, left, until


async def test_after_the_grace_the_handler_is_cancelled_and_disconnect_runs(caplog: pytest.LogCaptureFixture) -> None:
    log: list[str] = []

    class App(AsyncWebsocketConsumer):
        disconnect_grace_s = 0.5

        async def receive(self, text_data: str | None = None, bytes_data: bytes | None = None) -> None:
            try:
                await asyncio.sleep(3600)
            except asyncio.CancelledError:
                log.append("cancelled")
                raise

        async def disconnect(self, code: int) -> None:
            await asyncio.sleep(0.01)
            log.append(f"disconnect {code}")

    async with Client(App.as_asgi()) as client:
        await client.connect()
        client.text("1", "2")
        client.vanish()
        began = time.monotonic()
        await client.ended()
        assert time.monotonic() - began > 0.4
    # The second frame had its time too.
    assert log == ["cancelled", "disconnect 1006"]
    assert [r.levelno for r in caplog.records] == [logging.WARNING]
    assert "App: websocket.receive was cancelled, 0.5 s after its client had gone" in caplog.text


async def test_a_layer_handler_is_cancelled_after_the_grace_too() -> None:
    log: list[str] = []

    class App(AsyncWebsocketConsumer):
        groups = ["all"]
        disconnect_grace_s = 0.5

        async def stuck(self, message: dict[str, Any]) -> None:
            log.append("begun")
            await asyncio.sleep(3600)

        async def disconnect(self, code: int) -> None:
            log.append("disconnect")

    async with Client(App.as_asgi()) as client:
        await client.connect()
        await get_channel_layer().group_send("all", {"type": "stuck"})
        await until(lambda: log)
        client.vanish()
        await client.ended()
    assert log == ["begun", "disconnect"]


async def test_the_option_gives_the_grace_of_classes_that_name_none() -> None:
    framework.install(framework.Framework(disconnect_grace_s=0.03))

    class App(AsyncWebsocketConsumer):
        async def receive(self, text_data: str | None = None, bytes_data: bytes | None = None) -> None:
            await asyncio.sleep(3600)

    await left(App.as_asgi(), "x")


async def test_without_a_grace_nothing_is_ever_cancelled(caplog: pytest.LogCaptureFixture) -> None:
    framework.install(framework.Framework(disconnect_grace_s=None))
    log: list[str] = []

    class App(AsyncWebsocketConsumer):
        async def receive(self, text_data: str | None = None, bytes_data: bytes | None = None) -> None:
            await asyncio.sleep(0.3)
            log.append("finished")

        async def disconnect(self, code: int) -> None:
            log.append("disconnect")

    await left(App.as_asgi(), "x")
    assert log == ["finished", "disconnect"]
    assert caplog.records == []


async def test_where_channels_ways_hold_nothing_is_cancelled(monkeypatch: pytest.MonkeyPatch) -> None:
    log: list[str] = []

    class App(AsyncWebsocketConsumer):
        disconnect_grace_s = 0.01

        async def receive(self, text_data: str | None = None, bytes_data: bytes | None = None) -> None:
            await asyncio.sleep(0.2)
            log.append("finished")

    with monkeypatch.context() as patch:
        patch.setattr(framework, "compat", True)
        await left(App.as_asgi(), "x")
    assert log == ["finished"]


async def test_a_handler_that_ends_within_the_grace_is_left_alone() -> None:
    log: list[str] = []

    class App(AsyncWebsocketConsumer):
        disconnect_grace_s = 20.0

        async def receive(self, text_data: str | None = None, bytes_data: bytes | None = None) -> None:
            await asyncio.sleep(0.05)
            log.append("finished")

    await left(App.as_asgi(), "x")
    assert log == ["finished"]


async def test_a_disconnect_that_hangs_is_cancelled_and_the_connection_ends() -> None:
    log: list[str] = []

    class App(AsyncWebsocketConsumer):
        groups = ["all"]
        disconnect_grace_s = 0.5

        async def disconnect(self, code: int) -> None:
            log.append("begun")
            try:
                await asyncio.sleep(3600)
            finally:
                log.append("cut")

    layer = get_channel_layer()
    client = Client(App.as_asgi())
    async with client:
        await client.connect()
        client.vanish()
        await client.ended()
    assert log == ["begun", "cut"]
    assert not layer.channels


async def test_a_handler_that_swallows_the_cancellation_does_not_disturb_what_follows() -> None:
    log: list[Any] = []

    class App(AsyncWebsocketConsumer):
        disconnect_grace_s = 0.03

        async def receive(self, text_data: str | None = None, bytes_data: bytes | None = None) -> None:
            try:
                await asyncio.sleep(3600)
            except asyncio.CancelledError:
                log.append("swallowed")

        async def disconnect(self, code: int) -> None:
            task = asyncio.current_task()
            assert task is not None
            log.append(task.cancelling())
            await asyncio.sleep(3600)

    await left(App.as_asgi(), "x")  # not as a cancelled task: nobody from outside cancelled it
    assert log == ["swallowed", 0]


async def test_a_handler_that_raises_when_it_is_cancelled_is_logged_and_disconnect_runs(
    caplog: pytest.LogCaptureFixture,
) -> None:
    log: list[Any] = []

    class App(AsyncWebsocketConsumer):
        disconnect_grace_s = 0.03

        async def receive(self, text_data: str | None = None, bytes_data: bytes | None = None) -> None:
            try:
                await asyncio.sleep(3600)
            except asyncio.CancelledError:
                raise LookupError("while cleaning up") from None

        async def disconnect(self, code: int) -> None:
            task = asyncio.current_task()
            assert task is not None
            log.append(task.cancelling())

    await left(App.as_asgi(), "x")
    assert log == [0]
    assert "while cleaning up" in caplog.text


async def test_a_synchronous_handler_is_never_cancelled() -> None:
    log: list[str] = []

    class App(WebsocketConsumer):
        disconnect_grace_s = 0.01

        def receive(self, text_data: str | None = None, bytes_data: bytes | None = None) -> None:
            time.sleep(0.15)
            log.append("finished")

        def disconnect(self, code: int) -> None:
            log.append(f"disconnect {code}")

    await left(App.as_asgi(), "x")
    assert log == ["finished", "disconnect 1006"]
