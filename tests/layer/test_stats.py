"""What a layer counts: messages, drops, lag, and bytes that nobody can decode."""

from __future__ import annotations

import asyncio
import time

import pytest

from antiphon.envelope import MESSAGE, pack
from antiphon.layers import InMemoryChannelLayer
from tests.layer.conftest import Make
from tests.layer.members import HELLO, members, numbered


async def test_stats_count_what_happened(make: Make) -> None:
    layer = make(capacity=2)
    a, _ = await members(layer, "g", 2)
    await layer.send("worker", HELLO)
    for n in range(3):
        await layer.group_send("g", numbered(n))
    await layer.receive(a)
    await asyncio.sleep(0)
    stats = layer.stats()
    assert stats["nodes"] == 1
    assert stats["channels"] == 2
    assert stats["groups"] == 1
    assert stats["waiting"] == 3
    assert stats["sent"] == 4
    assert stats["arrived"] == 3
    assert stats["delivered"] == 4
    assert stats["dropped"] == 2
    assert stats["undecodable"] == 0
    assert stats["drops"] == {"over_capacity": 2}
    assert stats["drops_by_group"] == {"g:over_capacity": 2}
    assert stats["worker_channels"] == {"worker": 1}
    assert set(stats["lag_s"]) == {"last", "mean", "max"}


async def test_the_lag_is_the_time_from_the_send_to_the_take(layer: InMemoryChannelLayer) -> None:
    [channel] = await members(layer, "g", 1)
    began_s = time.time()
    await layer.group_send("g", HELLO)
    await asyncio.sleep(0.05)
    await layer.receive(channel)
    lag = layer.stats()["lag_s"]
    assert 0.05 <= lag["last"] < time.time() - began_s + 0.01
    assert lag["max"] == lag["last"]
    assert 0 < lag["mean"] < lag["max"]


async def test_a_clock_that_runs_ahead_never_makes_a_negative_lag(layer: InMemoryChannelLayer) -> None:
    [channel] = await members(layer, "g", 1)
    body = layer.encode(HELLO)
    layer._bus.publish("g:g", pack(MESSAGE, 1, 1, int((time.time() + 3600) * 1e6), body))
    assert await layer.receive(channel) == HELLO
    assert layer.stats()["lag_s"]["last"] == 0.0


@pytest.mark.parametrize(
    "junk",
    [
        b"",
        b"junk",
        b"\xa7\x02\0\0" + b"\0" * 30,
        b"\xa7\x01\0\x01" + b"\0" * 24 + b"\xff\xff\xff\xff",
        pack(MESSAGE, 1, 1, 1, b"\xc0", {"c": ["a"]}),
        pack(MESSAGE, 1, 1, 1, b"\xc0", {"x": 5}),
        pack(MESSAGE, 1, 1, 1, b"\xc1"),  # a fine envelope around a body that does not decode
        pack(MESSAGE, 1, 1, 1, b"\xc1", {"x": ["a"]}),
    ],
)
async def test_undecodable_bytes_on_a_group_are_counted_and_kill_nothing(
    layer: InMemoryChannelLayer, junk: bytes, caplog: pytest.LogCaptureFixture
) -> None:
    [channel] = await members(layer, "g", 1)
    layer._bus.publish("g:g", junk)
    layer._bus.publish("g:g", junk)
    await layer.group_send("g", HELLO)
    assert await layer.receive(channel) == HELLO
    await asyncio.sleep(0)
    stats = layer.stats()
    assert stats["undecodable"] == 2
    assert stats["drops"] == {"undecodable": 2}
    assert len([record for record in caplog.records if record.levelname == "WARNING"]) == 1


@pytest.mark.parametrize("junk", [b"junk", pack(MESSAGE, 1, 1, 1, b"\xc1")])
async def test_undecodable_bytes_on_a_worker_channel_are_counted_and_kill_nothing(
    layer: InMemoryChannelLayer, junk: bytes
) -> None:
    layer._bus.put_now("worker", junk, 10, 60)
    await layer.send("worker", HELLO)
    assert await layer.receive("worker") == HELLO
    assert layer.stats()["undecodable"] == 1


async def test_junk_on_an_inbox_reaches_nobody(layer: InMemoryChannelLayer) -> None:
    channel = await layer.new_channel()
    node = channel.partition("!")[0].rpartition(".")[2]
    for junk in (b"junk", pack(MESSAGE, 1, 1, 1, b"\xc0", {"c": 5}), pack(MESSAGE, 1, 1, 1, b"\xc0", {"c": "gone"})):
        layer._bus.publish(f"n:{node}", junk)
    await layer.send(channel, HELLO)
    assert await layer.receive(channel) == HELLO
    await asyncio.sleep(0)
    assert layer.stats()["drops"] == {"undecodable": 2, "no_channel": 1}
