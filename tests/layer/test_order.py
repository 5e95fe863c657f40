"""Order and loss: many senders on many loops and threads, and receivers that are cancelled all the time."""

from __future__ import annotations

import asyncio
import random
import threading
from collections.abc import Callable, Coroutine
from typing import Any

import pytest
from asgiref.sync import async_to_sync
from hypothesis import given, settings
from hypothesis import strategies as st

import antiphon
from antiphon.layers import InMemoryChannelLayer, channel_layers

SENDERS = st.lists(st.sampled_from(["loop", "thread", "temporary"]), min_size=2, max_size=4)


def run_all(*jobs: Callable[[], Any]) -> list[Any]:
    """Run each job in a thread of its own, at the same time; return the results."""
    results: dict[int, Any] = {}
    start = threading.Barrier(len(jobs))

    def run(index: int, job: Callable[[], Any]) -> None:
        start.wait()
        try:
            results[index] = job()
        except BaseException as exc:
            results[index] = exc

    threads = [threading.Thread(target=run, args=item) for item in enumerate(jobs)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(50)
    for result in results.values():
        if isinstance(result, BaseException):
            raise result
    return [results[index] for index in range(len(jobs))]


def in_loop(job: Callable[[], Coroutine[Any, Any, Any]]) -> Callable[[], Any]:
    return lambda: asyncio.run(job())


@settings(max_examples=8, deadline=None)
@given(SENDERS, st.integers(1, 3), st.integers(1, 60))
def test_each_lane_s_messages_arrive_once_and_in_order_on_every_loop(
    senders: list[str], loops: int, count: int
) -> None:
    layer = InMemoryChannelLayer(capacity=10_000)
    channel_layers.set("default", layer)
    total = count * len(senders)
    ready = threading.Barrier(loops + len(senders))

    async def receiver() -> list[list[tuple[int, int]]]:
        channels = [await layer.new_channel() for _ in range(2)]
        for channel in channels:
            await layer.group_add("g", channel)
        await asyncio.to_thread(ready.wait)

        async def read(channel: str) -> list[tuple[int, int]]:
            messages = [await layer.receive(channel) for _ in range(total)]
            return [(message["sender"], message["n"]) for message in messages]

        return await asyncio.wait_for(asyncio.gather(*map(read, channels)), 30)

    def sender(index: int, kind: str) -> Callable[[], Any]:
        def message(n: int) -> dict[str, Any]:
            return {"type": "t", "sender": index, "n": n}

        async def on_loop() -> None:
            await asyncio.to_thread(ready.wait)
            await layer.new_channel()  # a node of its own
            for n in range(count):
                await layer.group_send("g", message(n))
                if n % 7 == 0:
                    await asyncio.sleep(0)

        def in_thread() -> None:
            ready.wait()
            for n in range(count):
                if kind == "thread" or n % 9:
                    antiphon.group_send("g", message(n))
                else:
                    async_to_sync(layer.group_send)("g", message(n))

        return in_loop(on_loop) if kind == "loop" else in_thread

    received = run_all(
        *(in_loop(receiver) for _ in range(loops)), *(sender(index, kind) for index, kind in enumerate(senders))
    )[:loops]
    for of_loop in received:
        for seen in of_loop:
            assert len(seen) == total
            for index in range(len(senders)):
                assert [n for sender, n in seen if sender == index] == list(range(count))
    assert layer.stats()["dropped"] == 0
    asyncio.run(layer.close())


async def test_group_add_then_group_send_reaches_the_new_member_every_time() -> None:
    layer = InMemoryChannelLayer()

    async def one(n: int) -> None:
        channel = await layer.new_channel()
        await layer.group_add("g", channel)
        await layer.group_send("g", {"type": "t", "n": n})
        while (await layer.receive(channel))["n"] != n:
            pass

    await asyncio.wait_for(asyncio.gather(*map(one, range(60))), 30)
    await layer.close()


@pytest.mark.parametrize("channel", ["worker", None])
async def test_cancelling_receive_loses_nothing(channel: str | None) -> None:
    layer = InMemoryChannelLayer(capacity=10_000)
    name = channel or await layer.new_channel()
    dice = random.Random(4)
    found: list[int] = []
    count = 1_000

    async def read() -> None:
        while True:
            found.append((await layer.receive(name))["n"])

    async def send() -> None:
        for n in range(count):
            await layer.send(name, {"type": "t", "n": n})
            if dice.random() < 0.5:
                await asyncio.sleep(0)

    sending = asyncio.create_task(send())
    while not sending.done() or len(found) < count:
        readers = [asyncio.create_task(read()) for _ in range(2)]
        for _ in range(dice.randrange(4)):
            await asyncio.sleep(0)
        for reader in readers:
            reader.cancel()
        await asyncio.wait(readers)
    assert sorted(found) == list(range(count))
    await layer.close()


@pytest.mark.parametrize("channel", ["worker", None])
async def test_receive_with_a_time_out_loses_nothing(channel: str | None) -> None:
    layer = InMemoryChannelLayer(capacity=1_000)
    name = channel or await layer.new_channel()
    found: list[int] = []

    async def send() -> None:
        for n in range(40):
            await layer.send(name, {"type": "t", "n": n})
            await asyncio.sleep(0.001)

    sending = asyncio.create_task(send())
    async with asyncio.timeout(30):
        while len(found) < 40:
            try:
                found.append((await asyncio.wait_for(layer.receive(name), 0.001))["n"])
            except TimeoutError:
                continue
    await sending
    assert found == list(range(40))
    await layer.close()


@pytest.mark.parametrize("shared", ["worker", None])
def test_readers_on_several_loops_share_a_channel_and_lose_nothing(shared: str | None) -> None:
    layer = InMemoryChannelLayer(capacity=10_000)
    count, loops = 300, 3
    home = asyncio.new_event_loop()
    name = shared or home.run_until_complete(layer.new_channel())
    # The loop that owns the channel stands still meanwhile: its readers must not need it.
    for n in range(count):
        home.run_until_complete(layer.send(name, {"type": "t", "n": n}))

    async def read() -> list[int]:
        found = []
        while True:
            try:
                found.append((await asyncio.wait_for(layer.receive(name), 0.1))["n"])
            except TimeoutError:
                return found

    results = run_all(*(in_loop(read) for _ in range(loops)))
    assert sorted(n for found in results for n in found) == list(range(count))
    assert all(found == sorted(found) for found in results)
    home.run_until_complete(layer.close())
    home.close()


def test_a_worker_channel_that_is_emptied_all_the_time_loses_nothing_between_threads() -> None:
    # Emptied, it is forgotten; a message that is put at that moment must not go with it.
    layer = InMemoryChannelLayer(capacity=10_000)
    count, senders = 400, 3
    done = threading.Event()

    def send() -> None:
        for n in range(count):
            async_to_sync(layer.send)("worker", {"type": "t", "n": n}) if n % 50 == 0 else layer._bus.put_now(
                "worker", layer._pack("q:worker", layer.encode({"type": "t", "n": n})), 10_000, 60
            )

    async def read() -> int:
        found = 0
        while not (done.is_set() and not layer._bus.queues.get("worker")):
            try:
                await asyncio.wait_for(layer.receive("worker"), 0.02)
                found += 1
            except TimeoutError:
                continue
        return found

    def send_all() -> int:
        run_all(*([send] * senders))
        done.set()
        return 0

    assert sum(run_all(send_all, in_loop(read), in_loop(read))) == count * senders
