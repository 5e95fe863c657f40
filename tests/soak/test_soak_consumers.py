"""Hours in minutes: connections of every kind that come, talk, fail and go. SOAK_S: seconds of each test."""

from __future__ import annotations

import asyncio
import gc
import logging
import os
import random
import sys
import time
import tracemalloc
from typing import Any

import pytest

from antiphon.generic.http import AsyncHttpConsumer
from antiphon.generic.websocket import AsyncWebsocketConsumer, WebsocketConsumer
from antiphon.layers import get_channel_layer
from tests.consumers.client import Client, until

pytestmark = pytest.mark.soak

SOAK_S = float(os.environ.get("SOAK_S", "60"))
ROOMS = [f"room{n}" for n in range(8)]


class Chat(AsyncWebsocketConsumer):
    disconnect_grace_s = 0.05

    async def connect(self) -> None:
        self.room = random.choice(ROOMS)
        await self.join(self.room)
        await self.join("all")
        await self.accept()

    async def receive(self, text_data: str | None = None, bytes_data: bytes | None = None) -> None:
        if text_data == "fail":
            raise LookupError
        if text_data == "hang":
            await asyncio.sleep(30)
        if text_data == "move":
            await self.leave(self.room)
            self.room = random.choice(ROOMS)
            await self.join(self.room)
        await self.channel_layer.group_send(self.room, {"type": "note", "text": text_data or ""})

    async def note(self, message: dict[str, Any]) -> None:
        await self.send(text_data=message["text"])

    def on_error(self, exc: Exception, handler: str) -> None:
        pass


class SyncChat(WebsocketConsumer):
    groups = ["all"]

    def receive(self, text_data: str | None = None, bytes_data: bytes | None = None) -> None:
        if text_data == "fail":
            raise LookupError
        if text_data != "hang":
            self.join(random.choice(ROOMS))

    def note(self, message: dict[str, Any]) -> None:
        self.send(text_data=message["text"])

    def on_error(self, exc: Exception, handler: str) -> None:
        pass


class Stream(AsyncHttpConsumer):
    async def handle(self, body: bytes) -> None:
        await self.join("all")
        await self.send_headers()
        await asyncio.sleep(random.random() * 0.02)
        await self.send_body(b"done")

    async def note(self, message: dict[str, Any]) -> None:
        await self.send_body(b"x", more_body=True)


async def websocket(app: Any) -> None:
    client = Client(app, raises_when_gone=True)
    client.start()
    await client.connect()
    for _ in range(random.randrange(6)):
        client.text(random.choice(["hello", "hello", "move", "fail", "hang"]))
        await asyncio.sleep(random.random() * 0.004)
    if random.random() < 0.2:
        client.task.cancel()
    else:
        client.vanish(random.choice([1000, 1001, 1006]))
    done, _ = await asyncio.wait({client.task}, timeout=10)
    assert done, "a connection did not end"
    if not client.task.cancelled():
        client.task.result()


async def request(app: Any) -> None:
    client = Client(app, {"type": "http"}, raises_when_gone=True)
    client.start()
    client.put({"type": "http.request", "body": b""})
    await asyncio.sleep(random.random() * 0.03)
    client.vanish()
    done, _ = await asyncio.wait({client.task}, timeout=10)
    assert done, "a request did not end"
    client.task.result()


async def test_connections_of_all_kinds_come_and_go_and_memory_does_not_grow() -> None:
    logging.getLogger("antiphon").setLevel(logging.CRITICAL)  # cancelled handlers are part of the game
    layer = get_channel_layer()
    kinds = [(websocket, Chat.as_asgi()), (websocket, SyncChat.as_asgi()), (request, Stream.as_asgi())]
    count = 0
    sizes: list[int] = []
    began = time.monotonic()
    tracemalloc.start()
    try:
        while time.monotonic() - began < SOAK_S or len(sizes) < 4:
            async with asyncio.TaskGroup() as group:
                for _ in range(60):
                    serve, app = random.choice(kinds)
                    group.create_task(serve(app))
                await layer.group_send("all", {"type": "note", "text": "to all"})
            count += 60
            assert layer.groups == {}
            assert not layer.channels
            assert len(asyncio.all_tasks()) == 1
            # A point at each quarter; the first is after the caches are warm.
            if time.monotonic() - began > SOAK_S * (len(sizes) + 1) / 4:
                gc.collect()
                sizes.append(tracemalloc.get_traced_memory()[0])
    finally:
        tracemalloc.stop()
        logging.getLogger("antiphon").setLevel(logging.NOTSET)
    print(f"\n{count} connections; bytes held at each quarter: {sizes}; {layer.stats()['drops']}", file=sys.stderr)
    assert sizes[-1] < sizes[0] * 1.2 + 200_000


async def test_a_group_whose_members_change_all_the_time_loses_nothing_for_those_who_stay() -> None:
    class Stays(AsyncWebsocketConsumer):
        groups = ["all"]
        capacity = 100_000

        async def note(self, message: dict[str, Any]) -> None:
            seen.append(message["n"])

    logging.getLogger("antiphon").setLevel(logging.CRITICAL)
    seen: list[int] = []
    layer = get_channel_layer()
    n = 0
    try:
        async with Client(Stays.as_asgi()) as client:
            await client.connect()
            began = time.monotonic()
            while time.monotonic() - began < SOAK_S / 4:
                async with asyncio.TaskGroup() as group:
                    for _ in range(20):
                        group.create_task(websocket(Chat.as_asgi()))
                    for _ in range(50):
                        await layer.group_send("all", {"type": "note", "n": n, "text": ""})
                        n += 1
                        await asyncio.sleep(0)
            await until(lambda: len(seen) == n, 10)
    finally:
        logging.getLogger("antiphon").setLevel(logging.NOTSET)
    assert seen == list(range(n))
