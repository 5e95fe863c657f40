"""The table of worker channels in groups, read while it changes: who asks waits for what is true, and no loop stands."""

from __future__ import annotations

import asyncio
from collections.abc import Sequence

import pytest

from antiphon.engines.redis.bindings import Bindings, Bound
from antiphon.engines.redis.engine import RedisEngine
from antiphon.testing.faults import ValkeyServer
from tests.engines.redis.queue.readers import LONG_S, Make


def begin_asking(table: Bindings, topic: str) -> asyncio.Future[list[Bound]]:
    return asyncio.ensure_future(table.queues(topic))


def names(bound: Sequence[Bound]) -> list[str]:
    return sorted(entry.queue for entry in bound)


@pytest.fixture
async def engine(valkey: ValkeyServer, make: Make) -> RedisEngine:
    engine = await make(valkey)
    await engine.bind("g:a", "q", 9, LONG_S, LONG_S)
    assert await engine.bound("g:a") == ["q"]
    return engine


@pytest.mark.timeout(30, method="signal")  # the failure is a loop that never has its turn
async def test_whoever_asks_in_the_turn_in_which_a_reading_ends_does_not_stop_the_loop(engine: RedisEngine) -> None:
    table = engine.queues.bindings
    read = table._read
    asked: list[asyncio.Future[list[Bound]]] = []

    async def read_while_it_changes() -> Sequence[bytes]:
        reply = await read()
        if not asked:
            table.invalidate()  # so that what was read does not hold
            # Its turn is between the end of this reading and the callbacks of that.
            asked.append(begin_asking(table, "g:a"))
        return reply

    table._read = read_while_it_changes
    table.invalidate()
    first = begin_asking(table, "g:a")
    assert names(await first) == ["q"]
    assert names(await asked[0]) == ["q"]
    assert not table.stale


async def test_what_changes_while_the_table_is_read_is_read_again(engine: RedisEngine, make: Make) -> None:
    table = engine.queues.bindings
    read = table._read
    replies: list[Sequence[bytes]] = []

    async def read_and_be_overtaken() -> Sequence[bytes]:
        reply = await read()
        replies.append(reply)
        if len(replies) == 1:
            await engine.bind("g:a", "late", 9, LONG_S, LONG_S)
        return reply

    table._read = read_and_be_overtaken
    table.invalidate()
    # Whoever asked before the change, and whoever comes while the old table is under way.
    asked = [begin_asking(table, "g:a") for _ in range(3)]
    assert [names(await each) for each in asked] == [["late", "q"]] * 3
    assert len(replies) == 2  # all three wait for the same
    await engine.publish("g:a", b"1")
    for queue in ("q", "late"):
        assert (await asyncio.wait_for(engine.lease(queue), 30)).payload == b"1"


async def test_who_stops_asking_does_not_end_the_reading_of_the_others(engine: RedisEngine) -> None:
    table = engine.queues.bindings
    table.invalidate()
    hasty, patient = begin_asking(table, "g:a"), begin_asking(table, "g:a")
    await asyncio.sleep(0)
    hasty.cancel()
    assert names(await asyncio.wait_for(patient, 30)) == ["q"]
    assert hasty.cancelled()
