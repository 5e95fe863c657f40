"""Competing readers: each message in order, once, to one of them, and capacity until it is acknowledged."""

from __future__ import annotations

import asyncio
import random
from collections import Counter
from typing import Any

import pytest

from antiphon.engines.base import Leased, QueueEngine
from antiphon.engines.redis.engine import RedisEngine
from tests.engines.redis.queue.readers import LONG_S, Make, nothing_comes, put, soon
from tests.waiting import until


async def test_messages_come_in_order_with_their_topic_and_a_first_delivery(place: dict[str, Any], make: Make) -> None:
    engine = await make(place)
    assert isinstance(engine, QueueEngine)
    for n in range(50):
        assert await engine.put("q", b"%d\0\r\n" % n, 100, LONG_S, topic="g:größe" if n % 2 else None)
    for n in range(50):
        leased = await soon(engine.lease("q"))
        assert (leased.payload, leased.delivery_count) == (b"%d\0\r\n" % n, 1)
        assert leased.topic == ("g:größe" if n % 2 else "q:q")
        await engine.ack("q", leased.token)


async def test_capacity_counts_what_is_not_acknowledged_yet(place: dict[str, Any], make: Make) -> None:
    engine = await make(place)
    await put(engine, "q", b"1", b"2", capacity=2)
    leased = await soon(engine.lease("q"))
    assert not await engine.put("q", b"3", 2, LONG_S)
    await engine.ack("q", leased.token)
    assert await engine.put("q", b"3", 2, LONG_S)
    assert not await engine.put("q", b"4", 2, LONG_S)


async def test_a_released_message_returns_to_its_place_and_counts_its_deliveries(
    place: dict[str, Any], make: Make
) -> None:
    engine = await make(place)
    await put(engine, "q", b"1", b"2", b"3")
    one, two = await soon(engine.lease("q")), await soon(engine.lease("q"))
    await engine.release("q", two.token)
    await engine.release("q", one.token)
    await engine.release("q", one.token)
    found = [await soon(engine.lease("q")) for _ in range(3)]
    assert [(leased.payload, leased.delivery_count) for leased in found] == [(b"1", 2), (b"2", 2), (b"3", 1)]


async def test_two_nodes_share_a_queue_and_each_message_goes_to_one(place: dict[str, Any], make: Make) -> None:
    sender, readers = await make(place), [await make(place), await make(place)]
    found: list[bytes] = []

    async def read(engine: RedisEngine) -> None:
        while True:
            leased = await engine.lease("q")
            found.append(leased.payload)
            await asyncio.sleep(0.002)
            await engine.ack("q", leased.token)

    tasks = [asyncio.create_task(read(engine)) for engine in readers for _ in range(2)]
    await asyncio.sleep(0.1)
    await put(sender, "q", *(b"%d" % n for n in range(100)))
    await until(lambda: len(found) >= 100)
    await asyncio.sleep(0.05)
    for task in tasks:
        task.cancel()
    await asyncio.gather(*tasks, return_exceptions=True)
    assert Counter(found) == Counter(b"%d" % n for n in range(100))
    await nothing_comes(sender, "q")


async def test_an_ack_can_be_undone_for_a_reader_that_was_cancelled(place: dict[str, Any], make: Make) -> None:
    engine = await make(place)
    await put(engine, "q", b"1", b"2")
    leased = await soon(engine.lease("q"))
    await engine.ack("q", leased.token)
    await engine.put_back("q", leased)
    again = await soon(engine.lease("q"))
    assert again == leased
    await engine.put_back("q", again)  # also when the ack never reached the server
    assert await soon(engine.lease("q")) == leased


@pytest.mark.parametrize("seed", range(3))
async def test_a_storm_of_cancelled_readers_loses_and_doubles_nothing(
    place: dict[str, Any], make: Make, seed: int
) -> None:
    chance = random.Random(seed)
    sender, nodes = await make(place), [await make(place), await make(place)]
    total, found = 150, list[tuple[bytes, int]]()

    async def read() -> None:
        while len(found) < total:
            engine = chance.choice(nodes)
            try:
                async with asyncio.timeout(chance.choice((0.0, 0.0003, 0.001, 0.003, 0.02))):
                    leased: Leased = await engine.lease("q")
            except TimeoutError:
                continue
            if chance.random() < 0.9:
                found.append((leased.payload, leased.delivery_count))
                await engine.ack("q", leased.token)
            else:
                await engine.put_back("q", leased)

    async def write() -> None:
        for n in range(total):
            await put(sender, "q", b"%d" % n)
            if chance.random() < 0.3:
                await asyncio.sleep(chance.random() * 0.01)

    async with asyncio.timeout(50):
        await asyncio.gather(write(), *(read() for _ in range(6)))
    assert Counter(payload for payload, _ in found) == Counter(b"%d" % n for n in range(total))
    assert {count for _, count in found} == {1}
    await nothing_comes(nodes[0], "q")
    assert all(not desk.held for engine in nodes for desk in engine.queues._desks.values())


async def test_readers_of_one_node_take_turns(place: dict[str, Any], make: Make) -> None:
    engine = await make(place)
    order: list[int] = []

    async def read(name: int) -> None:
        leased = await engine.lease("q")
        order.append(name)
        await engine.ack("q", leased.token)

    readers = [asyncio.create_task(read(name)) for name in range(5)]
    await asyncio.sleep(0.1)
    await put(engine, "q", *(b"%d" % n for n in range(5)))
    await soon(asyncio.gather(*readers))
    assert order == list(range(5))
