"""The communicator of any ASGI application: time-outs, failures, ends, collection."""

from __future__ import annotations

import asyncio
import gc
from contextvars import ContextVar
from typing import Any

import pytest

from antiphon import framework
from antiphon.testing import ApplicationCommunicator
from antiphon.types import Receive, Scope, Send

variable: ContextVar[str] = ContextVar("variable", default="unset")


async def echo(scope: Scope, receive: Receive, send: Send) -> None:
    while (event := await receive())["type"] != "stop":
        await send(event)


async def test_what_goes_in_comes_out() -> None:
    communicator = ApplicationCommunicator(echo, {"type": "test"})
    await communicator.send_input({"type": "hello"})
    assert await communicator.receive_output() == {"type": "hello"}
    await communicator.send_input({"type": "stop"})
    await communicator.wait()


async def test_a_timeout_leaves_the_application_running() -> None:
    communicator = ApplicationCommunicator(echo, {"type": "test"})
    with pytest.raises(TimeoutError, match=r"within 0\.01 s; it is still running"):
        await communicator.receive_output(timeout=0.01)
    await communicator.send_input({"type": "hello"})
    assert await communicator.receive_output() == {"type": "hello"}


async def test_a_receive_that_the_test_cancels_loses_no_event() -> None:
    communicator = ApplicationCommunicator(echo, {"type": "test"})
    for number in range(50):
        waiting = asyncio.create_task(communicator.receive_output())
        for _ in range(number % 5):
            await asyncio.sleep(0)
        await communicator.send_input({"type": str(number)})
        for _ in range(number % 7):
            await asyncio.sleep(0)
        waiting.cancel()
        done = (await asyncio.gather(waiting, return_exceptions=True))[0]
        got: Any = await communicator.receive_output() if isinstance(done, asyncio.CancelledError) else done
        assert got == {"type": str(number)}


async def test_two_waiting_receivers_get_one_event_each() -> None:
    communicator = ApplicationCommunicator(echo, {"type": "test"})
    waiting = [asyncio.create_task(communicator.receive_output()) for _ in range(2)]
    await asyncio.sleep(0)
    await communicator.send_input({"type": "a"})
    await communicator.send_input({"type": "b"})
    assert [event["type"] for event in await asyncio.gather(*waiting)] == ["a", "b"]


async def test_what_the_application_raises_is_raised_at_once_by_a_waiting_receive() -> None:
    async def fails(scope: Scope, receive: Receive, send: Send) -> None:
        await receive()
        raise ValueError("mine")

    communicator = ApplicationCommunicator(fails, {"type": "test"})
    await communicator.send_input({"type": "hello"})
    async with asyncio.timeout(30):
        with pytest.raises(ValueError, match="mine"):
            await communicator.receive_output(timeout=100)
    with pytest.raises(ValueError, match="mine"):
        await communicator.send_input({"type": "again"})
    with pytest.raises(ValueError, match="mine"):
        await communicator.receive_nothing()
    with pytest.raises(ValueError, match="mine"):
        await communicator.wait()
    with pytest.raises(ValueError, match="mine"):
        communicator.stop()


async def test_output_sent_before_the_end_is_received_after_it_and_then_a_receive_does_not_wait() -> None:
    async def short(scope: Scope, receive: Receive, send: Send) -> None:
        await send({"type": "one"})

    communicator = ApplicationCommunicator(short, {"type": "test"})
    await communicator.wait()
    assert await communicator.receive_output() == {"type": "one"}
    async with asyncio.timeout(30):
        with pytest.raises(TimeoutError, match="the application has ended"):
            await communicator.receive_output(timeout=100)


async def test_wait_says_that_the_application_goes_on() -> None:
    communicator = ApplicationCommunicator(echo, {"type": "test"})
    with pytest.raises(TimeoutError, match="did not end within"):
        await communicator.wait(timeout=0.01)
    await communicator.send_input({"type": "still there"})
    assert await communicator.receive_output() == {"type": "still there"}


async def test_nothing_is_received_from_a_silent_application_and_something_from_another() -> None:
    go_on = asyncio.Event()

    async def late(scope: Scope, receive: Receive, send: Send) -> None:
        await go_on.wait()
        await send({"type": "late"})

    assert await ApplicationCommunicator(echo, {"type": "test"}).receive_nothing(timeout=0.02)
    communicator = ApplicationCommunicator(late, {"type": "test"})
    assert await communicator.receive_nothing(timeout=0.01)
    go_on.set()
    assert not await communicator.receive_nothing(timeout=30)
    assert await communicator.receive_output() == {"type": "late"}


async def test_drain_takes_what_is_there_and_does_not_wait() -> None:
    communicator = ApplicationCommunicator(echo, {"type": "test"})
    assert communicator.drain() == []
    for name in "abc":
        await communicator.send_input({"type": name})
    assert not await communicator.receive_nothing()
    assert [event["type"] for event in communicator.drain()] == ["a", "b", "c"]


async def test_stop_cancels_and_a_stopped_application_is_one_that_ended() -> None:
    ended = asyncio.Event()

    async def waits(scope: Scope, receive: Receive, send: Send) -> None:
        try:
            await receive()
        finally:
            ended.set()

    communicator = ApplicationCommunicator(waits, {"type": "test"})
    communicator.stop()  # never started: nothing to do
    assert await communicator.receive_nothing(timeout=0.01)
    communicator.stop()
    await asyncio.wait_for(ended.wait(), 30)
    await communicator.wait()
    with pytest.raises(TimeoutError, match="has ended"):
        await communicator.receive_output()


async def test_a_collected_communicator_stops_its_application() -> None:
    ended = asyncio.Event()

    async def waits(scope: Scope, receive: Receive, send: Send) -> None:
        try:
            await receive()
        finally:
            ended.set()

    communicator = ApplicationCommunicator(waits, {"type": "test"})
    assert await communicator.receive_nothing(timeout=0.01)
    del communicator
    gc.collect()
    await asyncio.wait_for(ended.wait(), 30)


def test_a_communicator_collected_after_its_loop_closed_says_nothing() -> None:
    async def main() -> ApplicationCommunicator:
        communicator = ApplicationCommunicator(echo, {"type": "test"})
        assert await communicator.receive_nothing(timeout=0)
        await asyncio.sleep(0)
        return communicator

    communicator = asyncio.run(main())
    del communicator
    gc.collect()  # warnings are errors here


async def test_the_application_starts_in_an_empty_context_that_says_whose_connections_these_are() -> None:
    seen: dict[str, Any] = {}

    async def looks(scope: Scope, receive: Receive, send: Send) -> None:
        seen.update(variable=variable.get(), keep=framework.keep_connections.get(), marked=scope["antiphon.test"])

    variable.set("of the test")
    await ApplicationCommunicator(looks, {"type": "test"}).wait()
    assert seen == {"variable": "unset", "keep": True, "marked": True}
    assert not framework.keep_connections.get()


async def test_the_scope_stays_the_one_that_the_test_holds() -> None:
    scope: dict[str, Any] = {"type": "test"}

    async def writes(scope: Scope, receive: Receive, send: Send) -> None:
        scope["seen"] = scope["user"]

    communicator = ApplicationCommunicator(writes, scope)
    communicator.scope["user"] = "ada"
    await communicator.wait()
    assert scope["seen"] == "ada"


async def test_an_application_of_asgi_2_runs() -> None:
    class Old:
        def __init__(self, scope: Scope) -> None:
            self.scope = scope

        async def __call__(self, receive: Receive, send: Send) -> None:
            await send({"type": self.scope["type"]})

    assert await ApplicationCommunicator(Old, {"type": "test"}).receive_output() == {"type": "test"}


async def test_its_repr_shows_its_state() -> None:
    communicator = ApplicationCommunicator(echo, {"type": "test"})
    assert repr(communicator) == "<ApplicationCommunicator 'test' not started>"
    await communicator.send_input({"type": "stop"})
    assert repr(communicator) == "<ApplicationCommunicator 'test' running>"
    await communicator.wait()
    assert repr(communicator) == "<ApplicationCommunicator 'test' ended>"
