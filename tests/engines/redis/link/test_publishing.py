"""Publishing over a link: what waits for a server, what is sent again, what is counted, and in which order."""

from __future__ import annotations

import asyncio
import os
from itertools import pairwise
from typing import Any

import pytest

from antiphon.engines.redis.outbox import command_of
from antiphon.exceptions import EngineUnavailable
from antiphon.testing.faults import Proxy, ValkeyServer
from tests.engines.redis.link.layers import MakeLayer, down, heard, member
from tests.waiting import FOR_EVER_S, until


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
    layer, patient = make_layer(own_valkey.url, timeout_s=1.0), make_layer(own_valkey.url, timeout_s=FOR_EVER_S)
    await asyncio.gather(member(layer, "room"), member(patient, "room"))
    own_valkey.kill()
    await asyncio.gather(down(layer), down(patient))
    waiting = asyncio.ensure_future(patient.group_send("room", {"type": "t"}))
    with pytest.raises(EngineUnavailable, match="is down for"):
        await layer.group_send("room", {"type": "t"})
    assert not waiting.done()
    waiting.cancel()
    with pytest.raises(EngineUnavailable):
        await layer.group_add("other", await layer.new_channel())
    assert await layer.group_count("other", scope="node") == 0  # nothing half done


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
        async with asyncio.timeout(30):
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
        sender = make_layer(proxy.url, ping_interval_s=5, publish_retry=50)
        await sender.group_send("room", {"type": "t", "n": 0})
        proxy.delay(0.2)
        sends = [asyncio.ensure_future(sender.group_send("room", {"type": "t", "n": n})) for n in range(1, 6)]
        async with asyncio.timeout(30):
            found = [(await receiver.receive(channel))["n"] for _ in range(6)]
        proxy.cut()
        proxy.delay(0)
        await asyncio.gather(*sends)
        await sender.group_send("room", {"type": "t", "n": 6})
        assert found + await heard(receiver, channel) == list(range(7))
    assert receiver.stats()["duplicates"] >= 5  # what nodes ask each other may have been sent again, too


async def test_a_burst_is_taken_in_slices(valkey: ValkeyServer, make_layer: MakeLayer) -> None:
    layer = make_layer(valkey.url, capacity=10, ping_interval_s=5)
    for _ in range(200):
        await member(layer, "room")
    ((_, payload, _),) = layer.pack(["g:room"], layer.encode({"type": "t"}))
    script = f"for i = 1, 400 do redis.call('PUBLISH', '{layer.prefix}:a1:{{g:room}}', ARGV[1]) end"
    seen = [0]
    valkey.command("EVAL", script, "0", payload, timeout_s=50)  # the loop waits: then all lies in the socket
    async with asyncio.timeout(50):
        while seen[-1] < 400 * 200:
            await asyncio.sleep(0)
            stats = layer.stats()
            seen.append(stats["delivered"] + stats["dropped"])
    assert seen[-1] == 400 * 200
    # A slice ends by the clock, which is read after every 16 replies; one read of the socket holds them all.
    assert max(later - earlier for earlier, later in pairwise(seen)) <= 200 * 200


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
            valkey.command("PUBLISH", f"{layer.prefix}:a1:{{{topic}}}", junk)
    await layer.group_send("room", {"type": "t", "n": 1})
    assert await heard(layer, channel) == [1]
    assert layer.stats()["undecodable"] == 15


async def test_publishes_that_a_cluster_refused_go_before_those_that_only_waited(
    valkey_cluster: Any, make_layer: MakeLayer
) -> None:
    layer = make_layer(*valkey_cluster.hosts, cluster=True, ping_interval_s=5)
    channel = await member(layer, "room")
    engine: Any = next(iter(layer._nodes.values())).engine
    await until(lambda: len(engine.links) > 1 and all(link.up for link in engine.links))
    router, topic = engine._router, engine.keys.channel("g:room")
    wrong = next(link for link in engine.links if link is not router.link_of(topic))
    payloads = [layer.pack(["g:room"], layer.encode({"type": "t", "n": n}))[0][1] for n in range(3)]
    wires = [
        command_of((asyncio.get_running_loop().create_future(), topic, payload), sharded=True) for payload in payloads
    ]
    # As when the map is old: the first is refused, the second is under way, the third is only held.
    sent = [wrong.publish(topic, payloads[0], wires[0])]
    async with asyncio.timeout(30):
        while not router._held:  # noqa: ASYNC110  # nothing tells
            await asyncio.sleep(0)
    sent += [wrong.publish(topic, payloads[1], wires[1]), router.publish(topic, payloads[2], wires[2])]
    await asyncio.gather(*sent)
    assert await heard(layer, channel) == [0, 1, 2]
