from __future__ import annotations

import asyncio
import threading
import time
from collections import defaultdict
from concurrent.futures import Future
from contextvars import ContextVar
from itertools import pairwise
from typing import Any

import pytest
from asgiref.sync import async_to_sync, sync_to_async

from antiphon import framework
from antiphon.consumers import threads
from antiphon.consumers.threads import Janitor, SyncPool
from antiphon.generic.websocket import AsyncWebsocketConsumer, WebsocketConsumer
from antiphon.layers import get_channel_layer
from antiphon.testing import WebsocketCommunicator
from tests.consumers.client import Client, until
from tests.waiting import eventually

who: ContextVar[str] = ContextVar("who", default="nobody")


async def test_handlers_run_in_the_pool_and_never_two_of_one_connection() -> None:
    lock = threading.Lock()
    names: set[str] = set()
    most = 0

    class App(WebsocketConsumer):
        groups = ["all"]

        def receive(self, text_data: str | None = None, bytes_data: bytes | None = None) -> None:
            nonlocal most
            assert lock.acquire(blocking=False), "two handlers at once"
            names.add(threading.current_thread().name)
            time.sleep(0.002)
            lock.release()
            self.send(text_data=text_data)

        def tick(self, message: dict[str, Any]) -> None:
            self.receive(text_data="tick")

    async with Client(App.as_asgi()) as client:
        await client.connect()
        for n in range(20):
            client.text(str(n))
            await get_channel_layer().group_send("all", {"type": "tick"})
        await until(lambda: len(client.texts) == 40)
        assert [text for text in client.texts if text != "tick"] == [str(n) for n in range(20)]
    assert names
    assert all(name.startswith("antiphon-sync-") for name in names)


async def test_handlers_of_32_connections_run_at_the_same_time() -> None:
    barrier = threading.Barrier(32)

    class App(WebsocketConsumer):
        def receive(self, text_data: str | None = None, bytes_data: bytes | None = None) -> None:
            barrier.wait(timeout=30)
            self.send(text_data="together")

    clients = [Client(App.as_asgi()) for _ in range(32)]
    for client in clients:
        client.start()
    await asyncio.gather(*(client.connect() for client in clients))
    for client in clients:
        client.text("x")
    assert {await client.next_text() for client in clients} == {"together"}
    for client in clients:
        client.vanish()
    await asyncio.gather(*(client.ended() for client in clients))


async def test_sync_threads_bounds_the_pool(monkeypatch: pytest.MonkeyPatch) -> None:
    framework.install(framework.Framework(sync_threads=3))
    monkeypatch.setattr(threads, "_pool", None)
    running = most = 0
    lock = threading.Lock()

    class App(WebsocketConsumer):
        def receive(self, text_data: str | None = None, bytes_data: bytes | None = None) -> None:
            nonlocal running, most
            with lock:
                running += 1
                most = max(most, running)
            time.sleep(0.02)
            with lock:
                running -= 1

    clients = [Client(App.as_asgi()) for _ in range(9)]
    for client in clients:
        client.start()
        await client.connect()
        client.text("x")
        client.vanish()
    await asyncio.gather(*(client.ended() for client in clients))
    assert most == 3
    threads.sync_pool().shutdown()


async def test_context_variables_flow_into_a_handler_and_on_to_the_next() -> None:
    class App(WebsocketConsumer):
        def connect(self) -> None:
            assert who.get() == "set by the middleware"
            who.set(f"connect of {self.scope['path']}")
            self.accept()

        def receive(self, text_data: str | None = None, bytes_data: bytes | None = None) -> None:
            self.send(text_data=who.get())

    inner = App.as_asgi()

    async def middleware(scope: Any, receive: Any, send: Any) -> None:
        who.set("set by the middleware")
        await inner(scope, receive, send)

    async with Client(middleware, {"path": "/a"}) as one, Client(middleware, {"path": "/b"}) as two:
        for client in (one, two):
            await client.connect()
            client.text("?")
        assert [await one.next_text(), await two.next_text()] == ["connect of /a", "connect of /b"]


async def test_a_send_in_a_handler_has_reached_the_server_when_it_returns() -> None:
    class App(WebsocketConsumer):
        def receive(self, text_data: str | None = None, bytes_data: bytes | None = None) -> None:
            self.send(text_data="one")
            assert client.texts == ["one"]
            self.send(text_data="two", close=True)

    async with Client(App.as_asgi()) as client:
        await client.connect()
        client.text("x")
        await client.ended()
        assert client.texts == ["one", "two"]


async def test_many_connections_whose_handlers_send_through_the_layer_do_not_deadlock() -> None:
    class App(WebsocketConsumer):
        groups = ["all"]
        capacity = 10_000

        def receive(self, text_data: str | None = None, bytes_data: bytes | None = None) -> None:
            async_to_sync(self.channel_layer.group_send)("all", {"type": "note"})

        def note(self, message: dict[str, Any]) -> None:
            self.send(text_data="note")

    clients = [Client(App.as_asgi()) for _ in range(40)]  # more than there are threads
    for client in clients:
        client.start()
    await asyncio.gather(*(client.connect() for client in clients))
    for client in clients:
        client.text("x")
    await until(lambda: all(len(client.texts) == 40 for client in clients))
    for client in clients:
        client.vanish()
    await asyncio.gather(*(client.ended() for client in clients))


async def test_a_slow_sync_handler_does_not_hold_up_the_loop() -> None:
    done = threading.Event()
    log: list[bool] = []

    class Slow(WebsocketConsumer):
        def receive(self, text_data: str | None = None, bytes_data: bytes | None = None) -> None:
            log.append(done.wait(30))

    class Echo(AsyncWebsocketConsumer):
        async def receive(self, text_data: str | None = None, bytes_data: bytes | None = None) -> None:
            await self.send(text_data=text_data)

    async with Client(Slow.as_asgi()) as slow, Client(Echo.as_asgi()) as quick:
        await slow.connect()
        await quick.connect()
        slow.text("x")
        for _ in range(10):
            quick.text("x")
            await quick.next_text()
        assert log == []
        done.set()
    assert log == [True]


async def test_under_a_test_communicator_handlers_run_on_the_one_thread_sensitive_thread() -> None:
    class App(WebsocketConsumer):
        def receive(self, text_data: str | None = None, bytes_data: bytes | None = None) -> None:
            self.send(text_data=str(threading.get_ident()))

    here = str(await sync_to_async(threading.get_ident, thread_sensitive=True)())
    clients = [WebsocketCommunicator(App.as_asgi(), "/") for _ in range(2)]
    for client in clients:
        await client.connect()
        await client.send_to("?")
        assert await client.receive_from() == here
        await client.disconnect()


def test_under_an_outer_async_to_sync_handlers_run_on_the_thread_that_waits() -> None:
    class App(WebsocketConsumer):
        def receive(self, text_data: str | None = None, bytes_data: bytes | None = None) -> None:
            self.send(text_data=str(threading.get_ident()))

    @async_to_sync
    async def talk() -> str:
        async with Client(App.as_asgi()) as client:
            await client.connect()
            client.text("?")
            return await client.next_text()

    assert talk() == str(threading.get_ident())


# The pool itself


class Counting(framework.Framework):
    """Notes on which thread old connections were asked to be closed, and when."""

    def __init__(self) -> None:
        super().__init__()
        self.times: dict[int, list[float]] = defaultdict(list)

    def release_connections(self) -> None:
        self.times[threading.get_ident()].append(time.monotonic())

    @property
    def has_database(self) -> bool:
        return True


def test_connections_are_closed_on_the_thread_that_ran_the_handler_once_it_is_idle(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(threads, "RELEASE_INTERVAL_S", 0.1)
    counting = Counting()
    framework.install(counting)
    pool = SyncPool(2)
    thread = pool.submit(threading.get_ident).result(30)
    times = counting.times[thread]
    assert times == []
    assert eventually(lambda: times)
    time.sleep(0.3)
    assert len(times) == 1, "an idle thread has nothing more to close"
    assert pool.submit(threading.get_ident).result(30) == thread
    assert eventually(lambda: len(times) == 2)
    pool.shutdown()


def test_connections_of_a_busy_thread_are_closed_at_most_once_an_interval(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(threads, "RELEASE_INTERVAL_S", 0.1)
    counting = Counting()
    framework.install(counting)
    pool = SyncPool(1)
    times = counting.times[pool.submit(threading.get_ident).result(30)]
    limit_s = time.monotonic() + 30
    while len(times) < 4 and time.monotonic() < limit_s:
        pool.submit(time.sleep, 0.01).result(30)
    assert len(times) >= 4
    pool.shutdown()
    assert all(later - earlier >= 0.09 for earlier, later in pairwise(times))


def test_after_an_idle_release_the_next_job_does_not_release_again(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(threads, "RELEASE_INTERVAL_S", 1.0)
    counting = Counting()
    framework.install(counting)
    pool = SyncPool(1)
    times = counting.times[pool.submit(threading.get_ident).result(30)]
    assert eventually(lambda: len(times) == 1)
    pool.submit(int).result(30)
    pool.submit(int).result(30)
    assert len(times) == 1
    pool.shutdown()


def test_a_release_that_fails_is_logged_and_costs_no_thread(
    monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    class Failing(Counting):
        fails = True

        def release_connections(self) -> None:
            super().release_connections()
            if self.fails:
                raise LookupError("the server is gone")

    monkeypatch.setattr(threads, "RELEASE_INTERVAL_S", 0.05)
    failing = Failing()
    framework.install(failing)
    pool = SyncPool(1)
    first = pool.submit(threading.get_ident).result(30)
    assert eventually(lambda: failing.times[first])
    assert pool.submit(threading.get_ident).result(30) == first
    assert "Could not close old database connections" in caplog.text
    failing.fails = False
    pool.shutdown()


def test_threads_start_as_they_are_needed_and_idle_ones_are_used_again() -> None:
    pool = SyncPool(4)
    assert repr(pool) == "<SyncPool 0/4 threads, 0 idle>"
    for _ in range(5):
        pool.submit(int).result(30)
        assert eventually(lambda: "1 idle" in repr(pool))
    assert repr(pool) == "<SyncPool 1/4 threads, 1 idle>"
    gate = threading.Event()
    jobs: list[Future[bool]] = [pool.submit(gate.wait, 30) for _ in range(12)]
    assert repr(pool) == "<SyncPool 4/4 threads, 0 idle>"
    gate.set()
    assert all(job.result(30) for job in jobs)
    assert eventually(lambda: "4 idle" in repr(pool))
    assert repr(pool) == "<SyncPool 4/4 threads, 4 idle>"
    pool.shutdown()


def test_jobs_submitted_at_the_same_time_get_a_thread_each() -> None:
    pool = SyncPool(8)
    for _ in range(20):
        barrier = threading.Barrier(8)
        assert len([job.result(30) for job in [pool.submit(barrier.wait, 30) for _ in range(8)]]) == 8
    pool.shutdown()


def test_errors_and_cancelled_jobs_leave_the_threads_at_work() -> None:
    pool = SyncPool(1)
    gate = threading.Event()
    pool.submit(gate.wait, 30)
    late = pool.submit(int)
    assert late.cancel()
    gate.set()
    with pytest.raises(ZeroDivisionError):
        pool.submit(lambda: 1 / 0).result(30)
    with pytest.raises(SystemExit):
        pool.submit(exit).result(30)
    assert pool.submit(int).result(30) == 0
    pool.shutdown()


def test_a_pool_that_is_shut_down_finishes_what_it_has() -> None:
    pool = SyncPool(2)
    jobs = [pool.submit(time.sleep, 0.01) for _ in range(6)]
    pool.shutdown()
    for job in jobs:
        job.result(30)


# The janitor of native async database calls


async def test_the_janitor_closes_what_async_consumers_left_and_only_when_one_was_busy(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(threads, "RELEASE_INTERVAL_S", 0.03)
    counting = Counting()
    framework.install(counting)
    thread = await sync_to_async(threading.get_ident, thread_sensitive=True)()  # what an ORM call would do
    janitor = Janitor(asyncio.get_running_loop())
    janitor.enter()
    await asyncio.sleep(0.1)
    times = counting.times[thread]
    assert times == []
    for n in range(1, 3):
        janitor.touched = True
        await until(lambda: len(times) >= n)  # noqa: B023 - awaited in the same turn
    await asyncio.sleep(0.1)
    assert len(times) == 2
    janitor.leave()
    await until(lambda: len(times) == 3)
    await asyncio.sleep(0.1)
    assert len(times) == 3
    assert janitor._timer is None, "a loop without connections has no timer"


async def test_an_async_consumer_has_its_connections_closed_while_it_is_open(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(threads, "RELEASE_INTERVAL_S", 0.03)
    counting = Counting()
    framework.install(counting)
    times = counting.times[await sync_to_async(threading.get_ident, thread_sensitive=True)()]

    class App(AsyncWebsocketConsumer):
        async def receive(self, text_data: str | None = None, bytes_data: bytes | None = None) -> None:
            await sync_to_async(int, thread_sensitive=True)()

    async with Client(App.as_asgi()) as client:
        await client.connect()
        await asyncio.sleep(0.1)
        before = len(times)
        client.text("x")
        await until(lambda: len(times) > before)
    async with Client(App.as_asgi(), {"antiphon.test": True}) as client:
        await client.connect()
        await asyncio.sleep(0.1)
        before = len(times)
        client.text("x")
        await asyncio.sleep(0.1)
        assert len(times) == before, "the connections of a test are its own"
