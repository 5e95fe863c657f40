from __future__ import annotations

import asyncio
import logging
import time
from typing import Any

import pytest

from antiphon import framework
from antiphon.generic.websocket import AsyncWebsocketConsumer, WebsocketConsumer
from antiphon.layers import get_channel_layer
from tests.consumers.client import Client, until


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

    async with Client(App.as_asgi()) as client:
        await client.connect()
        client.text("1", "2", "3")
        client.vanish()
        await client.ended()
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


async def test_after_the_grace_the_handler_is_cancelled_and_disconnect_runs(caplog: pytest.LogCaptureFixture) -> None:
    log: list[str] = []

    class App(AsyncWebsocketConsumer):
        disconnect_grace_s = 0.05

        async def receive(self, text_data: str | None = None, bytes_data: bytes | None = None) -> None:
            try:
                await asyncio.sleep(30)
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
        assert 0.04 < time.monotonic() - began < 1
    # The second frame had its time too.
    assert log == ["cancelled", "disconnect 1006"]
    assert [r.levelno for r in caplog.records] == [logging.WARNING]
    assert "App: websocket.receive was cancelled, 0.05 s after its client had gone" in caplog.text


async def test_a_layer_handler_is_cancelled_after_the_grace_too() -> None:
    log: list[str] = []

    class App(AsyncWebsocketConsumer):
        groups = ["all"]
        disconnect_grace_s = 0.05

        async def stuck(self, message: dict[str, Any]) -> None:
            log.append("begun")
            await asyncio.sleep(30)

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
            await asyncio.sleep(30)

    async with Client(App.as_asgi()) as client:
        await client.connect()
        client.text("x")
        client.vanish()
        await client.ended(1)


async def test_without_a_grace_nothing_is_ever_cancelled(caplog: pytest.LogCaptureFixture) -> None:
    framework.install(framework.Framework(disconnect_grace_s=None))
    log: list[str] = []

    class App(AsyncWebsocketConsumer):
        async def receive(self, text_data: str | None = None, bytes_data: bytes | None = None) -> None:
            await asyncio.sleep(0.3)
            log.append("finished")

        async def disconnect(self, code: int) -> None:
            log.append("disconnect")

    async with Client(App.as_asgi()) as client:
        await client.connect()
        client.text("x")
        client.vanish()
        await client.ended()
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
        async with Client(App.as_asgi()) as client:
            await client.connect()
            client.text("x")
            client.vanish()
            await client.ended()
    assert log == ["finished"]


async def test_a_handler_that_ends_within_the_grace_is_left_alone() -> None:
    log: list[str] = []

    class App(AsyncWebsocketConsumer):
        disconnect_grace_s = 5.0

        async def receive(self, text_data: str | None = None, bytes_data: bytes | None = None) -> None:
            await asyncio.sleep(0.05)
            log.append("finished")

    async with Client(App.as_asgi()) as client:
        await client.connect()
        client.text("x")
        client.vanish()
        await client.ended()
    assert log == ["finished"]


async def test_a_disconnect_that_hangs_is_cancelled_and_the_connection_ends() -> None:
    log: list[str] = []

    class App(AsyncWebsocketConsumer):
        groups = ["all"]
        disconnect_grace_s = 0.05

        async def disconnect(self, code: int) -> None:
            log.append("begun")
            try:
                await asyncio.sleep(30)
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
                await asyncio.sleep(30)
            except asyncio.CancelledError:
                log.append("swallowed")

        async def disconnect(self, code: int) -> None:
            task = asyncio.current_task()
            assert task is not None
            log.append(task.cancelling())
            await asyncio.sleep(30)

    async with Client(App.as_asgi()) as client:
        await client.connect()
        client.text("x")
        client.vanish()
        await client.ended()  # not as a cancelled task: nobody from outside cancelled it
    assert log == ["swallowed", 0]


async def test_a_handler_that_raises_when_it_is_cancelled_is_logged_and_disconnect_runs(
    caplog: pytest.LogCaptureFixture,
) -> None:
    log: list[Any] = []

    class App(AsyncWebsocketConsumer):
        disconnect_grace_s = 0.03

        async def receive(self, text_data: str | None = None, bytes_data: bytes | None = None) -> None:
            try:
                await asyncio.sleep(30)
            except asyncio.CancelledError:
                raise LookupError("while cleaning up") from None

        async def disconnect(self, code: int) -> None:
            task = asyncio.current_task()
            assert task is not None
            log.append(task.cancelling())

    async with Client(App.as_asgi()) as client:
        await client.connect()
        client.text("x")
        client.vanish()
        await client.ended()
    assert log == [0]
    assert "while cleaning up" in caplog.text


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
            await asyncio.sleep(30)

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
        disconnect_grace_s = 0.05

        async def disconnect(self, code: int) -> None:
            await asyncio.sleep(30)

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
                await asyncio.sleep(30)
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
                    await asyncio.sleep(30)
            except TimeoutError:
                await self.send(text_data="timed out")

    async with Client(App.as_asgi()) as client:
        await client.connect()
        client.text("x")
        assert await client.next_text() == "timed out"


async def test_a_time_out_inside_disconnect_works_after_a_handler_was_cancelled() -> None:
    log: list[str] = []

    class App(AsyncWebsocketConsumer):
        disconnect_grace_s = 0.05

        async def receive(self, text_data: str | None = None, bytes_data: bytes | None = None) -> None:
            async with asyncio.timeout(20):
                await asyncio.sleep(30)

        async def disconnect(self, code: int) -> None:
            try:
                async with asyncio.timeout(0.01):
                    await asyncio.sleep(30)
            except TimeoutError:
                log.append("timed out")
            async with asyncio.TaskGroup() as group:
                group.create_task(asyncio.sleep(0))
            log.append("done")

    async with Client(App.as_asgi()) as client:
        await client.connect()
        client.text("x")
        client.vanish()
        await client.ended()
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


async def test_a_synchronous_handler_is_never_cancelled() -> None:
    log: list[str] = []

    class App(WebsocketConsumer):
        disconnect_grace_s = 0.01

        def receive(self, text_data: str | None = None, bytes_data: bytes | None = None) -> None:
            time.sleep(0.15)
            log.append("finished")

        def disconnect(self, code: int) -> None:
            log.append(f"disconnect {code}")

    async with Client(App.as_asgi()) as client:
        await client.connect()
        client.text("x")
        client.vanish()
        await client.ended()
    assert log == ["finished", "disconnect 1006"]


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
