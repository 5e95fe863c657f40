"""Worker channels through the layer, in memory and on a server: receive, leases, other loops."""

from __future__ import annotations

import asyncio
import random
from collections import Counter
from collections.abc import AsyncIterator, Callable
from typing import Any, TypeAlias

import pytest
from asgiref.sync import async_to_sync

from antiphon.exceptions import ChannelFull
from antiphon.layer.layer import ChannelLayer
from antiphon.layer.redis import RedisChannelLayer
from antiphon.layers import InMemoryChannelLayer

MakeLayer: TypeAlias = Callable[..., ChannelLayer]


@pytest.fixture(params=["memory", "redis"])
async def make_layer(request: pytest.FixtureRequest, fresh_prefix: str) -> AsyncIterator[MakeLayer]:
    layers: list[ChannelLayer] = []

    def make(**options: Any) -> ChannelLayer:
        if request.param == "memory":
            layers.append(InMemoryChannelLayer(**options))
        else:
            url = request.getfixturevalue("valkey").url
            layers.append(RedisChannelLayer([url], prefix=fresh_prefix, **options))
        return layers[-1]

    yield make
    for layer in layers:
        await layer.close()


def numbered(n: int) -> dict[str, Any]:
    return {"type": "job", "n": n}


async def test_receive_acknowledges_when_it_returns(make_layer: MakeLayer) -> None:
    layer = make_layer(capacity=1)
    for n in range(5):
        await layer.send("jobs", numbered(n))
        with pytest.raises(ChannelFull):
            await layer.send("jobs", numbered(99))
        assert await layer.receive("jobs") == numbered(n)


async def test_a_lease_holds_its_message_until_it_is_settled(make_layer: MakeLayer) -> None:
    layer = make_layer(capacity=1)
    await layer.send("jobs", numbered(1))
    lease = await layer.lease("jobs")
    assert (lease.channel, lease.message, lease.delivery_count) == ("jobs", numbered(1), 1)
    with pytest.raises(ChannelFull):
        await layer.send("jobs", numbered(2))
    await lease.release()
    await lease.ack()  # settled already
    with pytest.raises(LookupError, match="delivery 2"):
        async with await layer.lease("jobs") as again:
            raise LookupError(f"delivery {again.delivery_count}")
    async with await layer.lease("jobs") as again:
        assert again.delivery_count == 3
    await layer.send("jobs", numbered(2))


async def test_a_handler_that_is_cancelled_gives_its_message_back(make_layer: MakeLayer) -> None:
    layer = make_layer()
    await layer.send("jobs", numbered(1))
    entered = asyncio.Event()

    async def work() -> None:
        async with await layer.lease("jobs"):
            entered.set()
            await asyncio.sleep(3600)

    task = asyncio.create_task(work())
    await asyncio.wait_for(entered.wait(), 30)
    task.cancel()
    await asyncio.wait({task})
    assert (await asyncio.wait_for(layer.lease("jobs"), 30)).delivery_count == 2


async def test_only_worker_channels_can_be_leased(make_layer: MakeLayer) -> None:
    layer = make_layer()
    with pytest.raises(TypeError, match="a name without '!'"):
        await layer.lease(await layer.new_channel())


@pytest.mark.parametrize("seed", range(3))
async def test_receivers_that_are_cancelled_lose_and_double_nothing(make_layer: MakeLayer, seed: int) -> None:
    chance = random.Random(seed)
    layer, total = make_layer(capacity=1000), 150
    found: list[int] = []

    async def read() -> None:
        while len(found) < total:
            task = asyncio.create_task(layer.receive("jobs"))
            await asyncio.wait({task}, timeout=chance.choice((0.0, 0.0003, 0.0006, 0.001, 0.02)))
            task.cancel()
            await asyncio.wait({task})
            if not task.cancelled():
                found.append(task.result()["n"])

    async def write() -> None:
        for n in range(total):
            await layer.send("jobs", numbered(n))
            if chance.random() < 0.3:
                await asyncio.sleep(chance.random() * 0.005)

    async with asyncio.timeout(50):
        await asyncio.gather(write(), *(read() for _ in range(5)))
    assert Counter(found) == Counter(range(total))
    with pytest.raises(TimeoutError):
        await asyncio.wait_for(layer.receive("jobs"), 0.1)


async def test_a_loop_for_one_call_can_send_receive_and_give_up(make_layer: MakeLayer) -> None:
    layer = make_layer()

    async def give_up() -> None:
        with pytest.raises(TimeoutError):
            await asyncio.wait_for(layer.receive("jobs"), 0.05)

    async def release() -> int:
        async with await layer.lease("jobs") as lease:
            return lease.delivery_count

    def synchronous() -> tuple[Any, int]:
        async_to_sync(give_up)()
        async_to_sync(layer.send)("jobs", numbered(1))
        first = async_to_sync(layer.receive)("jobs")
        async_to_sync(layer.send)("jobs", numbered(2))
        return first, async_to_sync(release)()

    first, count = await asyncio.wait_for(asyncio.to_thread(synchronous), 30)
    assert (first, count) == (numbered(1), 1)


async def test_a_worker_channel_of_a_group_hears_it_unless_it_is_excluded(make_layer: MakeLayer) -> None:
    layer = make_layer()
    await layer.group_add("news", "jobs")
    await layer.group_send("news", numbered(1))
    await layer.group_send("news", numbered(2), exclude=["jobs"])
    await layer.group_send("news", numbered(3))
    assert await asyncio.wait_for(layer.receive("jobs"), 30) == numbered(1)
    assert await asyncio.wait_for(layer.receive("jobs"), 30) == numbered(3)
    assert layer.stats()["drops"] == {}


async def test_what_expired_and_what_is_dead_is_counted(make_layer: MakeLayer) -> None:
    layer = make_layer(expiry=0.5)
    await layer.send("jobs", numbered(1))
    await asyncio.sleep(0.6)
    await layer.send("jobs", numbered(2))
    for _ in range(5):
        lease = await layer.lease("jobs")
        assert lease.message == numbered(2)
        await lease.release()
    assert await layer.receive("jobs.dead") == numbered(2)
    assert layer.stats()["drops"] == {"expired": 1, "dead": 1}
