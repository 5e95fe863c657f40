"""What the tests of worker channels do with a node: put, read in time, read nothing, note drops."""

from __future__ import annotations

import asyncio
from collections import Counter
from collections.abc import Awaitable, Callable, Collection, Sequence
from typing import Any, TypeAlias

import pytest

from antiphon.engines.redis.engine import RedisEngine
from antiphon.types import Arrival
from tests.waiting import until

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


async def put(engine: RedisEngine, queue: str, *payloads: bytes, capacity: int = 10_000) -> None:
    for payload in payloads:
        assert await engine.put(queue, payload, capacity, LONG_S)


async def soon(call: Awaitable[Any], limit_s: float = 30.0) -> Any:
    return await asyncio.wait_for(call, limit_s)


async def all_wait(*engines: RedisEngine, queue: str = "q") -> None:
    """Wait until the readers of these nodes have found nothing, and will be woken."""

    def waits(engine: RedisEngine) -> bool:
        desk = engine.queues._desks.get(queue)
        return desk is not None and desk._listening and not desk._calling

    await until(lambda: all(map(waits, engines)))


async def nothing_comes(engine: RedisEngine, queue: str, wait_s: float = 0.15) -> None:
    with pytest.raises(TimeoutError):
        await asyncio.wait_for(engine.lease(queue), wait_s)


def drops_of(engine: RedisEngine) -> Counter[tuple[str, str]]:
    drops: Counter[tuple[str, str]] = Counter()

    def note(reason: str, queue: str, count: int) -> None:
        drops[reason, queue] += count

    engine.queues.on_drop = note
    return drops
