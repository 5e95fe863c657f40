"""Worker channels as members of groups."""

from __future__ import annotations

import asyncio
from typing import Any

from antiphon.engines.redis.engine import RedisEngine
from antiphon.testing.faults import ValkeyServer
from antiphon.types import Receipt
from tests.engines.redis.queue.readers import LONG_S, Make, drops_of, nothing_comes, soon


async def comes_true(engine: RedisEngine, topic: str, queues: list[str]) -> None:
    async with asyncio.timeout(30):
        while await engine.bound(topic) != queues:  # noqa: ASYNC110  # nothing tells
            await asyncio.sleep(0.005)


async def test_what_is_published_to_a_group_reaches_its_worker_channels_from_any_node(
    place: dict[str, Any], make: Make
) -> None:
    one, two = await make(place), await make(place)
    assert (await two.publish("g:a", b"0")).nodes == 0
    await one.bind("g:a", "q", 2, LONG_S, LONG_S)
    await one.bind("g:b", "q", 2, LONG_S, LONG_S)
    assert await one.bound("g:a") == ["q"]
    await comes_true(two, "g:a", ["q"])  # with the server's word
    drops = drops_of(two)
    for n in (b"1", b"2", b"3"):
        await two.publish("g:a", n)
    assert drops == {("over_capacity", "q"): 1}
    found = [await soon(one.lease("q")) for _ in range(2)]
    assert [(leased.payload, leased.topic) for leased in found] == [(b"1", "g:a"), (b"2", "g:a")]
    await two.unbind("g:a", "q")
    await two.unbind("g:a", "q")
    await comes_true(one, "g:a", [])
    assert await one.bound("g:b") == ["q"]
    await one.unbind(None, "q")
    await comes_true(two, "g:b", [])


async def test_a_membership_ends_by_itself_unless_it_is_renewed(place: dict[str, Any], make: Make) -> None:
    engine = await make(place)
    await engine.bind("g:a", "brief", 9, LONG_S, 1.0)
    await engine.bind("g:a", "kept", 9, LONG_S, 1.0)
    for _ in range(3):
        await asyncio.sleep(0.4)
        await engine.bind("g:a", "kept", 9, LONG_S, 1.0)
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
