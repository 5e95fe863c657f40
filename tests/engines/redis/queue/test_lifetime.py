"""Queues as keys of a server: what is left of them, a server that is full or restarts, a node that closes."""

from __future__ import annotations

import asyncio
from collections import Counter
from typing import Any

from antiphon.engines.base import Leased
from antiphon.engines.redis.scripts import PARTS
from antiphon.testing.faults import ValkeyServer
from tests.engines.redis.queue.readers import Make, nothing_comes, put, soon


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
    assert (await soon(waiting)).payload == b"3"


async def test_readers_outlive_the_server(own_valkey: ValkeyServer, make: Make) -> None:
    engine = await make(own_valkey)
    waiting = asyncio.create_task(engine.lease("q"))
    await asyncio.sleep(0.2)
    up = asyncio.Event()
    engine.on_up.append(up.set)
    own_valkey.restart()
    await soon(up.wait())
    await put(engine, "q", b"1")
    assert (await soon(waiting)).payload == b"1"
    own_valkey.command("FLUSHALL")
    waiting = asyncio.create_task(engine.lease("q"))
    await put(engine, "q", b"2")
    assert (await soon(waiting)).payload == b"2"


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
