"""Topics of a node: joined together, kept for a moment without members, and refused by the server's rules."""

from __future__ import annotations

import asyncio

import pytest

from antiphon.exceptions import EngineUnavailable
from antiphon.testing.faults import Proxy, ValkeyServer
from tests.engines.redis.link.layers import MakeLayer, heard, member, up
from tests.waiting import until


async def test_a_topic_without_members_lingers_so_that_a_reload_costs_no_round_trip(
    valkey: ValkeyServer, make_layer: MakeLayer
) -> None:
    layer = make_layer(valkey.url)
    channel = await member(layer, "room")
    topic = f"{layer.prefix}:a1:{{g:room}}"
    await layer.group_discard("room", channel)
    await layer.group_send("room", {"type": "t", "n": 1})
    assert valkey.command("PUBSUB", "NUMSUB", topic)[1] == 1
    await layer.group_add("room", channel)
    await layer.group_send("room", {"type": "t", "n": 2})
    assert await heard(layer, channel) == [2]
    await layer.group_discard("room", channel)
    await until(lambda: valkey.command("PUBSUB", "NUMSUB", topic)[1] == 0)


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
    rules = ("on", "nopass", "~*", "+@all", "resetchannels", f"&{fresh_prefix}:a1:{{n:*", f"&{fresh_prefix}:a1:{{c:}}")
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
    layer = make_layer(own_valkey.url.replace("unix://", "unix://:wr0ng-secret@"), timeout_s=2.0)
    with pytest.raises(EngineUnavailable, match="WRONGPASS"):
        await layer.group_send("room", {"type": "t"})
    assert "wr0ng-secret" not in caplog.text + repr(layer)


async def test_a_topic_that_lingers_leaves_nothing_in_the_gate(valkey: ValkeyServer, make_layer: MakeLayer) -> None:
    layer = make_layer(valkey.url)
    channel = await member(layer, "room")
    await layer.group_discard("room", channel)
    await layer.group_send("room", {"type": "t"})  # still subscribed, and nobody is there
    node = next(iter(layer._nodes.values()))
    gate = node.hub.gate
    assert gate is not None
    await until(lambda: not valkey.command("PUBSUB", "NUMSUB", f"{layer.prefix}:a1:{{g:room}}")[1])
    await until(lambda: "g:room" not in gate._lanes)
