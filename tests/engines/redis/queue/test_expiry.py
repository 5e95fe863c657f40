"""Messages that wait too long: never delivered, counted, and told by the server's clock alone."""

from __future__ import annotations

import asyncio
import time
from typing import Any

import pytest

from antiphon.engines.redis import desk as desks
from tests.engines.redis.queue.readers import LONG_S, Make, drops_of, soon


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
    assert drops + others == {("expired", "q"): 2}  # the sender, where the first was over before it put the second
    others.clear()
    await sender.put("full", b"old", 1, 0.05)
    await asyncio.sleep(0.1)
    assert await sender.put("full", b"new", 1, LONG_S)
    assert others == {("expired", "full"): 1}


async def test_a_wrong_clock_of_a_process_changes_nothing(
    place: dict[str, Any], make: Make, monkeypatch: pytest.MonkeyPatch
) -> None:
    sender, reader = await make(place), await make(place)
    await sender.put("q", b"1", 9, LONG_S)
    now, monotonic = time.time, time.monotonic
    monkeypatch.setattr(time, "time", lambda: now() + 86400)
    monkeypatch.setattr(desks, "monotonic", lambda: monotonic() + 86400)
    await sender.put("q", b"2", 9, LONG_S)
    found = [await soon(reader.lease("q")) for _ in range(2)]
    assert [leased.payload for leased in found] == [b"1", b"2"]


async def test_time_with_a_reader_is_no_waiting(place: dict[str, Any], make: Make) -> None:
    engine = await make(place)
    await engine.put("q", b"1", 9, 1.0)
    leased = await soon(engine.lease("q"))
    await asyncio.sleep(1.2)
    await engine.release("q", leased.token)
    assert (await soon(engine.lease("q"))).delivery_count == 2
