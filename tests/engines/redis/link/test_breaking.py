"""Links that break: noticed, told once, and restored with every subscription."""

from __future__ import annotations

import asyncio
import contextlib
import logging
import time
from typing import Any

import pytest

from antiphon import configure
from antiphon.engines.redis import subscriptions
from antiphon.exceptions import EngineUnavailable
from antiphon.testing.faults import Proxy, ValkeyServer
from tests.engines.redis.link.layers import MakeLayer, cut, down, heard, lost, member, up
from tests.waiting import until


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
    losses: list[Any] = []
    configure(on_lost=losses.append)
    layer = make_layer(own_valkey.url)
    for n in range(250):
        await member(layer, f"g{n}")
    own_valkey.kill()
    await down(layer)
    own_valkey.restart()
    await until(lambda: sum(loss.group is not None for loss in losses) >= 250)
    assert {loss.group for loss in losses} - {None} == {f"g{n}" for n in range(250)}


async def test_a_half_open_connection_is_noticed_by_a_loop_that_runs_on(
    valkey: ValkeyServer, make_layer: MakeLayer
) -> None:
    with Proxy(valkey.url) as proxy:
        layer = make_layer(proxy.url, ping_interval_s=0.5)
        channel = await member(layer, "room")
        proxy.black_hole(True)
        await down(layer)
        proxy.black_hole(False)  # by the loop itself: did it wait for the server, both would wait for ever
        proxy.cut()
        await up(layer)
        assert {loss.group for loss in layer.losses.recent} >= {"room"}
        await layer.group_send("room", {"type": "t", "n": 1})
        assert await heard(layer, channel) == [1]


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
    assert own_valkey.command("PUBSUB", "NUMSUB", f"{layer.prefix}:a1:{{g:g4999}}")[1] == 1
    for n in (0, 2500, 4999):
        assert (await layer.group_send(f"g{n}", {"type": "t", "n": n})).nodes == 1
    assert await heard(layer, channel) == [0, 2500, 4999]


async def test_an_idle_layer_lives_on(valkey: ValkeyServer, make_layer: MakeLayer) -> None:
    layer = make_layer(valkey.url, ping_interval_s=1.0)
    channel = await member(layer, "room")
    receiving = asyncio.ensure_future(layer.receive(channel))
    await asyncio.sleep(3.5)
    await layer.group_send("room", {"type": "t", "n": 1})
    assert (await receiving)["n"] == 1
    assert layer.losses.count == 0


async def test_a_connection_that_breaks_while_it_restores_leaves_no_topic_deaf(
    own_valkey: ValkeyServer, make_layer: MakeLayer, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(subscriptions, "BATCH", 1)  # four channels a batch of restoring
    layer = make_layer(own_valkey.url)
    channel = await layer.new_channel()
    groups = [f"g{n}" for n in range(20)]
    for group in groups:
        await layer.group_add(group, channel)
    # The first batch is confirmed, the second is refused: once the link has come back, all must be heard again.
    own_valkey.command(
        "ACL", "SETUSER", "default", "resetchannels", f"&{layer.prefix}:a1:{{[nc]:*", f"&{layer.prefix}:a1:{{g:g?}}"
    )
    cut(own_valkey)
    await down(layer)
    await lost(layer)
    await asyncio.sleep(0.5)  # while it tries again and again
    own_valkey.command("ACL", "SETUSER", "default", "allchannels")
    await up(layer)
    receipts = [await layer.group_send(group, {"type": "t", "n": n}) for n, group in enumerate(groups)]
    assert [receipt.nodes for receipt in receipts] == [1] * 20
    assert await heard(layer, channel) == list(range(20))
    assert {loss.group for loss in layer.losses.recent} >= set(groups)


async def test_a_loop_that_stood_still_reads_first_and_keeps_its_connection(
    valkey: ValkeyServer, make_layer: MakeLayer
) -> None:
    layer = make_layer(valkey.url, ping_interval_s=0.8)
    channel = await member(layer, "room")
    for _ in range(2):
        node = next(iter(layer._nodes.values()))
        link = node.engine.links[0]  # type: ignore[attr-defined]
        async with asyncio.timeout(30):
            while not link.heartbeat.asking and link.connection is not None:  # noqa: ASYNC110  # nothing tells
                await asyncio.sleep(0)
        time.sleep(2.0)  # noqa: ASYNC251  # the application blocks the loop
        await asyncio.sleep(0.3)
    assert layer.losses.count == 0
    await layer.group_send("room", {"type": "t", "n": 1})
    assert await heard(layer, channel) == [1]


async def test_a_hook_that_cannot_be_imported_does_not_end_a_link(
    own_valkey: ValkeyServer, make_layer: MakeLayer
) -> None:
    configure(on_lost="no.such.module.hook")
    layer = make_layer(own_valkey.url)
    channel = await member(layer, "room")
    cut(own_valkey)
    await lost(layer)
    await up(layer)
    await layer.group_send("room", {"type": "t", "n": 1})
    assert await heard(layer, channel) == [1]


async def test_a_server_that_dies_while_it_is_looked_at_is_left_at_once(
    own_valkey: ValkeyServer, make_layer: MakeLayer
) -> None:
    with Proxy(own_valkey.url) as proxy:
        proxy.delay(0.15)
        layer = make_layer(proxy.url, ping_interval_s=100, timeout_s=100)
        joining = asyncio.ensure_future(layer.new_channel())
        await asyncio.sleep(0.6)  # greeted, and in the middle of the questions
        assert not joining.done()
        proxy.cut()
        proxy.delay(0)
        await joining
        await up(layer)  # not after its time-out


async def test_a_loss_is_told_once(
    own_valkey: ValkeyServer, make_layer: MakeLayer, caplog: pytest.LogCaptureFixture
) -> None:
    layer = make_layer(own_valkey.url)
    asked: list[Any] = []
    await member(layer, "room")
    recall = layer._recall_closes

    async def counted(*args: Any) -> None:
        asked.append(args)
        await recall(*args)

    layer._recall_closes = counted  # type: ignore[method-assign, assignment]
    with caplog.at_level(logging.WARNING):
        cut(own_valkey)
        await lost(layer)
        await up(layer)
        await asyncio.sleep(0.2)
    assert len(asked) == 1
