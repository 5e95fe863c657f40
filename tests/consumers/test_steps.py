"""Handlers that begin in the hub's stack: for asyncio, and for their sender, they run where they always did."""

from __future__ import annotations

import asyncio
from contextvars import ContextVar
from typing import Any

import pytest

from antiphon import get_channel_layer
from antiphon.exceptions import StopConsumer
from antiphon.generic.websocket import AsyncWebsocketConsumer

from .client import Client, until

Var: ContextVar[str] = ContextVar("var", default="unset")


async def settle() -> None:
    for _ in range(5):
        await asyncio.sleep(0)


async def test_a_handler_that_need_not_wait_has_run_when_the_send_to_it_alone_returns() -> None:
    seen = []

    class App(AsyncWebsocketConsumer):
        groups = ["room"]

        async def note(self, message: dict[str, Any]) -> None:
            seen.append(message["n"])

    async with Client(App.as_asgi()) as client:
        await client.connect()
        await settle()
        await get_channel_layer().group_send("room", {"type": "note", "n": 1})
        assert seen == [1]


async def test_the_task_of_a_handler_is_its_connection_s_before_and_after_it_waits() -> None:
    tasks: list[Any] = []
    go = asyncio.Event()

    class App(AsyncWebsocketConsumer):
        groups = ["room"]

        async def connect(self) -> None:
            tasks.append(asyncio.current_task())
            await self.accept()

        async def note(self, message: dict[str, Any]) -> None:
            tasks.append(asyncio.current_task())
            await go.wait()
            tasks.append(asyncio.current_task())

    async with Client(App.as_asgi()) as client:
        await client.connect()
        await settle()
        me = asyncio.current_task()
        await get_channel_layer().group_send("room", {"type": "note"})
        assert asyncio.current_task() is me
        go.set()
        await until(lambda: len(tasks) == 3)
        assert len(set(tasks)) == 1
        assert me not in tasks


async def test_messages_come_in_order_when_the_first_handler_waits() -> None:
    seen: list[Any] = []
    go = asyncio.Event()

    class App(AsyncWebsocketConsumer):
        groups = ["room"]

        async def note(self, message: dict[str, Any]) -> None:
            if message["n"] == 1:
                await go.wait()
            seen.append(message["n"])
            await asyncio.sleep(0)
            seen.append(message["n"])

    async with Client(App.as_asgi()) as client:
        await client.connect()
        await settle()
        for n in (1, 2, 3):
            await get_channel_layer().group_send("room", {"type": "note", "n": n})
        await settle()
        assert seen == []
        go.set()
        await until(lambda: len(seen) == 6)
        assert seen == [1, 1, 2, 2, 3, 3]


async def test_a_time_out_inside_a_handler_ends_what_it_waits_for_and_nothing_else() -> None:
    seen: list[str] = []

    class App(AsyncWebsocketConsumer):
        groups = ["room"]

        async def note(self, message: dict[str, Any]) -> None:
            try:
                async with asyncio.timeout(0.01):
                    await asyncio.Event().wait()
            except TimeoutError:
                seen.append("timed out")
            task = asyncio.current_task()
            assert task is not None
            seen.append(f"cancelling {task.cancelling()}")

    async with Client(App.as_asgi()) as client:
        await client.connect()
        await settle()
        for _ in range(2):
            await get_channel_layer().group_send("room", {"type": "note"})
        await until(lambda: len(seen) == 4)
        assert seen == ["timed out", "cancelling 0"] * 2


async def test_a_task_group_inside_a_handler_works() -> None:
    seen: list[int] = []

    class App(AsyncWebsocketConsumer):
        groups = ["room"]

        async def note(self, message: dict[str, Any]) -> None:
            async def child(n: int) -> None:
                await asyncio.sleep(0)
                seen.append(n)

            async with asyncio.TaskGroup() as group:
                group.create_task(child(1))
                group.create_task(child(2))
            seen.append(3)

    async with Client(App.as_asgi()) as client:
        await client.connect()
        await settle()
        await get_channel_layer().group_send("room", {"type": "note"})
        await until(lambda: len(seen) == 3)
        assert seen == [1, 2, 3]


async def test_context_variables_are_the_connection_s_own_whoever_sends() -> None:
    seen: list[str] = []

    class App(AsyncWebsocketConsumer):
        groups = ["room"]

        async def note(self, message: dict[str, Any]) -> None:
            seen.append(Var.get())
            Var.set("set by a handler")
            await asyncio.sleep(0)
            seen.append(Var.get())

    async with Client(App.as_asgi()) as client:
        await client.connect()
        await settle()
        Var.set("the sender's")
        await get_channel_layer().group_send("room", {"type": "note"})
        await get_channel_layer().group_send("room", {"type": "note"})
        await until(lambda: len(seen) == 4)
        assert seen == ["unset", "set by a handler", "set by a handler", "set by a handler"]
        assert Var.get() == "the sender's"


async def test_two_connections_that_answer_each_other_do_not_grow_the_stack() -> None:
    counts = {"a": 0, "b": 0}
    rounds = 3000  # deeper than any stack

    class App(AsyncWebsocketConsumer):
        async def connect(self) -> None:
            await self.join(self.scope["name"])
            await self.accept()

        async def ball(self, message: dict[str, Any]) -> None:
            counts[self.scope["name"]] += 1
            other = "b" if self.scope["name"] == "a" else "a"
            if message["n"] < rounds:
                await self.channel_layer.group_send(other, {"type": "ball", "n": message["n"] + 1})

    async with Client(App.as_asgi(), {"name": "a"}) as one, Client(App.as_asgi(), {"name": "b"}) as two:
        await one.connect()
        await two.connect()
        await settle()
        await get_channel_layer().group_send("a", {"type": "ball", "n": 1})
        await until(lambda: sum(counts.values()) == rounds)


async def test_the_loop_goes_on_between_the_slices_of_a_large_or_endless_fan_out() -> None:
    ticks = 0
    stop = False

    class App(AsyncWebsocketConsumer):
        groups = ["room"]

        async def ball(self, message: dict[str, Any]) -> None:
            if not stop:
                await self.channel_layer.group_send("room", {"type": "ball"})

    async def tick() -> None:
        nonlocal ticks
        while True:
            await asyncio.sleep(0)
            ticks += 1

    async with Client(App.as_asgi()) as one, Client(App.as_asgi()) as two:
        await one.connect()
        await two.connect()
        await settle()
        ticking = asyncio.create_task(tick())
        await get_channel_layer().group_send("room", {"type": "ball"})
        await until(lambda: ticks > 20)
        stop = True
        ticking.cancel()


async def test_what_a_handler_raises_does_not_reach_the_sender(caplog: pytest.LogCaptureFixture) -> None:
    class App(AsyncWebsocketConsumer):
        groups = ["room"]

        async def note(self, message: dict[str, Any]) -> None:
            raise LookupError("the handler's own")

    async with Client(App.as_asgi()) as client:
        await client.connect()
        await settle()
        receipt = await get_channel_layer().group_send("room", {"type": "note"})
        assert receipt.delivered == 1
        assert (await client.next())["code"] == 1011
        assert [record.message for record in caplog.records if "the handler's own" in record.message]


async def test_a_handler_with_a_wrong_signature_is_an_error_of_the_handler(caplog: pytest.LogCaptureFixture) -> None:
    class App(AsyncWebsocketConsumer):
        groups = ["room"]

        async def note(self) -> None:
            raise AssertionError("unreachable")

    async with Client(App.as_asgi()) as client:
        await client.connect()
        await settle()
        await get_channel_layer().group_send("room", {"type": "note"})
        assert (await client.next())["code"] == 1011
        assert any("positional argument" in record.message for record in caplog.records)


async def test_a_plain_function_as_handler_of_an_async_consumer_is_an_error(caplog: pytest.LogCaptureFixture) -> None:
    class App(AsyncWebsocketConsumer):
        groups = ["room"]

        def note(self, message: dict[str, Any]) -> None:
            pass

    async with Client(App.as_asgi()) as client:
        await client.connect()
        await settle()
        await get_channel_layer().group_send("room", {"type": "note"})
        assert (await client.next())["code"] == 1011
        assert any("note raised TypeError" in record.message for record in caplog.records)


async def test_stop_consumer_raised_in_the_first_step_ends_the_consumer() -> None:
    class App(AsyncWebsocketConsumer):
        groups = ["room"]

        async def note(self, message: dict[str, Any]) -> None:
            raise StopConsumer

    client = Client(App.as_asgi())
    client.start()
    await client.connect()
    await settle()
    await get_channel_layer().group_send("room", {"type": "note"})
    await asyncio.wait_for(client.task, 30)


async def test_a_cancellation_before_the_task_could_take_over_reaches_the_handler() -> None:
    seen: list[str] = []

    class App(AsyncWebsocketConsumer):
        groups = ["room"]

        async def note(self, message: dict[str, Any]) -> None:
            try:
                await asyncio.Event().wait()
            finally:
                seen.append("cleaned up")

        async def disconnect(self, code: int) -> None:
            seen.append("disconnect")

    client = Client(App.as_asgi())
    client.start()
    await client.connect()
    await settle()
    await get_channel_layer().group_send("room", {"type": "note"})
    client.task.cancel()  # in the same turn of the loop
    with pytest.raises(asyncio.CancelledError):
        await client.task
    assert seen == ["cleaned up", "disconnect"]


async def test_one_future_that_many_handlers_await_wakes_them_all() -> None:
    seen: list[int] = []
    shared: asyncio.Future[None] = asyncio.get_running_loop().create_future()

    class App(AsyncWebsocketConsumer):
        groups = ["room"]

        async def note(self, message: dict[str, Any]) -> None:
            await shared
            seen.append(id(self))

    async def other() -> None:
        await shared

    async with Client(App.as_asgi()) as one, Client(App.as_asgi()) as two:
        await one.connect()
        await two.connect()
        await settle()
        await get_channel_layer().group_send("room", {"type": "note"})
        waiting = asyncio.create_task(other())
        await settle()
        shared.set_result(None)
        await until(lambda: len(seen) == 2)
        await waiting


async def test_a_receipt_counts_its_own_message_and_not_what_the_handler_sent() -> None:
    class App(AsyncWebsocketConsumer):
        async def connect(self) -> None:
            await self.join(self.scope["name"])
            await self.join("both")
            await self.accept()

        async def note(self, message: dict[str, Any]) -> None:
            if message["again"]:
                receipts.append(await self.channel_layer.group_send("both", {"type": "note", "again": False}))

    receipts: list[Any] = []
    async with Client(App.as_asgi(), {"name": "a"}) as one, Client(App.as_asgi(), {"name": "b"}) as two:
        await one.connect()
        await two.connect()
        await settle()
        layer = get_channel_layer()
        outer = await layer.group_send("a", {"type": "note", "again": True})
        assert (outer.delivered, outer.dropped) == (1, 0)
        excluded = await layer.group_send("both", {"type": "note", "again": True}, exclude=[one_channel(layer)])
        assert (excluded.delivered, excluded.dropped) == (1, 0)
        await settle()
        assert [(receipt.delivered, receipt.dropped) for receipt in receipts] == [(2, 0), (2, 0)]


def one_channel(layer: Any) -> str:
    return str(next(iter(layer.channels)))


async def test_members_whose_handler_sends_to_their_own_group_are_served_once_a_message() -> None:
    seen: list[int] = []

    class App(AsyncWebsocketConsumer):
        groups = ["room"]

        async def note(self, message: dict[str, Any]) -> None:
            seen.append(message["n"])
            if message["n"] < 3:
                await self.channel_layer.group_send("room", {"type": "note", "n": message["n"] + 1})

    async with Client(App.as_asgi()) as one, Client(App.as_asgi()) as two:
        await one.connect()
        await two.connect()
        await settle()
        await get_channel_layer().group_send("room", {"type": "note", "n": 1})
        await until(lambda: len(seen) == 14)  # 2 + 4 + 8
        await settle()
        assert sorted(seen) == [1] * 2 + [2] * 4 + [3] * 8
