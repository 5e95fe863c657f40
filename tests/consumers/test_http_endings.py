"""How a request ends: work after the body, a client that goes, a cancellation, a close from outside."""

from __future__ import annotations

import asyncio
from typing import Any

import pytest

from antiphon.exceptions import StopConsumer
from antiphon.generic.http import AsyncHttpConsumer
from antiphon.layer.node import Node
from antiphon.layers import get_channel_layer
from tests.consumers.client import HTTP, Client, until, user


class Stream(AsyncHttpConsumer):
    """A response that goes on until it is cancelled; ``log`` says how it ended."""

    def __init__(self, log: list[str]) -> None:
        super().__init__()
        self.log = log

    async def handle(self, body: bytes) -> None:
        await self.send_headers()
        try:
            await asyncio.sleep(3600)
        finally:
            await self.clean_up()

    async def clean_up(self) -> None:
        self.log.append("cancelled")

    async def disconnect(self) -> None:
        self.log.append("disconnect")


async def test_a_client_that_goes_cancels_handle_and_disconnect_runs_once() -> None:
    log: list[str] = []

    class App(AsyncHttpConsumer):
        async def handle(self, body: bytes) -> None:
            await self.join("events")
            await self.send_headers()
            try:
                while True:
                    await self.send_body(b"x", more_body=True)
                    await asyncio.sleep(0.002)
            finally:
                log.append("cancelled")

        async def disconnect(self) -> None:
            log.append("disconnect")

    layer = get_channel_layer()
    async with Client(App.as_asgi(), HTTP) as client:
        client.request()
        await until(lambda: len(client.events) > 3)
        client.vanish()
        await client.ended()
    assert log == ["cancelled", "disconnect"]
    assert layer.groups == {}
    assert not layer.channels


async def test_a_handle_that_was_cancelled_by_itself_before_is_cancelled_when_its_client_goes() -> None:
    class App(Stream):
        async def handle(self, body: bytes) -> None:
            task = asyncio.current_task()
            assert task is not None
            asyncio.get_running_loop().call_soon(task.cancel)  # as time limits do, and some forget to take it back
            try:
                await asyncio.sleep(3600)
            except asyncio.CancelledError:
                self.log.append("limit")
            await super().handle(body)

    log: list[str] = []
    async with Client(App.as_asgi(log=log), HTTP) as client:
        client.request()
        await until(lambda: log)
        client.vanish()
        await client.ended()
    assert log == ["limit", "cancelled", "disconnect"]


async def test_the_groups_of_a_stream_are_left_at_once_when_its_client_goes() -> None:
    class App(AsyncHttpConsumer):
        async def handle(self, body: bytes) -> None:
            await self.join("events")
            await self.send_headers()
            await asyncio.sleep(3600)

        async def stuck(self, message: dict[str, Any]) -> None:
            await gate.wait()

    gate = asyncio.Event()
    layer = get_channel_layer()
    async with Client(App.as_asgi(), HTTP) as client:
        client.request()
        await client.next()
        await layer.group_send("events", {"type": "stuck"})
        await asyncio.sleep(0.01)
        client.vanish()
        await until(lambda: layer.groups == {})
        gate.set()
        await client.ended()


async def test_work_after_the_final_body_completes() -> None:
    log: list[str] = []

    class App(AsyncHttpConsumer):
        async def handle(self, body: bytes) -> None:
            await self.send_response(202, b"accepted")
            await asyncio.sleep(0.05)
            log.append("worked")

        async def disconnect(self) -> None:
            log.append("disconnect")

    async with Client(App.as_asgi(), HTTP) as client:
        client.request()
        await client.next()
        await client.next()
        client.vanish()  # what servers report once the response is out
        await client.ended()
    assert log == ["worked", "disconnect"]


async def test_work_after_the_final_body_completes_although_a_layer_handler_was_cancelled_meanwhile() -> None:
    log: list[str] = []

    class App(AsyncHttpConsumer):
        disconnect_grace_s = 0.05

        async def handle(self, body: bytes) -> None:
            await self.join("events")
            await self.send_response(202, b"accepted")
            log.append("worked")

        async def stuck(self, message: dict[str, Any]) -> None:
            log.append("stuck")
            await asyncio.sleep(3600)

        async def disconnect(self) -> None:
            log.append("disconnect")

    async with Client(App.as_asgi(), HTTP) as client:
        client.request()
        await client.next()
        await get_channel_layer().group_send("events", {"type": "stuck"})
        client.vanish()
        await client.ended()
    assert log.count("disconnect") == 1
    assert "worked" in log


async def test_stop_consumer_in_handle_ends_the_request() -> None:
    ended: list[str] = []

    class App(AsyncHttpConsumer):
        async def handle(self, body: bytes) -> None:
            await self.send_response(200, b"")
            raise StopConsumer

        async def disconnect(self) -> None:
            ended.append("disconnect")

    async with Client(App.as_asgi(), HTTP) as client:
        client.request()
        await client.ended()
    assert ended == ["disconnect"]


async def test_a_client_that_goes_before_its_body_is_complete_never_reaches_handle() -> None:
    log: list[str] = []

    class App(AsyncHttpConsumer):
        async def handle(self, body: bytes) -> None:
            log.append("handle")

        async def disconnect(self) -> None:
            log.append("disconnect")

    async with Client(App.as_asgi(), HTTP) as client:
        client.request(b"half", more=True)
        client.vanish()
        await client.ended()
    assert log == ["disconnect"]


async def test_cancelling_the_request_from_outside_cancels_handle_and_is_not_swallowed() -> None:
    log: list[str] = []
    async with Client(Stream.as_asgi(log=log), HTTP) as client:
        client.request()
        await client.next()
        client.task.cancel()
        with pytest.raises(asyncio.CancelledError):
            await client.ended()
    assert log == ["cancelled", "disconnect"]


async def test_a_clean_up_of_handle_that_hangs_does_not_keep_the_request() -> None:
    log: list[str] = []

    class Stubborn(Stream):
        disconnect_grace_s = 0.05

        async def clean_up(self) -> None:
            await asyncio.sleep(3600)

    async with Client(Stubborn.as_asgi(log=log), HTTP) as client:
        client.request()
        await client.next()
        client.vanish()
        await client.ended()
    assert log == ["disconnect"]


async def test_what_a_cancelled_handle_raises_is_logged(caplog: pytest.LogCaptureFixture) -> None:
    class Failing(Stream):
        async def clean_up(self) -> None:
            raise LookupError("while cleaning up")

    async with Client(Failing.as_asgi(log=[]), HTTP) as client:
        client.request()
        await client.next()
        client.vanish()
        await client.ended()
    assert "while cleaning up" in caplog.text


async def test_close_channel_ends_a_stream() -> None:
    log: list[str] = []
    layer = get_channel_layer()
    async with Client(Stream.as_asgi(log=log), HTTP) as client:
        client.request()
        await client.next()
        (channel,) = layer.channels
        await layer.close_channel(channel)
        await client.ended()
    assert log == ["cancelled", "disconnect"]


async def test_a_user_closed_while_the_engine_is_awaited_never_reaches_handle(monkeypatch: pytest.MonkeyPatch) -> None:
    log: list[str] = []
    joining, confirmed = asyncio.Event(), asyncio.Event()
    join = Node.join

    async def slow(self: Node, *args: Any) -> None:
        joining.set()
        await confirmed.wait()
        await join(self, *args)

    class App(Stream):
        user_channel = True

        async def handle(self, body: bytes) -> None:
            log.append("handle")
            await super().handle(body)

    monkeypatch.setattr(Node, "join", slow)
    client = Client(App.as_asgi(log=log), HTTP | {"user": user(1)})
    async with client:
        client.request()
        await joining.wait()
        assert await get_channel_layer().close_user(1) == 1
        await until(lambda: client.scope["antiphon.connection"].gone)
        confirmed.set()
        await client.ended()
    assert log == ["disconnect"]
