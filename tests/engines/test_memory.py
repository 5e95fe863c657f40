"""The memory engine below the layer: topics, worker channels with leases, bindings, and threads."""

from __future__ import annotations

import asyncio
import os
from collections.abc import Collection, Sequence
from pathlib import Path
from typing import IO

import pytest

from antiphon.engines.base import Publisher, QueueEngine
from antiphon.engines.memory import MemoryBus
from antiphon.engines.memory.siblings import Siblings
from antiphon.types import Arrival
from tests.waiting import until


class Sink:
    """Keeps what arrives."""

    def __init__(self) -> None:
        self.arrivals: list[tuple[str, bytes]] = []

    def deliver(self, arrivals: Sequence[Arrival]) -> None:
        for arrival in arrivals:
            self.arrive(arrival.topic, arrival.payload)

    def arrive(self, topic: str, payload: bytes) -> None:
        self.arrivals.append((topic, payload))

    def lost(self, topics: Collection[str], reason: str, good_until: float) -> None:
        raise AssertionError

    def link(self, name: str, up: bool) -> None:
        raise AssertionError


async def test_a_reader_hears_what_is_put_after_a_flush() -> None:
    bus = MemoryBus()
    bus.put_now("q", b"old", 10, 60)
    held = await bus.lease("q")
    reader = asyncio.create_task(bus.lease("q"))
    await asyncio.sleep(0)
    bus.flush()
    bus.put_now("q", b"new", 10, 60)
    async with asyncio.timeout(30):
        leased = await reader
    assert leased.payload == b"new"
    await bus.ack("q", held.token)  # of before the flush: it confirms nothing of now
    assert not bus.put_now("q", b"more", 1, 60)
    await bus.ack("q", leased.token)
    assert bus.queues == {}


async def test_a_node_gets_what_is_published_between_subscribe_and_unsubscribe() -> None:
    bus, sink = MemoryBus(), Sink()
    engine = bus.node_engine()
    await engine.open(sink)
    assert engine.publish("g:a", b"0").nodes == 0
    engine.subscribe(["g:a", "g:b"])
    engine.subscribe(["g:a"])
    assert engine.publish("g:a", b"1").nodes == 1
    assert bus.publish_blocking("g:b", b"2").nodes == 1
    engine.unsubscribe(["g:a", "g:never"])
    assert engine.publish("g:a", b"3").nodes == 0
    await engine.close()
    assert engine.publish("g:b", b"4").nodes == 0
    assert sink.arrivals == [("g:a", b"1"), ("g:b", b"2")]


async def test_what_other_threads_publish_arrives_in_their_order() -> None:
    bus, sink = MemoryBus(), Sink()
    engine = bus.node_engine()
    await engine.open(sink)
    engine.subscribe(["t"])

    def publish(name: int) -> None:
        for n in range(300):
            bus.publish("t", b"%d:%d" % (name, n))

    await asyncio.gather(*(asyncio.to_thread(publish, name) for name in range(3)))
    await until(lambda: len(sink.arrivals) >= 900)
    assert len(sink.arrivals) == 900
    for name in range(3):
        mine = [payload for _, payload in sink.arrivals if payload.startswith(b"%d:" % name)]
        assert mine == [b"%d:%d" % (name, n) for n in range(300)]
    await engine.close()


async def test_a_thread_that_publishes_without_a_pause_does_not_hold_the_loop() -> None:
    bus, sink = MemoryBus(), Sink()
    engine = bus.node_engine()
    await engine.open(sink)
    engine.subscribe(["t"])
    stop = False

    def publish() -> None:
        while not stop:
            bus.publish("t", b"x")

    thread = asyncio.get_running_loop().run_in_executor(None, publish)
    async with asyncio.timeout(30):
        for _ in range(5):
            await asyncio.sleep(0.001)
    stop = True
    await thread
    await engine.close()


async def test_a_leased_message_counts_until_it_is_acknowledged_and_returns_to_the_front_when_released() -> None:
    bus = MemoryBus()
    assert await bus.put("q", b"1", 2, 60)
    assert await bus.put("q", b"2", 2, 60)
    first = await bus.lease("q")
    assert (first.payload, first.delivery_count) == (b"1", 1)
    assert not await bus.put("q", b"3", 2, 60)
    await bus.release("q", first.token)
    again = await bus.lease("q")
    assert (again.payload, again.delivery_count) == (b"1", 2)
    await bus.ack("q", again.token)
    await bus.ack("q", again.token)
    await bus.release("q", again.token)
    assert await bus.put("q", b"3", 2, 60)
    assert [(await bus.lease("q")).payload for _ in range(2)] == [b"2", b"3"]


async def test_a_release_wakes_a_reader_that_waits() -> None:
    bus = MemoryBus()
    await bus.put("q", b"1", 9, 60)
    leased = await bus.lease("q")
    reader = asyncio.create_task(bus.lease("q"))
    await asyncio.sleep(0)
    await bus.release("q", leased.token)
    assert (await asyncio.wait_for(reader, 30)).payload == b"1"


async def test_every_waiting_reader_gets_a_message_though_another_emptied_the_queue_before_it_ran() -> None:
    bus = MemoryBus()

    async def read() -> bytes:
        leased = await bus.lease("q")
        await bus.ack("q", leased.token)
        return leased.payload

    readers = [asyncio.create_task(read()) for _ in range(4)]
    await asyncio.sleep(0)
    for n in range(4):
        await bus.put("q", b"%d" % n, 9, 60)
        await asyncio.sleep(0.001)  # one reader empties the queue, while the others were woken for nothing
    assert sorted(await asyncio.wait_for(asyncio.gather(*readers), 30)) == [b"0", b"1", b"2", b"3"]
    assert bus.queues == {}


async def test_a_cancelled_reader_leaves_nothing_behind() -> None:
    bus = MemoryBus()
    for _ in range(3):
        with pytest.raises(TimeoutError):
            await asyncio.wait_for(bus.lease("q"), 0.005)
    assert bus.queues == {}


async def test_bindings_carry_a_topic_to_queues_until_they_end() -> None:
    bus = MemoryBus()
    drops: list[tuple[str, str, int, str | None]] = []
    bus.on_drop = lambda *drop: drops.append(drop)
    await bus.bind("g:a", "q", 2, 60, 60)
    await bus.bind("g:a", "brief", 2, 60, 0.03)
    await bus.bind("g:b", "q", 2, 60, 60)
    bus.publish("g:a", b"1")
    assert sorted(await bus.bound("g:a")) == ["brief", "q"]
    await asyncio.sleep(0.05)
    assert await bus.bound("g:a") == ["q"]
    bus.publish("g:a", b"2")
    bus.publish("g:a", b"3")
    assert drops == [("over_capacity", "q", 1, "g:a")]
    assert len(bus.queues["brief"]) == 1
    await bus.unbind("g:a", "q")
    await bus.unbind("g:a", "q")
    assert await bus.bound("g:a") == []
    assert await bus.bound("g:b") == ["q"]
    await bus.unbind(None, "q")
    assert await bus.bound("g:b") == []


def test_the_memory_engine_has_the_capabilities_of_the_contract() -> None:
    bus = MemoryBus()
    assert isinstance(bus, QueueEngine)
    assert isinstance(bus, Publisher)


@pytest.mark.skipif(not hasattr(os, "fork"), reason="no file locks on this system")
def test_a_claim_survives_somebody_who_takes_the_file_for_that_of_a_dead_process(tmp_path: Path) -> None:
    mine, other, path = Siblings("mine"), Siblings("other"), tmp_path / "1"
    opened = mine._open
    meddled = False

    def open_and_meddle(path: Path) -> IO[bytes]:
        nonlocal meddled
        file = opened(path)
        if not meddled:  # between our open and our lock
            meddled = True
            assert not other._held(path)
            assert not path.exists()
        return file

    mine._open = open_and_meddle  # type: ignore[method-assign]
    with mine._claim(path):
        assert other._held(path)
        assert path.exists()
