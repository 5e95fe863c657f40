"""The links of the Redis engine, through the layer: what breaks, what waits, what is told."""

from __future__ import annotations

import asyncio
import contextlib
import logging
import os
import time
from collections.abc import AsyncIterator, Callable
from typing import Any, TypeAlias

import pytest

from antiphon.engines.redis.engine import LINGER_S
from antiphon.exceptions import EngineUnavailable
from antiphon.layer.redis import RedisChannelLayer
from antiphon.testing.faults import LoopWatch, Proxy, ValkeyServer

MakeLayer: TypeAlias = Callable[..., RedisChannelLayer]


@pytest.fixture
async def make_layer(fresh_prefix: str) -> AsyncIterator[MakeLayer]:
    layers: list[RedisChannelLayer] = []

    def make(url: str, **options: Any) -> RedisChannelLayer:
        settings: dict[str, Any] = {"ping_interval_s": 0.5, "timeout_s": 3.0, "prefix": fresh_prefix} | options
        layer = RedisChannelLayer(hosts=[url], **settings)
        layers.append(layer)
        return layer

    yield make
    for layer in layers:
        await layer.close()


async def member(layer: RedisChannelLayer, group: str) -> str:
    channel = await layer.new_channel()
    await layer.group_add(group, channel)
    return channel


async def heard(layer: RedisChannelLayer, channel: str, wait_s: float = 0.3) -> list[Any]:
    """Everything that comes until it is quiet for ``wait_s``."""
    found = []
    with contextlib.suppress(TimeoutError):
        while True:
            found.append((await asyncio.wait_for(layer.receive(channel), wait_s)).get("n"))
    return found


async def up(layer: RedisChannelLayer, limit_s: float = 5.0) -> None:
    async with asyncio.timeout(limit_s):
        while not (await layer.health())["ok"]:  # noqa: ASYNC110  # nothing tells
            await asyncio.sleep(0.02)


async def down(layer: RedisChannelLayer, limit_s: float = 5.0) -> None:
    async with asyncio.timeout(limit_s):
        while layer.stats()["links"]["up"]:  # noqa: ASYNC110  # nothing tells
            await asyncio.sleep(0.02)


async def lost(layer: RedisChannelLayer, limit_s: float = 5.0) -> None:
    async with asyncio.timeout(limit_s):
        while not layer.losses.count:  # noqa: ASYNC110  # nothing tells
            await asyncio.sleep(0.02)


async def test_a_message_crosses_from_one_layer_to_another_once(valkey: ValkeyServer, make_layer: MakeLayer) -> None:
    here, there = make_layer(valkey.url), make_layer(valkey.url)
    channels = [await member(there, "room") for _ in range(3)]
    receipt = await here.group_send("room", {"type": "t", "n": 1})
    assert receipt.nodes == 1  # however many members
    assert [await heard(there, channel) for channel in channels] == [[1]] * 3


async def test_what_is_published_while_the_server_is_down_waits_for_it_in_order(
    own_valkey: ValkeyServer, make_layer: MakeLayer
) -> None:
    layer = make_layer(own_valkey.url)
    channel = await member(layer, "room")
    own_valkey.kill()
    await down(layer)
    sends = [asyncio.ensure_future(layer.group_send("room", {"type": "t", "n": n})) for n in range(20)]
    await asyncio.sleep(0.3)
    own_valkey.restart()
    receipts = await asyncio.gather(*sends)
    assert {receipt.nodes for receipt in receipts} == {1}
    assert await heard(layer, channel) == list(range(20))


async def test_a_dead_server_makes_publishing_raise_within_its_time_out_and_says_why(
    own_valkey: ValkeyServer, make_layer: MakeLayer
) -> None:
    layer = make_layer(own_valkey.url, timeout_s=0.5)
    await member(layer, "room")
    own_valkey.kill()
    await down(layer)
    began = time.monotonic()
    with pytest.raises(EngineUnavailable, match="is down for"):
        await layer.group_send("room", {"type": "t"})
    assert time.monotonic() - began < 2
    with pytest.raises(EngineUnavailable):
        await layer.group_add("other", await layer.new_channel())
    assert await layer.group_count("other", scope="node") == 0  # nothing half done


async def test_a_server_that_dies_is_told_once_a_topic_and_its_return_needs_nobody(
    own_valkey: ValkeyServer, make_layer: MakeLayer, caplog: pytest.LogCaptureFixture
) -> None:
    layer = make_layer(own_valkey.url)
    channels = [await member(layer, group) for group in ("a", "a", "b")]
    killed_s = time.time()
    own_valkey.kill()
    await down(layer)
    with caplog.at_level(logging.WARNING, "antiphon.engine"):
        own_valkey.restart()
        await up(layer)
        await lost(layer)
    told = sorted((loss.kind, loss.name) for loss in layer.losses.recent if loss.kind == "group")
    assert told == [("group", "a"), ("group", "b")]
    assert all(loss.since <= killed_s + 0.05 and loss.until >= killed_s for loss in layer.losses.recent)
    assert len([record for record in caplog.records if "may be lost" in record.message]) == 1
    for group in ("a", "b"):
        await layer.group_send(group, {"type": "t", "n": 7})
    assert [await heard(layer, channel) for channel in channels] == [[7]] * 3
    assert layer.stats()["lost"] == len(layer.losses.recent)


async def test_on_lost_hears_of_every_topic(own_valkey: ValkeyServer, make_layer: MakeLayer) -> None:
    from antiphon import configure

    losses: list[Any] = []
    configure(on_lost=losses.append)
    layer = make_layer(own_valkey.url)
    for n in range(250):
        await member(layer, f"g{n}")
    own_valkey.kill()
    await down(layer)
    own_valkey.restart()
    async with asyncio.timeout(5):
        while len([loss for loss in losses if loss.group]) < 250:  # noqa: ASYNC110  # nothing tells
            await asyncio.sleep(0.02)
    assert {loss.group for loss in losses} - {None} == {f"g{n}" for n in range(250)}


async def test_a_half_open_connection_is_noticed_and_does_not_stall_the_loop(
    valkey: ValkeyServer, make_layer: MakeLayer
) -> None:
    with Proxy(valkey.url) as proxy:
        layer = make_layer(proxy.url)
        channel = await member(layer, "room")
        async with LoopWatch() as watch:
            proxy.black_hole(True)
            await down(layer, 3)
            proxy.black_hole(False)
            proxy.cut()
            await up(layer)
        assert watch.longest_stall_s < 0.25
        assert {loss.group for loss in layer.losses.recent} >= {"room"}
        await layer.group_send("room", {"type": "t", "n": 1})
        assert await heard(layer, channel) == [1]


async def test_an_unconfirmed_publish_fails_and_says_that_it_may_have_arrived(
    valkey: ValkeyServer, make_layer: MakeLayer
) -> None:
    receiver = make_layer(valkey.url)
    channel = await member(receiver, "room")
    with Proxy(valkey.url) as proxy:
        sender = make_layer(proxy.url, ping_interval_s=5)
        await sender.group_send("room", {"type": "t", "n": 0})
        proxy.delay(0.3)
        sending = asyncio.ensure_future(sender.group_send("room", {"type": "t", "n": 1}))
        async with asyncio.timeout(3):
            assert [(await receiver.receive(channel))["n"] for _ in range(2)] == [0, 1]  # its reply is on the way
        proxy.cut()
        with pytest.raises(EngineUnavailable, match="may or may not have arrived"):
            await sending


async def test_with_publish_retry_it_is_sent_again_and_delivered_once(
    valkey: ValkeyServer, make_layer: MakeLayer
) -> None:
    receiver = make_layer(valkey.url)
    channel = await member(receiver, "room")
    with Proxy(valkey.url) as proxy:
        sender = make_layer(proxy.url, ping_interval_s=5, publish_retry=5)
        await sender.group_send("room", {"type": "t", "n": 0})
        proxy.delay(0.2)
        sends = [asyncio.ensure_future(sender.group_send("room", {"type": "t", "n": n})) for n in range(1, 6)]
        async with asyncio.timeout(3):
            found = [(await receiver.receive(channel))["n"] for _ in range(6)]
        proxy.cut()
        proxy.delay(0)
        await asyncio.gather(*sends)
        await sender.group_send("room", {"type": "t", "n": 6})
        assert found + await heard(receiver, channel) == list(range(7))
    assert receiver.stats()["duplicates"] == 5


async def test_a_killed_client_connection_comes_back_and_loses_nothing_that_was_confirmed(
    valkey: ValkeyServer, make_layer: MakeLayer
) -> None:
    receiver, sender = make_layer(valkey.url, capacity=1000), make_layer(valkey.url)
    channel = await member(receiver, "room")
    confirmed = []
    for n in range(200):
        if n in (50, 120):
            valkey.command("CLIENT", "KILL", "TYPE", "pubsub")
        with contextlib.suppress(EngineUnavailable):
            if (await sender.group_send("room", {"type": "t", "n": n})).nodes:
                confirmed.append(n)
        await asyncio.sleep(0.002)
    found = await heard(receiver, channel)
    # What the server handed to a connection that it then killed may be gone; that is told.
    missing = set(confirmed) - set(found)
    assert not missing or receiver.losses.count
    assert len(found) == len(set(found))
    assert found[-1] == 199


async def test_a_server_that_is_a_replica_now_is_left_and_taken_again(
    own_valkey: ValkeyServer, make_layer: MakeLayer
) -> None:
    layer = make_layer(own_valkey.url, ping_interval_s=0.2)
    channel = await member(layer, "room")
    own_valkey.command("REPLICAOF", "127.0.0.1", "1")
    await down(layer)
    own_valkey.command("REPLICAOF", "NO", "ONE")
    await up(layer)
    assert any("not the primary" in loss.reason for loss in layer.losses.recent)
    await layer.group_send("room", {"type": "t", "n": 1})
    assert await heard(layer, channel) == [1]


async def test_thousands_of_subscriptions_are_restored(own_valkey: ValkeyServer, make_layer: MakeLayer) -> None:
    layer = make_layer(own_valkey.url)
    channel = await layer.new_channel()
    await asyncio.gather(*(layer.group_add(f"g{n}", channel) for n in range(5000)))
    own_valkey.kill()
    await down(layer)
    own_valkey.restart()
    await up(layer)
    assert own_valkey.command("PUBSUB", "NUMSUB", f"{layer.prefix}:a1:g:g4999")[1] == 1
    for n in (0, 2500, 4999):
        assert (await layer.group_send(f"g{n}", {"type": "t", "n": n})).nodes == 1
    assert await heard(layer, channel) == [0, 2500, 4999]


async def test_a_topic_without_members_lingers_so_that_a_reload_costs_no_round_trip(
    valkey: ValkeyServer, make_layer: MakeLayer
) -> None:
    layer = make_layer(valkey.url)
    channel = await member(layer, "room")
    topic = f"{layer.prefix}:a1:g:room"
    await layer.group_discard("room", channel)
    await layer.group_send("room", {"type": "t", "n": 1})
    assert valkey.command("PUBSUB", "NUMSUB", topic)[1] == 1
    await layer.group_add("room", channel)
    await layer.group_send("room", {"type": "t", "n": 2})
    assert await heard(layer, channel) == [2]
    await layer.group_discard("room", channel)
    await asyncio.sleep(LINGER_S + 0.5)
    assert valkey.command("PUBSUB", "NUMSUB", topic)[1] == 0


async def test_members_that_join_while_the_first_is_subscribing_are_promised_the_same(
    valkey: ValkeyServer, make_layer: MakeLayer
) -> None:
    with Proxy(valkey.url) as proxy:
        layer = make_layer(proxy.url, ping_interval_s=5)
        first, second = await layer.new_channel(), await layer.new_channel()
        await up(layer)
        proxy.delay(0.2)
        joins = [asyncio.ensure_future(layer.group_add("room", channel)) for channel in (first, second)]
        await asyncio.sleep(0.05)
        joins[0].cancel()  # the one whose subscription it was
        await joins[1]
        proxy.delay(0)
        await layer.group_send("room", {"type": "t", "n": 1})
        assert await heard(layer, second) == [1]
        assert await heard(layer, first) == []


async def test_a_server_that_forbids_a_channel_says_so_to_who_joins(
    own_valkey: ValkeyServer, make_layer: MakeLayer, fresh_prefix: str
) -> None:
    rules = ("on", "nopass", "~*", "+@all", "resetchannels", f"&{fresh_prefix}:a1:n:*", f"&{fresh_prefix}:a1:c:")
    own_valkey.command("ACL", "SETUSER", "narrow", *rules)
    layer = make_layer(own_valkey.url.replace("unix://", "unix://narrow:x@"))
    channel = await layer.new_channel()
    with pytest.raises(EngineUnavailable, match="(?i)permission"):
        await layer.group_add("room", channel)
    with pytest.raises(EngineUnavailable, match="(?i)permission"):
        await layer.group_send("room", {"type": "t"})
    assert (await layer.health())["ok"]


async def test_a_wrong_password_is_said_and_never_shown(
    own_valkey: ValkeyServer, make_layer: MakeLayer, caplog: pytest.LogCaptureFixture
) -> None:
    own_valkey.command("CONFIG", "SET", "requirepass", "right")
    layer = make_layer(own_valkey.url.replace("unix://", "unix://:wr0ng-secret@"), timeout_s=0.5)
    with pytest.raises(EngineUnavailable, match="WRONGPASS"):
        await layer.group_send("room", {"type": "t"})
    assert "wr0ng-secret" not in caplog.text + repr(layer)


async def test_an_idle_layer_lives_on(valkey: ValkeyServer, make_layer: MakeLayer) -> None:
    layer = make_layer(valkey.url, ping_interval_s=0.2)
    channel = await member(layer, "room")
    receiving = asyncio.ensure_future(layer.receive(channel))
    await asyncio.sleep(2)
    await layer.group_send("room", {"type": "t", "n": 1})
    assert (await receiving)["n"] == 1
    assert layer.losses.count == 0


async def test_a_burst_is_taken_in_slices(valkey: ValkeyServer, make_layer: MakeLayer) -> None:
    layer = make_layer(valkey.url, capacity=10, ping_interval_s=5)
    for _ in range(200):
        await member(layer, "room")
    ((_, payload),) = layer.pack(["g:room"], layer.encode({"type": "t"}))
    script = f"for i = 1, 1000 do redis.call('PUBLISH', '{layer.prefix}:a1:g:room', ARGV[1]) end"
    async with LoopWatch() as watch:
        await asyncio.to_thread(valkey.command, "EVAL", script, "0", payload)
        async with asyncio.timeout(20):
            while layer.stats()["arrived"] < 1000:  # noqa: ASYNC110  # nothing tells
                await asyncio.sleep(0.01)
    assert layer.stats()["delivered"] + layer.stats()["dropped"] == 1000 * 200
    assert watch.longest_stall_s < 0.3


async def test_foreign_bytes_on_our_topics_are_counted_and_reach_nobody(
    valkey: ValkeyServer, make_layer: MakeLayer
) -> None:
    layer = make_layer(valkey.url)
    channel = await member(layer, "room")
    node = next(iter(layer._nodes.values()))
    for topic in ("g:room", node.inbox, "c:"):
        for junk in (
            b"",
            b"junk",
            b"\xa7\x01\x00\x00short",
            os.urandom(200),
            b"\xa7\x01\x01\x00" + b"\0" * 24 + b"\xc1",
        ):
            valkey.command("PUBLISH", f"{layer.prefix}:a1:{topic}", junk)
    await layer.group_send("room", {"type": "t", "n": 1})
    assert await heard(layer, channel) == [1]
    assert layer.stats()["undecodable"] == 15


async def test_closing_lets_what_was_sent_through_and_leaves_no_task(
    valkey: ValkeyServer, make_layer: MakeLayer
) -> None:
    receiver, layer = make_layer(valkey.url), make_layer(valkey.url)
    channel = await member(receiver, "room")
    await layer.group_send("room", {"type": "t", "n": 0})
    before = asyncio.all_tasks()
    sends = [asyncio.ensure_future(layer.group_send("room", {"type": "t", "n": n})) for n in range(1, 50)]
    await asyncio.sleep(0)
    await layer.close()
    results = await asyncio.gather(*sends, return_exceptions=True)
    assert all(not isinstance(result, BaseException) or isinstance(result, EngineUnavailable) for result in results)
    assert (await heard(receiver, channel)) == list(range(50))
    assert not [task for task in asyncio.all_tasks() - before if "antiphon" in task.get_name()]
    await layer.group_send("room", {"type": "t", "n": 99})  # a closed layer begins anew
    assert await heard(receiver, channel) == [99]
