from __future__ import annotations

import asyncio
import os
import signal
import sys
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Any

import pytest

from antiphon.consumer import AsyncConsumer, SyncConsumer
from antiphon.consumers import worker as workers
from antiphon.exceptions import ChannelFull, StopConsumer
from antiphon.layers import InMemoryChannelLayer, channel_layers, get_channel_layer
from antiphon.routing import ChannelNameRouter
from antiphon.worker import Worker
from tests.consumers.client import until


@asynccontextmanager
async def working(worker: Worker) -> AsyncIterator[None]:
    task = asyncio.create_task(worker.handle())
    try:
        yield
    finally:
        task.cancel()
        await asyncio.wait({task})


class Jobs(AsyncConsumer):
    """Notes what runs, in ``log``; ``most`` is how many ran at once."""

    log: list[str]
    running = 0
    most = 0

    async def job(self, message: dict[str, Any]) -> None:
        cls = type(self)
        cls.running += 1
        cls.most = max(cls.most, cls.running)
        await asyncio.sleep(message.get("for_s", 0))
        cls.running -= 1
        self.log.append(message["n"])

    async def fail(self, message: dict[str, Any]) -> None:
        raise LookupError(message["n"])

    async def enough(self, message: dict[str, Any]) -> None:
        raise StopConsumer


def jobs() -> Any:
    return type("App", (Jobs,), {"log": []})


async def test_messages_of_a_channel_are_handled_one_at_a_time_and_in_order() -> None:
    App = jobs()
    layer = get_channel_layer()
    for n in range(20):
        await layer.send("jobs", {"type": "job", "n": n, "for_s": 0.001})
    async with working(Worker(App.as_asgi(), ["jobs"], layer)):
        await until(lambda: len(App.log) == 20)
    assert App.log == list(range(20))
    assert App.most == 1


async def test_concurrency_is_how_many_are_handled_at_once() -> None:
    App = jobs()
    layer = get_channel_layer()
    for n in range(20):
        await layer.send("jobs", {"type": "job", "n": n, "for_s": 0.01})
    worker = Worker(App.as_asgi(), ["jobs"], layer, concurrency=4)
    async with working(worker):
        await until(lambda: worker.handled == 20)
    assert sorted(App.log) == list(range(20))
    assert App.most == 4


async def test_what_is_not_handled_yet_stays_in_the_layer() -> None:
    App = jobs()
    layer = get_channel_layer()
    for n in range(10):
        await layer.send("jobs", {"type": "job", "n": n, "for_s": 30})
    async with working(Worker(App.as_asgi(), ["jobs"], layer, concurrency=2)):
        await until(lambda: App.running == 2)
        await asyncio.sleep(0.02)
        assert layer.stats()["worker_channels"] == {"jobs": 8}


async def test_two_workers_share_a_channel() -> None:
    App = jobs()
    layer = get_channel_layer()
    one, two = Worker(App.as_asgi(), ["jobs"], layer), Worker(App.as_asgi(), ["jobs"], layer)
    async with working(one), working(two):
        for n in range(10):
            await layer.send("jobs", {"type": "job", "n": n, "for_s": 0.005})
        await until(lambda: len(App.log) == 10)
    assert one.handled + two.handled >= 9  # the last of each is counted when the next is asked for
    assert one.handled > 0
    assert two.handled > 0


async def test_each_channel_has_its_own_consumer_by_name() -> None:
    One, Two = jobs(), jobs()
    layer = get_channel_layer()
    router = ChannelNameRouter({"one": One.as_asgi(), "two": Two.as_asgi()})
    async with working(Worker(router, ["one", "two"], layer)):
        await layer.send("one", {"type": "job", "n": 1})
        await layer.send("two", {"type": "job", "n": 2})
        await until(lambda: One.log and Two.log)
    assert (One.log, Two.log) == ([1], [2])


async def test_a_sync_consumer_works_too() -> None:
    log: list[int] = []

    class App(SyncConsumer):
        def job(self, message: dict[str, Any]) -> None:
            log.append(message["n"])

    layer = get_channel_layer()
    async with working(Worker(App.as_asgi(), ["jobs"], layer)):
        for n in range(5):
            await layer.send("jobs", {"type": "job", "n": n})
        await until(lambda: len(log) == 5)


async def test_a_handler_that_raises_gets_its_message_again_until_it_is_dead(
    caplog: pytest.LogCaptureFixture,
) -> None:
    App = jobs()
    counts: list[int] = []

    class Failing(App):  # type: ignore[misc, valid-type]
        async def fail(self, message: dict[str, Any]) -> None:
            counts.append(self.scope["antiphon.delivery"].count)
            raise LookupError(message["n"])

    layer = get_channel_layer()
    # As a middleware does: what it copies must hold what is true for each message.
    application = Failing.as_asgi()
    async with working(Worker(lambda scope, *ends: application({**scope}, *ends), ["jobs"], layer, retry_pause_s=0)):
        await layer.send("jobs", {"type": "fail", "n": 1})
        await layer.send("jobs", {"type": "job", "n": 2})
        await until(lambda: App.log == [2])
    assert counts == [1, 2, 3, 4, 5]
    raised = [record for record in caplog.records if record.name == "antiphon.consumer"]
    assert ["Failing.fail raised LookupError(1)" in record.getMessage() for record in raised] == [True] * 5
    assert layer.stats()["drops"] == {"dead": 1}
    async with await layer.lease("jobs.dead") as lease:
        assert lease.message == {"type": "fail", "n": 1}
        assert lease.delivery_count == 1


async def test_an_error_that_on_error_has_dealt_with_is_no_failure() -> None:
    App = jobs()
    raised: list[Exception] = []

    class Forgiving(App):  # type: ignore[misc, valid-type]
        def on_error(self, exc: Exception, handler: str) -> bool:
            raised.append(exc)
            return True

    layer = get_channel_layer()
    async with working(Worker(Forgiving.as_asgi(), ["jobs"], layer)):
        await layer.send("jobs", {"type": "fail", "n": 1})
        await layer.send("jobs", {"type": "job", "n": 2})
        await until(lambda: App.log == [2])
    assert len(raised) == 1


async def test_a_message_counts_as_waiting_until_its_handler_has_returned() -> None:
    App = jobs()
    layer = InMemoryChannelLayer(capacity=1)
    channel_layers.set("default", layer)
    async with working(Worker(App.as_asgi(), ["jobs"], layer)):
        await layer.send("jobs", {"type": "job", "n": 1, "for_s": 0.1})
        await until(lambda: App.running)
        with pytest.raises(ChannelFull):
            await layer.send("jobs", {"type": "job", "n": 2})
        await until(lambda: App.log == [1])
        await asyncio.sleep(0.01)
        await layer.send("jobs", {"type": "job", "n": 2})
        await until(lambda: App.log == [1, 2])


async def test_a_layer_without_leases_gives_each_message_once() -> None:
    messages: asyncio.Queue[dict[str, Any]] = asyncio.Queue()
    seen: list[tuple[Any, int]] = []

    class Foreign:
        async def receive(self, channel: str) -> dict[str, Any]:
            return await messages.get()

    async def app(scope: Any, receive: Any, send: Any) -> None:
        message = await receive()
        seen.append((message["n"], scope["antiphon.delivery"].count))
        raise LookupError

    async with working(Worker(app, ["jobs"], Foreign())):
        for n in range(2):
            messages.put_nowait({"type": "job", "n": n})
        await until(lambda: len(seen) == 2)
    assert seen == [(0, 1), (1, 1)]


async def test_an_application_that_crashes_is_logged_and_begun_again(caplog: pytest.LogCaptureFixture) -> None:
    seen: list[Any] = []

    async def app(scope: Any, receive: Any, send: Any) -> None:
        message = await receive()
        count = scope["antiphon.delivery"].count
        seen.append((message["n"], count))
        if count == 1:
            raise LookupError(f"crash {message['n']}")

    layer = get_channel_layer()
    worker = Worker(app, ["jobs"], layer, retry_pause_s=0)
    async with working(worker):
        for n in range(3):
            await layer.send("jobs", {"type": "job", "n": n})
        await until(lambda: worker.handled == 6)
    assert seen == [(0, 1), (0, 2), (1, 1), (1, 2), (2, 1), (2, 2)]
    assert [record.name for record in caplog.records] == ["antiphon.worker"] * 3
    assert "The application for channel 'jobs' failed; a new instance takes its place" in caplog.text


async def test_a_consumer_that_stops_is_begun_again() -> None:
    App = jobs()
    layer = get_channel_layer()
    async with working(Worker(App.as_asgi(), ["jobs"], layer)):
        await layer.send("jobs", {"type": "enough"})
        await layer.send("jobs", {"type": "job", "n": 1})
        await until(lambda: App.log == [1])


async def test_an_application_that_cannot_begin_ends_the_worker() -> None:
    async def app(scope: Any, receive: Any, send: Any) -> None:
        raise LookupError("no settings")

    with pytest.raises(ExceptionGroup) as info:
        await Worker(app, ["jobs"], get_channel_layer()).handle()
    assert info.group_contains(LookupError, match="no settings")


async def test_a_channel_that_no_route_knows_ends_the_worker() -> None:
    router = ChannelNameRouter({"one": jobs().as_asgi()})
    with pytest.raises(ExceptionGroup) as info:
        await Worker(router, ["jobs"], get_channel_layer()).handle()
    assert info.group_contains(ValueError, match="jobs")


async def test_an_application_that_ends_without_taking_a_message_ends_the_worker() -> None:
    async def app(scope: Any, receive: Any, send: Any) -> None:
        pass

    with pytest.raises(ExceptionGroup) as info:
        await Worker(app, ["jobs"], get_channel_layer()).handle()
    assert info.group_contains(RuntimeError, match="'jobs' ended without taking a message")


async def test_there_is_no_client_to_send_to(caplog: pytest.LogCaptureFixture) -> None:
    class App(AsyncConsumer):
        async def job(self, message: dict[str, Any]) -> None:
            await self.send({"type": "websocket.send", "text": "x"})

    layer = get_channel_layer()
    async with working(Worker(App.as_asgi(), ["jobs"], layer)):
        await layer.send("jobs", {"type": "job"})
        await until(lambda: caplog.records)
    assert "a worker has no client to send 'websocket.send' to; use the channel layer" in caplog.text


async def test_a_consumer_of_a_worker_hears_groups_and_its_own_channel_too() -> None:
    heard: list[str] = []

    class App(AsyncConsumer):
        async def begin(self, message: dict[str, Any]) -> None:
            await self.join("news")
            await self.channel_layer.group_send("news", {"type": "news"})

        async def news(self, message: dict[str, Any]) -> None:
            heard.append(self.channel_name)

    layer = get_channel_layer()
    async with working(Worker(App.as_asgi(), ["jobs"], layer)):
        await layer.send("jobs", {"type": "begin"})
        await until(lambda: heard)
        await layer.send("jobs", {"type": "begin"})
        await until(lambda: len(heard) == 2)
    assert layer.groups == {}


@pytest.mark.parametrize(
    ("arguments", "text"),
    [
        ({"channel_layer": None}, "Channel layer is not valid"),
        ({"channels": "jobs"}, "channels: expected a list of worker channels; got 'jobs'"),
        ({"channels": []}, "channels: expected a list"),
        ({"concurrency": 0}, "concurrency: expected a positive int; got 0"),
        ({"concurrency": "2"}, "concurrency: expected a positive int; got '2'"),
    ],
)
def test_wrong_arguments_are_named_at_the_call(arguments: dict[str, Any], text: str) -> None:
    given = {"application": jobs().as_asgi(), "channels": ["jobs"], "channel_layer": get_channel_layer(), **arguments}
    with pytest.raises(ValueError, match=text):
        Worker(**given)


@pytest.mark.skipif(sys.platform == "win32", reason="loops there have no signal handlers")
async def test_a_signal_lets_the_running_handlers_finish_and_takes_nothing_more() -> None:
    App = jobs()
    layer = get_channel_layer()
    for n in range(3):
        await layer.send("jobs", {"type": "job", "n": n, "for_s": 0.2})
    worker = Worker(App.as_asgi(), ["jobs"], layer)
    task = asyncio.create_task(worker._run())
    await until(lambda: App.running == 1)
    os.kill(os.getpid(), signal.SIGTERM)
    async with asyncio.timeout(30):
        await task
    assert App.log == [0]
    assert layer.stats()["worker_channels"] == {"jobs": 2}
    assert worker.handled == 1


@pytest.mark.skipif(sys.platform == "win32", reason="loops there have no signal handlers")
async def test_an_idle_listener_takes_nothing_more_after_the_signal_either() -> None:
    App = jobs()
    layer = get_channel_layer()
    await layer.send("slow", {"type": "job", "n": 0, "for_s": 0.2})
    task = asyncio.create_task(Worker(App.as_asgi(), ["slow", "idle"], layer)._run())
    await until(lambda: App.running == 1)
    os.kill(os.getpid(), signal.SIGTERM)
    await asyncio.sleep(0.02)
    await layer.send("idle", {"type": "job", "n": 1})
    async with asyncio.timeout(30):
        await task
    assert App.log == [0]
    assert layer.stats()["worker_channels"] == {"idle": 1}


@pytest.mark.skipif(sys.platform == "win32", reason="loops there have no signal handlers")
async def test_what_a_stopped_worker_does_not_get_done_is_given_back(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(workers, "STOP_GRACE_S", 0.1)
    App = jobs()
    layer = get_channel_layer()
    await layer.send("jobs", {"type": "job", "n": 0, "for_s": 30})
    task = asyncio.create_task(Worker(App.as_asgi(), ["jobs"], layer)._run())
    await until(lambda: App.running == 1)
    os.kill(os.getpid(), signal.SIGTERM)
    async with asyncio.timeout(30):
        await task
        lease = await layer.lease("jobs")
    assert lease.delivery_count == 2
    await lease.ack()
