"""Readers that wait: one is woken by a message, and a wake-up that is lost loses none."""

from __future__ import annotations

import asyncio
import contextlib
from collections import Counter
from typing import Any

import pytest

from antiphon.engines.redis import desk as desks
from antiphon.engines.redis.engine import RedisEngine
from tests.engines.redis.queue.readers import Make, all_wait, put, soon
from tests.waiting import FOR_EVER_S


async def test_a_waiting_reader_is_woken_and_not_found_by_its_next_look(
    place: dict[str, Any], make: Make, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(desks, "POLL_S", (FOR_EVER_S, FOR_EVER_S))
    sender, one, two = await make(place), await make(place), await make(place)
    readers = [asyncio.create_task(engine.lease("q")) for engine in (one, one, two)]
    await all_wait(one, two)
    await put(sender, "q", b"1", b"2", b"3")
    found = await soon(asyncio.gather(*readers))
    assert sorted(leased.payload for leased in found) == [b"1", b"2", b"3"]


async def test_one_message_wakes_one_node(place: dict[str, Any], make: Make, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(desks, "POLL_S", (FOR_EVER_S, FOR_EVER_S))
    sender, nodes = await make(place), [await make(place) for _ in range(4)]
    readers = [asyncio.create_task(engine.lease("q")) for engine in nodes]
    await all_wait(*nodes)
    calls = Counter[str]()
    for engine in nodes:
        script = engine.script

        async def counting(*args: Any, engine: RedisEngine = engine, script: Any = script) -> Any:
            calls[engine.node] += 1
            return await script(*args)

        engine.script = counting  # type: ignore[assignment, method-assign]
    await put(sender, "q", b"1")
    await asyncio.wait(readers, timeout=30, return_when=asyncio.FIRST_COMPLETED)
    await asyncio.sleep(0.1)
    assert sum(reader.done() for reader in readers) == 1
    assert sum(calls.values()) == 1
    for reader in readers:
        reader.cancel()
    await asyncio.gather(*readers, return_exceptions=True)


async def test_a_wake_up_for_a_reader_that_has_left_goes_to_another_node(
    place: dict[str, Any], make: Make, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(desks, "POLL_S", (FOR_EVER_S, FOR_EVER_S))
    sender, left, stays = await make(place), await make(place), await make(place)
    gone = asyncio.create_task(left.lease("q"))
    await all_wait(left)  # the first in line to be woken
    reader = asyncio.create_task(stays.lease("q"))
    await all_wait(stays)
    gone.cancel()
    with contextlib.suppress(asyncio.CancelledError):
        await gone
    await put(sender, "q", b"1")
    assert (await soon(reader)).payload == b"1"


async def test_a_lost_wake_up_costs_a_look_and_no_message(place: dict[str, Any], make: Make) -> None:
    sender, reader = await make(place), await make(place)
    waiting = asyncio.create_task(reader.lease("q"))
    await all_wait(reader)
    wake = reader.keys.wake("q", reader.node)
    reader._listeners[wake] = lambda _: None
    await put(sender, "q", b"1")
    assert (await soon(waiting)).payload == b"1"
