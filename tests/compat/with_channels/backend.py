"""Antiphon's layer as ``BACKEND`` of the real Channels. Run by test_with_channels.py, where the real one is importable."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from typing import Any, ClassVar

import channels
import pytest
from asgiref.sync import async_to_sync
from asgiref.testing import ApplicationCommunicator
from channels.consumer import SyncConsumer
from channels.exceptions import ChannelFull
from channels.generic.websocket import AsyncWebsocketConsumer, WebsocketConsumer
from channels.layers import channel_layers, get_channel_layer
from channels.worker import Worker

import antiphon.exceptions
from antiphon.layers import InMemoryChannelLayer

CONNECT = {"type": "websocket.connect"}
DISCONNECT = {"type": "websocket.disconnect", "code": 1000}


class Chat(AsyncWebsocketConsumer):
    groups = ["chat"]  # the real Channels declares it as an attribute of the instance

    async def chat_message(self, event: dict[str, Any]) -> None:
        await self.send(text_data=event["text"])


class SyncChat(WebsocketConsumer):
    groups = ["chat"]  # the real Channels declares it as an attribute of the instance

    def chat_message(self, event: dict[str, Any]) -> None:
        self.send(text_data=event["text"])


class Job(SyncConsumer):
    done: ClassVar[list[int]] = []
    complete: ClassVar[asyncio.Event]
    loop: ClassVar[asyncio.AbstractEventLoop]

    def job_do(self, event: dict[str, Any]) -> None:
        self.done.append(event["n"])
        if len(self.done) == 3:
            self.loop.call_soon_threadsafe(self.complete.set)


@pytest.fixture
async def layer() -> AsyncIterator[InMemoryChannelLayer]:
    channel_layers.backends.clear()
    layer = get_channel_layer()
    assert isinstance(layer, InMemoryChannelLayer)
    yield layer
    await layer.close()


async def connected(consumer: Any) -> Any:
    make: Any = ApplicationCommunicator
    communicator = make(consumer.as_asgi(), {"type": "websocket", "path": "/", "headers": []})
    await communicator.send_input(CONNECT)
    assert (await communicator.receive_output())["type"] == "websocket.accept"
    return communicator


def test_it_is_the_real_channels_that_runs_here() -> None:
    assert channels.__name__ == "channels"
    assert ChannelFull.__module__ == "channels.exceptions"


@pytest.mark.parametrize("consumer", [Chat, SyncChat])
async def test_its_consumers_hear_their_groups_and_leave_them(layer: InMemoryChannelLayer, consumer: Any) -> None:
    one, two = await connected(consumer), await connected(consumer)
    assert await layer.group_count("chat") == 2
    await layer.group_send("chat", {"type": "chat.message", "text": "hello"})
    for communicator in (one, two):
        assert (await communicator.receive_output())["text"] == "hello"
        await communicator.send_input(DISCONNECT)
        await communicator.wait()
    assert layer.groups == {}


async def test_a_send_from_a_thread_reaches_its_consumers(layer: InMemoryChannelLayer) -> None:
    one = await connected(Chat)
    await asyncio.to_thread(async_to_sync(layer.group_send), "chat", {"type": "chat.message", "text": "from a thread"})
    assert (await one.receive_output())["text"] == "from a thread"
    await one.send_input(DISCONNECT)
    await one.wait()


async def test_a_full_channel_raises_what_its_users_catch(layer: InMemoryChannelLayer) -> None:
    for channel in ("jobs", await layer.new_channel()):
        for n in range(layer.capacity):
            await layer.send(channel, {"type": "job.do", "n": n})
        with pytest.raises(ChannelFull) as caught:
            await layer.send(channel, {"type": "job.do", "n": 99})
        assert isinstance(caught.value, antiphon.exceptions.ChannelFull)


async def test_its_worker_takes_jobs(layer: InMemoryChannelLayer) -> None:
    Job.done, Job.complete, Job.loop = [], asyncio.Event(), asyncio.get_running_loop()
    backend: Any = layer  # no base class is asked for
    worker = asyncio.create_task(Worker(Job.as_asgi(), ["jobs"], backend).handle())
    for n in range(3):
        await layer.send("jobs", {"type": "job.do", "n": n})
    await asyncio.wait_for(Job.complete.wait(), 30)
    assert Job.done == [0, 1, 2]
    worker.cancel()
    await asyncio.gather(worker, return_exceptions=True)


async def test_a_channel_that_nobody_reads_leaves_its_groups_and_is_counted(layer: InMemoryChannelLayer) -> None:
    dead = await layer.new_channel()
    await layer.group_add("chat", dead)
    alive = await connected(Chat)
    await layer.group_send("chat", {"type": "chat.message", "text": "one"})
    await alive.receive_output()
    await asyncio.sleep(3 * layer.expiry)
    assert dead not in await layer.group_channels("chat")
    # The consumer was idle as long: its receive() was pending, so it is still there.
    assert await layer.group_count("chat") == 1
    await layer.group_send("chat", {"type": "chat.message", "text": "two"})
    assert (await alive.receive_output())["text"] == "two"
    assert layer.stats()["idle_channels"] == 1
    await alive.send_input(DISCONNECT)
    await alive.wait()
