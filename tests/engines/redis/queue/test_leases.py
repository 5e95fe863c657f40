"""Leases, redelivery and the dead queue."""

from __future__ import annotations

import asyncio
from typing import Any

from tests.engines.redis.queue.readers import LONG_S, Make, drops_of, nothing_comes, put, soon


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
    alive, dies, other = [await make(place, lease_s=2.0) for _ in range(3)]
    await put(alive, "q", b"held")
    held = await soon(alive.lease("q"))
    await put(alive, "q", b"orphan")
    orphan = await soon(dies.lease("q"))
    assert orphan.payload == b"orphan"
    await dies._router.close()  # type: ignore[union-attr]  # as a process that is gone
    dies.queues._tick = lambda: None  # type: ignore[method-assign]
    again = await soon(other.lease("q"))
    assert (again.payload, again.delivery_count) == (b"orphan", 2)
    await nothing_comes(other, "q", 3.0)  # the other one is renewed
    await alive.ack("q", held.token)
    await alive.ack("q", orphan.token)  # the late word of one that was given out again: it was handled


async def test_a_message_whose_readers_all_die_ends_in_the_dead_queue(place: dict[str, Any], make: Make) -> None:
    engine = await make(place, lease_s=0.2, max_deliveries=2)
    drops = drops_of(engine)
    engine.queues._tick = lambda: None  # type: ignore[method-assign]  # nothing is renewed
    await put(engine, "q", b"poison")
    for count in (1, 2):
        assert (await soon(engine.lease("q"))).delivery_count == count
    waiting = asyncio.create_task(engine.lease("q"))
    assert (await soon(engine.lease("q.dead"))).payload == b"poison"
    assert drops == {("dead", "q"): 1}
    waiting.cancel()
