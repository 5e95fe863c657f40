"""Hours in minutes, over a real server: faults at random, members that come and go, and nothing left behind.

SOAK_S: seconds of each test; SOAK_SEED: which faults (printed, so that a run can be had again).
"""

from __future__ import annotations

import asyncio
import gc
import logging
import os
import random
import sys
import time
from collections.abc import AsyncIterator, Iterator
from pathlib import Path
from typing import Any

import pytest

from antiphon.layer.redis import RedisChannelLayer
from antiphon.testing.faults import LoopWatch, Proxy, ValkeyServer
from tests.consumers.client import until
from tests.faults.ledger import Crowd, Row, Talker, reconcile

pytestmark = [
    pytest.mark.soak,
    pytest.mark.skipif(sys.platform != "linux", reason="reads memory and descriptors from /proc"),
]
SOAK_S = float(os.environ.get("SOAK_S", "30"))
SEED = int(os.environ.get("SOAK_SEED", str(random.randrange(1_000_000))))
GROUPS = [f"room{n}" for n in range(6)]
# What an allocator keeps for itself is not ours to account for.
GROWTH_LIMIT_BYTES = 16 << 20


@pytest.fixture(autouse=True)
def _quiet() -> Iterator[None]:
    """Make no records of thousands of provoked losses; pytest would keep them all."""
    logging.disable(logging.CRITICAL)
    yield
    logging.disable(logging.NOTSET)


@pytest.fixture
async def server() -> AsyncIterator[ValkeyServer]:
    with ValkeyServer() as server:
        yield server


def memory_bytes() -> int:
    gc.collect()
    return int(Path("/proc/self/statm").read_text().split()[1]) * os.sysconf("SC_PAGE_SIZE")


def descriptors() -> int:
    return len(list(Path("/proc/self/fd").iterdir()))


async def subscribed(server: ValkeyServer, prefix: str) -> set[bytes]:
    found = await asyncio.to_thread(server.command, "PUBSUB", "CHANNELS", f"{prefix}:a1:[{{]g:*")
    return set(found)


async def one_fault(chance: random.Random, server: ValkeyServer, proxy: Proxy) -> str:
    """Do one thing that goes wrong, and mend it."""
    kind = chance.choice(("kill", "stop", "cut", "refuse", "delay", "hole", "up", "down", "kill clients"))
    seconds = chance.choice((0.05, 0.3, 1.0, 2.5)) * chance.uniform(0.5, 1.5)
    if kind == "kill":
        await asyncio.to_thread(server.kill)
        await asyncio.sleep(seconds)
        await asyncio.to_thread(server.restart)
    elif kind == "stop":
        server.stop()
        await asyncio.sleep(seconds)
        server.resume()
    elif kind == "kill clients":
        await asyncio.to_thread(server.command, "CLIENT", "KILL", "TYPE", chance.choice(("normal", "pubsub")))
    elif kind == "cut":
        await asyncio.to_thread(proxy.cut)
    elif kind == "refuse":
        await asyncio.to_thread(proxy.refuse)
        await asyncio.to_thread(proxy.cut)
        await asyncio.sleep(seconds)
        await asyncio.to_thread(proxy.refuse, False)
    elif kind == "delay":
        proxy.delay(chance.uniform(0.01, 0.2))
        await asyncio.sleep(seconds)
        proxy.delay(0)
    else:
        direction: Any = "both" if kind == "hole" else kind
        await asyncio.to_thread(lambda: proxy.black_hole(direction=direction))
        await asyncio.sleep(seconds)
        await asyncio.to_thread(lambda: proxy.black_hole(False))
    return kind


async def come_and_go(chance: random.Random, layer: RedisChannelLayer) -> None:
    """Have connections join groups of their own and those of the others, and leave, for ever."""
    channel = await layer.new_channel()
    while True:
        group = chance.choice([*GROUPS, *(f"passing{n}" for n in range(20))])
        try:
            await layer.group_add(group, channel)
            await asyncio.sleep(chance.random() * 0.1)
            await layer.group_discard(group, channel)
        except Exception:  # the engine is away: that is the game
            await asyncio.sleep(0.05)


@pytest.mark.parametrize("retry", [0, 5])
async def test_faults_at_random_lose_nothing_in_silence(server: ValkeyServer, retry: int) -> None:
    chance = random.Random(SEED + retry)
    faults: list[str] = []
    row = Row("soak", f"seed {SEED + retry}")
    with Proxy(server) as proxy:
        options: dict[str, Any] = {"prefix": "soak", "ping_interval_s": 0.5, "timeout_s": 1.5, "publish_retry": retry}
        hearing, talking = (RedisChannelLayer([proxy.url], **options) for _ in range(2))
        crowd = Crowd(hearing)
        for group in GROUPS:
            await crowd.join(group, 2)
        talker = Talker(talking, GROUPS, 0.01, pad=500)
        passing = [asyncio.create_task(come_and_go(chance, hearing)) for _ in range(3)]
        with LoopWatch() as watch:
            talker.start()
            end = time.monotonic() + SOAK_S
            while time.monotonic() < end:
                faults.append(await one_fault(chance, server, proxy))
                await asyncio.sleep(chance.choice((0.0, 0.1, 0.7, 1.5)))
            await until(lambda: hearing.stats()["links"]["up"] and talking.stats()["links"]["up"], 10)
            await asyncio.sleep(1)
            await talker.stop()
            await asyncio.sleep(1)
        for task in passing:
            task.cancel()
        await asyncio.wait(passing)
        # Heard everywhere, and nothing subscribed but what has members.
        before = {member.group: len(member.got) for member in crowd.members}
        for n, group in enumerate(GROUPS):
            await talker.say(10_000_000 + n, group)
        await until(lambda: all(len(m.got) > before[m.group] for m in crowd.members))
        await asyncio.sleep(4)  # an empty topic lingers
        wanted = {f"soak:a1:{{{topic}}}".encode() for topic in hearing._node().hub.members if topic[:2] == "g:"}
        held = await subscribed(server, "soak")
        complaints = reconcile(row, talker.sends, crowd.members, list(hearing.losses.recent))
        connected = crowd.all_connected()
        await crowd.leave()
        await hearing.close()
        await talking.close()
    print(f"\n{row}\n{len(faults)} faults: {faults}", file=sys.stderr)
    assert connected
    assert not complaints
    assert row.duplicates == 0
    assert held == wanted
    assert len(hearing.losses.recent) < 1000, "more than are kept: the accounts are not complete"
    if retry:
        assert row.acked > row.sent * 0.9
    watch.check()


async def test_an_idle_layer_lives_and_does_next_to_nothing(server: ValkeyServer) -> None:
    layer = RedisChannelLayer([server.url], prefix="idle")
    crowd = Crowd(layer)
    await crowd.join("lobby", 5)
    await asyncio.sleep(1)
    spent, began = time.process_time(), time.monotonic()
    await asyncio.sleep(SOAK_S)
    spent = (time.process_time() - spent) / (time.monotonic() - began)
    await layer.group_send("lobby", {"type": "note", "n": 1})
    await until(lambda: all(member.got == [1] for member in crowd.members))
    print(f"\nidle: {spent:.2%} of a processor", file=sys.stderr)
    assert spent < 0.02
    assert layer.losses.count == 0
    assert crowd.all_connected()
    await crowd.leave()
    await layer.close()


async def test_connections_and_reconnections_leave_nothing_behind(server: ValkeyServer) -> None:
    chance = random.Random(SEED)
    with Proxy(server) as proxy:
        layer = RedisChannelLayer([proxy.url], prefix="churn", ping_interval_s=1, timeout_s=5)

        async def generation() -> None:
            crowd = Crowd(layer)
            for _ in range(20):
                await crowd.join(f"room{chance.randrange(1000)}", 2)
            await layer.group_send(crowd.members[0].group, {"type": "note", "n": 1})
            await crowd.leave()
            if chance.random() < 0.3:
                await asyncio.to_thread(proxy.cut)

        for _ in range(30):  # what is made once is made now
            await generation()
        await until(lambda: layer.stats()["links"]["up"] == 1, 5)
        await asyncio.sleep(3)
        tasks, files, before = len(asyncio.all_tasks()), descriptors(), memory_bytes()
        generations, end = 0, time.monotonic() + SOAK_S
        while time.monotonic() < end:
            await generation()
            generations += 1
        await until(lambda: layer.stats()["links"]["up"] == 1, 5)
        await asyncio.sleep(3)
        after, stats = memory_bytes(), layer.stats()
        print(
            f"\n{generations * 40:,} connections, {proxy.accepted} of ours to the server, {after - before:+,} bytes",
            file=sys.stderr,
        )
        assert (stats["channels"], stats["groups"], stats["waiting"]) == (0, 0, 0)
        assert len(asyncio.all_tasks()) == tasks
        assert descriptors() == files
        assert await subscribed(server, "churn") == set()
        assert after - before < GROWTH_LIMIT_BYTES
        await layer.close()
