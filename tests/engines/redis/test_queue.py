"""Worker channels on real servers: competing readers, leases, expiry, the dead queue, wake-ups, groups."""

from __future__ import annotations

import asyncio
import contextlib
import os
import random
import signal
import sys
import time
from collections import Counter
from collections.abc import AsyncIterator, Awaitable, Callable, Collection, Sequence
from pathlib import Path
from typing import Any, TypeAlias

import pytest

from antiphon.engines.base import Leased, QueueEngine
from antiphon.engines.redis import desk as desks
from antiphon.engines.redis.bus import RedisBus
from antiphon.engines.redis.engine import RedisEngine
from antiphon.engines.redis.hosts import parse_hosts
from antiphon.engines.redis.scripts import PARTS
from antiphon.testing.faults import ValkeyCluster, ValkeyServer
from antiphon.types import Arrival, Receipt

Make: TypeAlias = Callable[..., Awaitable[RedisEngine]]
LONG_S = 60.0


class Sink:
    """A node that wants nothing: these tests read worker channels alone."""

    def deliver(self, arrivals: Sequence[Arrival]) -> None:
        raise AssertionError

    def arrive(self, topic: str, payload: bytes) -> None:
        pass

    def lost(self, topics: Collection[str], reason: str, good_until: float) -> None:
        pass

    def link(self, name: str, up: bool) -> None:
        pass


@pytest.fixture(params=["valkey", "redis7", "cluster", "shards"])
def place(request: pytest.FixtureRequest) -> dict[str, Any]:
    """Where the queues are: options of a RedisBus."""
    if request.param == "cluster":
        cluster: ValkeyCluster = request.getfixturevalue("valkey_cluster")
        return {"hosts": cluster.hosts, "cluster": True}
    names = ["valkey", "redis7"] if request.param == "shards" else [request.param]
    return {"hosts": [request.getfixturevalue(name).url for name in names]}


@pytest.fixture
async def make(fresh_prefix: str) -> AsyncIterator[Make]:
    """Return a maker of nodes, each with links of its own."""
    engines: list[RedisEngine] = []

    async def make(place: dict[str, Any] | ValkeyServer, **options: Any) -> RedisEngine:
        where = place if isinstance(place, dict) else {"hosts": [place.url]}
        options = {"prefix": fresh_prefix, "timeout_s": 3.0, **where, **options}
        engine = RedisBus(parse_hosts(options.pop("hosts")), **options).node_engine()
        engine.attach(Sink(), asyncio.get_running_loop(), f"node{len(engines)}")
        engines.append(engine)
        async with asyncio.timeout(5):
            while not engine.links or not all(link.up for link in engine.links):  # noqa: ASYNC110  # no event for all
                await asyncio.sleep(0.005)
        return engine

    yield make
    for engine in engines:
        await engine.close()


async def put(engine: RedisEngine, queue: str, *payloads: bytes, capacity: int = 10_000) -> None:
    for payload in payloads:
        assert await engine.put(queue, payload, capacity, LONG_S)


async def soon(call: Awaitable[Any], limit_s: float = 3.0) -> Any:
    return await asyncio.wait_for(call, limit_s)


async def nothing_comes(engine: RedisEngine, queue: str, wait_s: float = 0.15) -> None:
    with pytest.raises(TimeoutError):
        await asyncio.wait_for(engine.lease(queue), wait_s)


def drops_of(engine: RedisEngine) -> Counter[tuple[str, str]]:
    drops: Counter[tuple[str, str]] = Counter()

    def note(reason: str, queue: str, count: int) -> None:
        drops[reason, queue] += count

    engine.queues.on_drop = note
    return drops


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
    async with asyncio.timeout(5):
        while len(found) < 100:  # noqa: ASYNC110  # no event for it
            await asyncio.sleep(0.01)
    await asyncio.sleep(0.05)
    for task in tasks:
        task.cancel()
    await asyncio.gather(*tasks, return_exceptions=True)
    assert Counter(found) == Counter(b"%d" % n for n in range(100))
    await nothing_comes(sender, "q")


async def test_a_waiting_reader_is_woken_and_not_found_by_its_next_look(
    place: dict[str, Any], make: Make, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(desks, "POLL_S", (30.0, 30.0))
    sender, one, two = await make(place), await make(place), await make(place)
    readers = [asyncio.create_task(engine.lease("q")) for engine in (one, one, two)]
    await asyncio.sleep(0.2)
    await put(sender, "q", b"1", b"2", b"3")
    found = await soon(asyncio.gather(*readers), 2)
    assert sorted(leased.payload for leased in found) == [b"1", b"2", b"3"]


async def test_one_message_wakes_one_node(place: dict[str, Any], make: Make, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(desks, "POLL_S", (30.0, 30.0))
    sender, nodes = await make(place), [await make(place) for _ in range(4)]
    readers = [asyncio.create_task(engine.lease("q")) for engine in nodes]
    await asyncio.sleep(0.2)
    calls = Counter[str]()
    for engine in nodes:
        script = engine.script

        async def counting(*args: Any, engine: RedisEngine = engine, script: Any = script) -> Any:
            calls[engine.node] += 1
            return await script(*args)

        engine.script = counting  # type: ignore[assignment, method-assign]
    await put(sender, "q", b"1")
    await asyncio.wait(readers, timeout=2, return_when=asyncio.FIRST_COMPLETED)
    await asyncio.sleep(0.1)
    assert sum(reader.done() for reader in readers) == 1
    assert sum(calls.values()) == 1
    for reader in readers:
        reader.cancel()
    await asyncio.gather(*readers, return_exceptions=True)


async def test_a_wake_up_for_a_reader_that_has_left_goes_to_another_node(
    place: dict[str, Any], make: Make, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(desks, "POLL_S", (30.0, 30.0))
    sender, left, stays = await make(place), await make(place), await make(place)
    gone = asyncio.create_task(left.lease("q"))
    await asyncio.sleep(0.15)  # the first in line to be woken
    reader = asyncio.create_task(stays.lease("q"))
    await asyncio.sleep(0.15)
    gone.cancel()
    with contextlib.suppress(asyncio.CancelledError):
        await gone
    await put(sender, "q", b"1")
    assert (await soon(reader, 2)).payload == b"1"


async def test_a_lost_wake_up_costs_a_look_and_no_message(place: dict[str, Any], make: Make) -> None:
    sender, reader = await make(place), await make(place)
    waiting = asyncio.create_task(reader.lease("q"))
    await asyncio.sleep(0.2)
    wake = reader.keys.wake("q", reader.node)
    reader._listeners[wake] = lambda _: None
    before = time.monotonic()
    await put(sender, "q", b"1")
    assert (await soon(waiting, 4)).payload == b"1"
    assert time.monotonic() - before < desks.POLL_S[1] + 0.5


async def test_what_expires_is_never_delivered_and_counted_by_whoever_finds_it(
    place: dict[str, Any], make: Make
) -> None:
    sender, reader = await make(place), await make(place)
    drops, others = drops_of(reader), drops_of(sender)
    await sender.put("q", b"old", 9, 0.05)
    await sender.put("q", b"older", 9, 0.05)
    await sender.put("q", b"young", 9, LONG_S)
    await asyncio.sleep(0.1)
    leased = await soon(reader.lease("q"))
    assert leased.payload == b"young"
    assert drops == {("expired", "q"): 2}
    await sender.put("full", b"old", 1, 0.05)
    await asyncio.sleep(0.1)
    assert await sender.put("full", b"new", 1, LONG_S)
    assert others == {("expired", "full"): 1}


async def test_a_wrong_clock_of_a_process_changes_nothing(
    place: dict[str, Any], make: Make, monkeypatch: pytest.MonkeyPatch
) -> None:
    sender, reader = await make(place), await make(place)
    await sender.put("q", b"1", 9, 5)
    now, monotonic = time.time, time.monotonic
    monkeypatch.setattr(time, "time", lambda: now() + 86400)
    monkeypatch.setattr(desks, "monotonic", lambda: monotonic() + 86400)
    await sender.put("q", b"2", 9, 5)
    found = [await soon(reader.lease("q")) for _ in range(2)]
    assert [leased.payload for leased in found] == [b"1", b"2"]


async def test_time_with_a_reader_is_no_waiting(place: dict[str, Any], make: Make) -> None:
    engine = await make(place)
    await engine.put("q", b"1", 9, 0.1)
    leased = await soon(engine.lease("q"))
    await asyncio.sleep(0.15)
    await engine.release("q", leased.token)
    assert (await soon(engine.lease("q"))).delivery_count == 2


async def test_after_its_deliveries_a_message_is_in_the_dead_queue_and_counted(
    place: dict[str, Any], make: Make
) -> None:
    engine = await make(place, max_deliveries=3)
    drops = drops_of(engine)
    await engine.put("q", b"bad", 1, LONG_S, topic="g:x")
    for count in (1, 2, 3):
        leased = await soon(engine.lease("q"))
        assert leased.delivery_count == count
        await engine.release("q", leased.token)
    assert drops == {("dead", "q"): 1}
    await nothing_comes(engine, "q")
    assert await engine.put("q", b"good", 1, LONG_S)
    for count in range(1, 8):  # the dead stay where they are
        dead = await soon(engine.lease("q.dead"))
        assert (dead.payload, dead.topic, dead.delivery_count) == (b"bad", "g:x", count)
        await engine.release("q.dead", dead.token)


async def test_a_full_dead_queue_is_counted(place: dict[str, Any], make: Make) -> None:
    engine = await make(place, max_deliveries=1)
    engine.queues.dead_capacity = 2
    drops = drops_of(engine)
    await put(engine, "q", b"1", b"2", b"3")
    for _ in range(3):
        await engine.release("q", (await soon(engine.lease("q"))).token)
    assert drops == {("dead", "q"): 3, ("over_capacity", "q.dead"): 1}
    assert [(await soon(engine.lease("q.dead"))).payload for _ in range(2)] == [b"1", b"2"]


async def test_leases_are_renewed_while_the_process_lives_and_given_out_again_when_it_does_not(
    place: dict[str, Any], make: Make
) -> None:
    alive, dies, other = [await make(place, lease_s=0.6) for _ in range(3)]
    await put(alive, "q", b"held")
    held = await soon(alive.lease("q"))
    await put(alive, "q", b"orphan")
    orphan = await soon(dies.lease("q"))
    assert orphan.payload == b"orphan"
    await dies._router.close()  # type: ignore[union-attr]  # as a process that is gone
    dies.queues._tick = lambda: None  # type: ignore[method-assign]
    again = await soon(other.lease("q"), 6)
    assert (again.payload, again.delivery_count) == (b"orphan", 2)
    await nothing_comes(other, "q", 1.0)  # the other one is renewed
    await alive.ack("q", held.token)
    await alive.ack("q", orphan.token)  # the late word of one that was given out again: it was handled


async def test_a_message_whose_readers_all_die_ends_in_the_dead_queue(place: dict[str, Any], make: Make) -> None:
    engine = await make(place, lease_s=0.2, max_deliveries=2)
    drops = drops_of(engine)
    engine.queues._tick = lambda: None  # type: ignore[method-assign]  # nothing is renewed
    await put(engine, "q", b"poison")
    for count in (1, 2):
        assert (await soon(engine.lease("q"), 5)).delivery_count == count
    waiting = asyncio.create_task(engine.lease("q"))
    assert (await soon(engine.lease("q.dead"), 6)).payload == b"poison"
    assert drops == {("dead", "q"): 1}
    waiting.cancel()


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

    async with asyncio.timeout(20):
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


async def test_an_empty_queue_leaves_no_key_and_an_abandoned_one_vanishes_in_time(
    valkey: ValkeyServer, make: Make
) -> None:
    engine = await make(valkey)
    await put(engine, "q", b"1", b"2")
    keys = [engine.keys.queue("q") + part for part in PARTS[:4]]
    one = await soon(engine.lease("q"))
    for key in keys:
        assert 0 < valkey.command("PTTL", key) <= 4 * 3_600_000
    two = await soon(engine.lease("q"))
    await engine.ack("q", one.token)
    await engine.ack("q", two.token)
    assert valkey.command("EXISTS", *keys) == 0


async def test_a_full_server_can_still_be_drained(own_valkey: ValkeyServer, make: Make) -> None:
    engine = await make(own_valkey)
    await put(engine, "q", b"1", b"2")
    waiting = asyncio.create_task(engine.lease("empty"))
    own_valkey.command("CONFIG", "SET", "maxmemory", "1")
    for n in (b"1", b"2"):
        leased = await soon(engine.lease("q"))
        assert leased.payload == n
        await engine.queues._desks["q"].tick()
        await engine.release("q", leased.token)
        leased = await soon(engine.lease("q"))
        await engine.ack("q", leased.token)
    own_valkey.command("CONFIG", "SET", "maxmemory", "0")
    await put(engine, "empty", b"3")
    assert (await soon(waiting, 5)).payload == b"3"


async def test_readers_outlive_the_server(own_valkey: ValkeyServer, make: Make) -> None:
    engine = await make(own_valkey)
    waiting = asyncio.create_task(engine.lease("q"))
    await asyncio.sleep(0.2)
    up = asyncio.Event()
    engine.on_up.append(up.set)
    own_valkey.restart()
    await soon(up.wait(), 5)
    await put(engine, "q", b"1")
    assert (await soon(waiting, 5)).payload == b"1"
    own_valkey.command("FLUSHALL")
    waiting = asyncio.create_task(engine.lease("q"))
    await put(engine, "q", b"2")
    assert (await soon(waiting, 5)).payload == b"2"


async def test_closing_gives_back_what_nobody_has_seen(place: dict[str, Any], make: Make) -> None:
    sender, closing = await make(place), await make(place)
    readers = [asyncio.create_task(closing.lease("q")) for _ in range(4)]
    await asyncio.sleep(0.1)
    putting = asyncio.create_task(put(sender, "q", *(b"%d" % n for n in range(30))))
    await asyncio.sleep(0.002)
    await closing.close()
    await putting
    ended = await asyncio.gather(*readers, return_exceptions=True)
    seen = [leased.payload for leased in ended if isinstance(leased, Leased)]
    rest = [(await soon(sender.lease("q"))).payload for _ in range(30 - len(seen))]
    assert Counter(seen + rest) == Counter(b"%d" % n for n in range(30))
    await nothing_comes(sender, "q")


# Groups


async def test_what_is_published_to_a_group_reaches_its_worker_channels_from_any_node(
    place: dict[str, Any], make: Make
) -> None:
    one, two = await make(place), await make(place)
    assert (await two.publish("g:a", b"0")).nodes == 0
    await one.bind("g:a", "q", 2, LONG_S, LONG_S)
    await one.bind("g:b", "q", 2, LONG_S, LONG_S)
    assert await one.bound("g:a") == ["q"]
    await asyncio.sleep(0.05)  # the server's word to the other node
    assert await two.bound("g:a") == ["q"]
    drops = drops_of(two)
    for n in (b"1", b"2", b"3"):
        await two.publish("g:a", n)
    assert drops == {("over_capacity", "q"): 1}
    found = [await soon(one.lease("q")) for _ in range(2)]
    assert [(leased.payload, leased.topic) for leased in found] == [(b"1", "g:a"), (b"2", "g:a")]
    await two.unbind("g:a", "q")
    await two.unbind("g:a", "q")
    await asyncio.sleep(0.05)
    assert await one.bound("g:a") == []
    assert await one.bound("g:b") == ["q"]
    await one.unbind(None, "q")
    await asyncio.sleep(0.05)
    assert await two.bound("g:b") == []


async def test_a_membership_ends_by_itself_unless_it_is_renewed(place: dict[str, Any], make: Make) -> None:
    engine = await make(place)
    await engine.bind("g:a", "brief", 9, LONG_S, 0.2)
    await engine.bind("g:a", "kept", 9, LONG_S, 0.2)
    for _ in range(3):
        await asyncio.sleep(0.1)
        await engine.bind("g:a", "kept", 9, LONG_S, 0.2)
    assert await engine.bound("g:a") == ["kept"]
    await engine.publish("g:a", b"1")
    assert (await soon(engine.lease("kept"))).payload == b"1"
    await nothing_comes(engine, "brief")


async def test_renewing_a_membership_early_writes_nothing(valkey: ValkeyServer, make: Make) -> None:
    engine = await make(valkey)
    await engine.bind("g:a", "q", 9, LONG_S, LONG_S)
    before = valkey.command("ZRANGE", engine.keys.bound, 0, -1, "WITHSCORES")
    await asyncio.sleep(0.01)
    await engine.bind("g:a", "q", 9, LONG_S, LONG_S)
    assert valkey.command("ZRANGE", engine.keys.bound, 0, -1, "WITHSCORES") == before
    await engine.bind("g:a", "q", 9, LONG_S, 2 * LONG_S)
    assert valkey.command("ZRANGE", engine.keys.bound, 0, -1, "WITHSCORES") != before


async def test_groups_without_worker_channels_cost_no_script(place: dict[str, Any], make: Make) -> None:
    engine = await make(place)
    await engine.bind("g:a", "q", 9, LONG_S, LONG_S)
    await engine.publish("g:a", b"1")
    calls: list[Any] = []
    script = engine.script

    async def counting(*args: Any) -> Any:
        calls.append(args)
        return await script(*args)

    engine.script = counting  # type: ignore[assignment, method-assign]
    for _ in range(20):
        receipt = await engine.publish("g:b", b"1")
        assert receipt == Receipt(0)
    assert calls == []


# Processes

READER = """
import asyncio, sys
from antiphon.engines.redis.bus import RedisBus
from antiphon.engines.redis.hosts import parse_hosts

class Sink:
    def arrive(self, topic, payload): pass
    def lost(self, topics, reason, good_until): pass
    def link(self, name, up): pass

async def main(url, prefix, name, mode):
    engine = RedisBus(parse_hosts([url]), prefix=prefix, lease_s=1.0).node_engine()
    engine.attach(Sink(), asyncio.get_running_loop(), name)
    print("up", flush=True)
    while True:
        leased = await engine.lease("q")
        print(leased.payload.decode(), leased.delivery_count, flush=True)
        if mode == "hold":
            await asyncio.sleep(60)
        await asyncio.sleep(0.001)
        await engine.ack("q", leased.token)

asyncio.run(main(*sys.argv[1:]))
"""


@contextlib.asynccontextmanager
async def reader_process(path: Path, url: str, prefix: str, name: str, mode: str) -> AsyncIterator[Any]:
    script = path / "reader.py"
    script.write_text(READER)
    process = await asyncio.create_subprocess_exec(
        sys.executable, str(script), url, prefix, name, mode, stdout=asyncio.subprocess.PIPE
    )
    try:
        assert process.stdout is not None
        assert await soon(process.stdout.readline(), 15) == b"up\n"
        yield process
    finally:
        if process.returncode is None:
            process.kill()
        await process.wait()


async def test_two_processes_get_each_message_once(
    any_server: ValkeyServer, make: Make, fresh_prefix: str, tmp_path: Path
) -> None:
    sender = await make(any_server)
    url = any_server.url
    async with (
        reader_process(tmp_path, url, fresh_prefix, "p1", "work") as one,
        reader_process(tmp_path, url, fresh_prefix, "p2", "work") as two,
    ):
        await put(sender, "q", *(b"%d" % n for n in range(100)))
        found: list[tuple[str, str]] = []

        async def collect(process: Any, name: str) -> None:
            while True:
                found.append((name, (await process.stdout.readline()).decode().strip()))

        tasks = [asyncio.create_task(collect(one, "p1")), asyncio.create_task(collect(two, "p2"))]
        async with asyncio.timeout(10):
            while len(found) < 100:  # noqa: ASYNC110  # no event for it
                await asyncio.sleep(0.01)
        await asyncio.sleep(0.1)
        for task in tasks:
            task.cancel()
    assert sorted(line for _, line in found) == sorted(f"{n} 1" for n in range(100))
    assert {name for name, _ in found} == {"p1", "p2"}


async def test_what_a_killed_process_had_leased_is_delivered_again(
    any_server: ValkeyServer, make: Make, fresh_prefix: str, tmp_path: Path
) -> None:
    engine = await make(any_server, lease_s=1.0)
    async with reader_process(tmp_path, any_server.url, fresh_prefix, "p1", "hold") as process:
        await put(engine, "q", b"1", b"2")
        assert await soon(process.stdout.readline()) == b"1 1\n"
        os.kill(process.pid, signal.SIGKILL)
        await process.wait()
    found = [await soon(engine.lease("q"), 6) for _ in range(2)]
    assert [(leased.payload, leased.delivery_count) for leased in found] == [(b"2", 1), (b"1", 2)]
