"""The end of a layer and of its calls: what is still sent, who gets an error, and no error that nobody fetches."""

from __future__ import annotations

import asyncio
import gc
from typing import Any

import pytest

from antiphon.exceptions import EngineUnavailable
from antiphon.testing.faults import ValkeyServer
from tests.engines.redis.link.layers import MakeLayer, down, heard, member
from tests.waiting import FOR_EVER_S


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


async def test_whoever_waits_when_the_layer_closes_gets_an_error_and_is_not_cancelled(
    own_valkey: ValkeyServer, make_layer: MakeLayer
) -> None:
    layer = make_layer(own_valkey.url, timeout_s=FOR_EVER_S)
    await member(layer, "room")
    own_valkey.kill()
    await down(layer)
    waiting = [
        asyncio.ensure_future(layer.send("worker", {"type": "t"})),
        asyncio.ensure_future(layer.group_send("room", {"type": "t"})),
        asyncio.ensure_future(layer.group_add("other", await layer.new_channel())),
    ]
    await asyncio.sleep(0.2)
    await layer.close()
    async with asyncio.timeout(30):
        results = await asyncio.gather(*waiting, return_exceptions=True)
    assert [type(result) for result in results] == [EngineUnavailable] * 3


async def test_a_publish_that_is_looked_at_when_the_layer_closes_does_not_wait_for_ever(
    own_valkey: ValkeyServer, make_layer: MakeLayer
) -> None:
    layer = make_layer(own_valkey.url, ping_interval_s=5, timeout_s=FOR_EVER_S)
    await member(layer, "room")
    node = next(iter(layer._nodes.values()))
    node.engine.queues.bindings.invalidate()  # type: ignore[attr-defined]

    async def never() -> list[bytes]:
        await asyncio.sleep(FOR_EVER_S)
        return []

    node.engine.queues.bindings._read = never  # type: ignore[attr-defined]
    sending = asyncio.ensure_future(layer.group_send("room", {"type": "t"}))
    await asyncio.sleep(0.3)
    assert not sending.done()
    await layer.close()
    with pytest.raises(EngineUnavailable):
        await asyncio.wait_for(sending, 30)


async def test_what_a_closed_engine_is_asked_fails_at_once(valkey: ValkeyServer, make_layer: MakeLayer) -> None:
    layer = make_layer(valkey.url, timeout_s=FOR_EVER_S)
    await member(layer, "room")
    node = next(iter(layer._nodes.values()))
    await layer.close()
    with pytest.raises(EngineUnavailable):
        await asyncio.wait_for(node.engine.publish("g:room", b"x"), 30)  # type: ignore[arg-type]
    with pytest.raises(EngineUnavailable):
        await asyncio.wait_for(node.engine.subscribe(("g:other",)), 30)  # type: ignore[arg-type]
    with pytest.raises(EngineUnavailable):
        await asyncio.wait_for(node.engine.queues.put("q", b"x", 1, 1.0), 30)  # type: ignore[attr-defined]


async def test_sends_to_several_groups_fail_without_leaving_errors_that_nobody_fetched(
    own_valkey: ValkeyServer, make_layer: MakeLayer, loop_errors: list[dict[str, Any]]
) -> None:
    layer = make_layer(own_valkey.url, timeout_s=1.0)
    await member(layer, "a")
    own_valkey.kill()
    await down(layer)
    with pytest.raises(EngineUnavailable):
        await layer.groups_send(["a", "b", "c"], {"type": "t"})
    with pytest.raises(EngineUnavailable):
        await layer.send_many([("a", {"type": "t"}), ("b", {"type": "t"})])
    gc.collect()
    await asyncio.sleep(0)
    assert not loop_errors


async def test_shards_that_cannot_be_reached_leave_no_errors_that_nobody_fetched(
    own_valkey: ValkeyServer, make_layer: MakeLayer, loop_errors: list[dict[str, Any]]
) -> None:
    own_valkey.kill()
    gone = [own_valkey.url, own_valkey.url + ".too"]
    layer = make_layer(*gone, timeout_s=0.4)
    for n in range(4):  # the inbox's name, and so its shard, is drawn by lot
        with pytest.raises(EngineUnavailable):
            await layer.group_send(f"g{n}", {"type": "t"})
        await layer.close()
    await asyncio.sleep(0.5)
    gc.collect()
    await asyncio.sleep(0)
    assert not loop_errors
