"""Hours of coming and going in minutes: nothing may leak, and every message is delivered or counted.

``make soak``; ``SOAK_S=600 make soak`` for ten minutes a test. Everything is in one process.
"""

from __future__ import annotations

import asyncio
import gc
import json
import logging
import os
import random
import sys
import threading
import time
from collections import Counter
from collections.abc import AsyncIterator, Iterator
from contextlib import asynccontextmanager, suppress
from pathlib import Path
from typing import Any

import pytest
from asgiref.sync import async_to_sync

from antiphon import group_send
from antiphon.exceptions import AntiphonError
from antiphon.generic.websocket import AsyncWebsocketConsumer, WebsocketConsumer
from antiphon.layers import InMemoryChannelLayer, channel_layers

pytestmark = pytest.mark.soak
SOAK_S = float(os.environ.get("SOAK_S", "30"))
# What an allocator keeps for itself is not ours to account for.
GROWTH_LIMIT_BYTES = 16 << 20


@pytest.fixture(autouse=True)
def _quiet() -> Iterator[None]:
    """Make no records of thousands of provoked errors; pytest would keep them all."""
    logging.disable(logging.CRITICAL)
    yield
    logging.disable(logging.NOTSET)


class Client:
    """The server's side of one WebSocket, without a server; not marked as a test, so errors end as in production."""

    def __init__(self, application: Any, room: str) -> None:
        self.heard: Counter[str] = Counter()
        self._events: asyncio.Queue[dict[str, Any]] = asyncio.Queue()
        self._accepted = asyncio.Event()
        scope = {"type": "websocket", "path": f"/{room}", "headers": [], "subprotocols": [], "room": room}
        self.task = asyncio.create_task(application(scope, self._events.get, self._hear))

    async def _hear(self, event: dict[str, Any]) -> None:
        if event["type"] == "websocket.send":
            self.heard[event["text"]] += 1
        elif event["type"] == "websocket.accept":
            self._accepted.set()
        else:
            self._events.put_nowait({"type": "websocket.disconnect", "code": event.get("code", 1000)})

    async def connect(self) -> None:
        self._events.put_nowait({"type": "websocket.connect"})
        await asyncio.wait_for(self._accepted.wait(), 10)

    def say(self, text: str) -> None:
        self._events.put_nowait({"type": "websocket.receive", "text": text})

    def hang_up(self) -> None:
        self._events.put_nowait({"type": "websocket.disconnect", "code": 1006})


class Room(AsyncWebsocketConsumer):
    """A chat whose clients also make it fail, close and hang."""

    disconnect_grace_s = 0.05

    async def connect(self) -> None:
        await self.join(self.scope["room"])
        await self.accept()

    async def receive(self, text_data: str | None = None, bytes_data: bytes | None = None) -> None:
        if text_data == "fail":
            raise RuntimeError("asked to fail")
        if text_data == "close":
            await self.close()
        elif text_data == "hang":
            await asyncio.sleep(3600)
        else:
            await self.channel_layer.group_send(self.scope["room"], {"type": "talk", "text": text_data})

    async def talk(self, event: dict[str, Any]) -> None:
        await self.send(text_data=json.dumps(event["text"]))


@asynccontextmanager
async def a_layer(**options: Any) -> AsyncIterator[InMemoryChannelLayer]:
    layer = InMemoryChannelLayer(**options)
    channel_layers.set("default", layer)
    try:
        yield layer
    finally:
        await layer.close()


def memory_bytes() -> int:
    if sys.platform == "win32":
        pytest.skip("reads memory from /proc")
    gc.collect()
    page_bytes: int = os.sysconf("SC_PAGE_SIZE")
    return int(Path("/proc/self/statm").read_text().split()[1]) * page_bytes


async def generation(chance: random.Random) -> None:
    """Let a crowd come, talk, and end in every way there is."""
    room = f"room_{chance.randrange(50)}"
    application = Room.as_asgi()
    clients = [Client(application, room) for _ in range(40)]
    for client in clients:
        await client.connect()
    for client in clients:
        client.say("x" * chance.randrange(2000))
    await asyncio.sleep(0.01)
    for client in clients:
        end = chance.choice(("hang_up", "fail", "close", "hang", "cancel"))
        if end == "cancel":
            client.task.cancel()
        elif end == "hang_up":
            client.hang_up()
        else:
            client.say(end)
            if end == "hang":
                client.hang_up()
    await asyncio.wait_for(asyncio.gather(*(client.task for client in clients), return_exceptions=True), 30)


@pytest.mark.skipif(not Path("/proc/self/statm").exists(), reason="reads memory from /proc")
async def test_connections_come_and_go_and_leave_nothing_behind() -> None:
    chance = random.Random(1)
    async with a_layer() as layer:
        for _ in range(100):  # what is made once is made now, and the allocator has seen its largest crowds
            await generation(chance)
        tasks, before = len(asyncio.all_tasks()), memory_bytes()
        generations, end = 0, time.monotonic() + SOAK_S
        while time.monotonic() < end:
            await generation(chance)
            generations += 1
        stats, after = layer.stats(), memory_bytes()
        print(f"\n{generations * 40:,} connections, {stats['delivered']:,} delivered, {after - before:+,} bytes")
        assert (stats["channels"], stats["groups"], stats["waiting"]) == (0, 0, 0)
        assert len(asyncio.all_tasks()) == tasks
        assert after - before < GROWTH_LIMIT_BYTES


async def test_every_message_is_delivered_or_counted() -> None:
    chance = random.Random(2)

    class Reader(AsyncWebsocketConsumer):
        groups = ("flood",)
        capacity = 20

        async def flood(self, event: dict[str, Any]) -> None:
            if chance.random() < 0.01:
                await asyncio.sleep(0.005)
            await self.send(text_data=str(event["n"]))

    class SlowReader(WebsocketConsumer):
        groups = ("flood",)
        capacity = 5

        def flood(self, event: dict[str, Any]) -> None:
            if event["n"] % 50 == 0:
                time.sleep(0.005)
            self.send(text_data=str(event["n"]))

    async with a_layer() as layer:
        clients = [Client(kind.as_asgi(), "") for kind in (Reader, SlowReader) for _ in range(10)]
        for client in clients:
            await client.connect()
        sent, end = [0], time.monotonic() + SOAK_S
        lock = threading.Lock()

        def from_a_thread() -> None:
            while time.monotonic() < end:
                group_send("flood", {"type": "flood", "n": chance.randrange(1000)})
                with lock:
                    sent[0] += 1
                time.sleep(chance.random() / 200)

        threads = [threading.Thread(target=from_a_thread) for _ in range(3)]
        for thread in threads:
            thread.start()
        while time.monotonic() < end:
            burst = chance.randrange(1, 40)
            for _ in range(burst):
                await layer.group_send("flood", {"type": "flood", "n": chance.randrange(1000)})
            with lock:
                sent[0] += burst
            await asyncio.sleep(chance.random() / 50)
        for thread in threads:
            await asyncio.to_thread(thread.join)
        while layer.stats()["waiting"]:  # noqa: ASYNC110 - a counter has no event to wait for
            await asyncio.sleep(0.05)
        await asyncio.sleep(0.5)  # the last handlers
        heard = sum(client.heard.total() for client in clients)
        stats = layer.stats()
        print(f"\n{sent[0]:,} sent to {len(clients)}: {heard:,} heard, {stats['dropped']:,} dropped")
        assert heard + stats["dropped"] == sent[0] * len(clients)
        assert sum(stats["drops"].values()) == stats["dropped"] > 0
        for client in clients:
            client.hang_up()
        await asyncio.gather(*(client.task for client in clients))


def test_loops_come_and_go_from_many_threads() -> None:
    layer = InMemoryChannelLayer()
    channel_layers.set("default", layer)
    end = time.monotonic() + SOAK_S
    failures: list[BaseException] = []
    rounds = [0]

    def work(number: int) -> None:
        try:
            while time.monotonic() < end:
                channel = async_to_sync(layer.new_channel)()
                group = f"group_{number}"
                async_to_sync(layer.group_add)(group, channel)
                async_to_sync(layer.group_send)(group, {"type": "hello", "n": rounds[0]})
                assert async_to_sync(layer.receive)(channel)["type"] == "hello"
                async_to_sync(layer.group_discard)(group, channel)
                rounds[0] += 1
        except BaseException as exc:
            failures.append(exc)

    threads = [threading.Thread(target=work, args=(number,)) for number in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    stats = layer.stats()
    print(f"\nabout {rounds[0]:,} rounds of five calls, each on a loop of its own; {stats['nodes']} nodes")
    assert failures == []
    assert stats["nodes"] <= 2
    assert (stats["groups"], stats["waiting"]) == (0, 0)
    with suppress(AntiphonError):
        async_to_sync(layer.close)()
