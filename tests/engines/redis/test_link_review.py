"""What a sceptical reader of the links asked: half-restored subscriptions, stalled loops, hooks that raise, closing."""

from __future__ import annotations

import asyncio
import contextlib
import gc
import logging
import time
from collections.abc import AsyncIterator, Callable
from typing import Any, TypeAlias

import pytest

from antiphon import configure
from antiphon.engines.redis import subscriptions
from antiphon.engines.redis.engine import LINGER_S
from antiphon.engines.redis.outbox import publish_command
from antiphon.exceptions import EngineUnavailable
from antiphon.layer.redis import RedisChannelLayer
from antiphon.testing.faults import Proxy, ValkeyServer

MakeLayer: TypeAlias = Callable[..., RedisChannelLayer]


@pytest.fixture
async def make_layer(fresh_prefix: str) -> AsyncIterator[MakeLayer]:
    layers: list[RedisChannelLayer] = []

    def make(*urls: str, **options: Any) -> RedisChannelLayer:
        given: dict[str, Any] = {"ping_interval_s": 0.5, "timeout_s": 3.0, "prefix": fresh_prefix} | options
        layer = RedisChannelLayer(hosts=list(urls), **given)
        layers.append(layer)
        return layer

    yield make
    for layer in layers:
        await layer.close()


@pytest.fixture
async def loop_errors() -> AsyncIterator[list[dict[str, Any]]]:
    """What nobody retrieved, and what was destroyed while pending."""
    found: list[dict[str, Any]] = []
    loop = asyncio.get_running_loop()
    loop.set_exception_handler(lambda _, context: found.append(context))
    yield found
    loop.set_exception_handler(None)


async def member(layer: RedisChannelLayer, group: str) -> str:
    channel = await layer.new_channel()
    await layer.group_add(group, channel)
    return channel


async def heard(layer: RedisChannelLayer, channel: str, wait_s: float = 0.3) -> list[Any]:
    found = []
    with contextlib.suppress(TimeoutError):
        while True:
            found.append((await asyncio.wait_for(layer.receive(channel), wait_s)).get("n"))
    return found


async def until(condition: Callable[[], Any], limit_s: float = 5.0) -> None:
    async with asyncio.timeout(limit_s):
        while not condition():  # noqa: ASYNC110  # nothing tells
            await asyncio.sleep(0.02)


def cut(server: ValkeyServer) -> None:
    for kind in ("normal", "pubsub"):
        server.command("CLIENT", "KILL", "TYPE", kind)


def links(layer: RedisChannelLayer) -> dict[str, int]:
    found: dict[str, int] = layer.stats()["links"]
    return found


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
        "ACL", "SETUSER", "default", "resetchannels", f"&{layer.prefix}:a1:[nc]:*", f"&{layer.prefix}:a1:g:g?"
    )
    cut(own_valkey)
    await until(lambda: links(layer)["down"])
    await asyncio.sleep(0.5)
    told = layer.losses.count
    assert told
    own_valkey.command("ACL", "SETUSER", "default", "allchannels")
    await until(lambda: links(layer)["up"])
    receipts = [await layer.group_send(group, {"type": "t", "n": n}) for n, group in enumerate(groups)]
    assert [receipt.nodes for receipt in receipts] == [1] * 20
    assert await heard(layer, channel) == list(range(20))
    assert {loss.group for loss in layer.losses.recent} >= set(groups)


async def test_a_loop_that_stood_still_reads_first_and_keeps_its_connection(
    valkey: ValkeyServer, make_layer: MakeLayer
) -> None:
    layer = make_layer(valkey.url, ping_interval_s=0.3)
    channel = await member(layer, "room")
    for _ in range(3):
        node = next(iter(layer._nodes.values()))
        link = node.engine.links[0]  # type: ignore[attr-defined]
        async with asyncio.timeout(3):
            while link._ping is None and link.connection is not None:  # noqa: ASYNC110  # nothing tells
                await asyncio.sleep(0)
        time.sleep(0.8)  # noqa: ASYNC251  # the application blocks the loop
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
    await until(lambda: layer.losses.count)
    await until(lambda: links(layer)["up"])
    await layer.group_send("room", {"type": "t", "n": 1})
    assert await heard(layer, channel) == [1]


async def test_whoever_waits_when_the_layer_closes_gets_an_error_and_is_not_cancelled(
    own_valkey: ValkeyServer, make_layer: MakeLayer
) -> None:
    layer = make_layer(own_valkey.url)
    await member(layer, "room")
    own_valkey.kill()
    await until(lambda: links(layer)["down"])
    waiting = [
        asyncio.ensure_future(layer.send("worker", {"type": "t"})),
        asyncio.ensure_future(layer.group_send("room", {"type": "t"})),
        asyncio.ensure_future(layer.group_add("other", await layer.new_channel())),
    ]
    await asyncio.sleep(0.2)
    await layer.close()
    async with asyncio.timeout(2):
        results = await asyncio.gather(*waiting, return_exceptions=True)
    assert [type(result) for result in results] == [EngineUnavailable] * 3


async def test_a_publish_that_is_looked_at_when_the_layer_closes_does_not_wait_for_ever(
    own_valkey: ValkeyServer, make_layer: MakeLayer
) -> None:
    layer = make_layer(own_valkey.url, ping_interval_s=5)
    await member(layer, "room")
    node = next(iter(layer._nodes.values()))
    node.engine.queues.bindings.invalidate()  # type: ignore[attr-defined]

    async def never() -> list[bytes]:
        await asyncio.sleep(60)
        return []

    node.engine.queues.bindings._read = never  # type: ignore[attr-defined]
    sending = asyncio.ensure_future(layer.group_send("room", {"type": "t"}))
    await asyncio.sleep(0.3)
    assert not sending.done()
    await layer.close()
    with pytest.raises(EngineUnavailable):
        await asyncio.wait_for(sending, 2)


async def test_what_a_closed_engine_is_asked_fails_at_once(valkey: ValkeyServer, make_layer: MakeLayer) -> None:
    layer = make_layer(valkey.url)
    await member(layer, "room")
    node = next(iter(layer._nodes.values()))
    await layer.close()
    with pytest.raises(EngineUnavailable):
        await asyncio.wait_for(node.engine.publish("g:room", b"x"), 1)  # type: ignore[arg-type]
    with pytest.raises(EngineUnavailable):
        await asyncio.wait_for(node.engine.subscribe(("g:other",)), 1)  # type: ignore[arg-type]
    with pytest.raises(EngineUnavailable):
        await asyncio.wait_for(node.engine.queues.put("q", b"x", 1, 1.0), 1)  # type: ignore[attr-defined]


async def test_sends_to_several_groups_fail_without_leaving_errors_that_nobody_fetched(
    own_valkey: ValkeyServer, make_layer: MakeLayer, loop_errors: list[dict[str, Any]]
) -> None:
    layer = make_layer(own_valkey.url, timeout_s=0.4)
    await member(layer, "a")
    own_valkey.kill()
    await until(lambda: links(layer)["down"])
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


async def test_a_topic_that_lingers_leaves_nothing_in_the_gate(valkey: ValkeyServer, make_layer: MakeLayer) -> None:
    layer = make_layer(valkey.url)
    channel = await member(layer, "room")
    await layer.group_discard("room", channel)
    await layer.group_send("room", {"type": "t"})  # still subscribed, and nobody is there
    await asyncio.sleep(LINGER_S + 0.5)
    node = next(iter(layer._nodes.values()))
    assert node.hub.gate is not None
    assert "g:room" not in node.hub.gate._lanes


async def test_a_server_that_dies_while_it_is_looked_at_is_left_at_once(
    own_valkey: ValkeyServer, make_layer: MakeLayer
) -> None:
    with Proxy(own_valkey.url) as proxy:
        proxy.delay(0.15)
        layer = make_layer(proxy.url, ping_interval_s=5, timeout_s=3)
        began = time.monotonic()
        joining = asyncio.ensure_future(layer.new_channel())
        await asyncio.sleep(0.6)  # greeted, and in the middle of the questions
        proxy.cut()
        proxy.delay(0)
        await joining
        await until(lambda: links(layer)["up"])
        assert time.monotonic() - began < 2.5


async def test_a_refused_flush_is_an_error_of_ours(own_valkey: ValkeyServer, make_layer: MakeLayer) -> None:
    own_valkey.command("ACL", "SETUSER", "narrow", "on", "nopass", "~*", "&*", "+@all", "-scan")
    layer = make_layer(own_valkey.url.replace("unix://", "unix://narrow:x@"))
    with pytest.raises(EngineUnavailable, match="(?i)scan"):
        await layer.flush()


async def test_flush_is_quick_with_many_keys(own_valkey: ValkeyServer, make_layer: MakeLayer) -> None:
    layer = make_layer(own_valkey.url, ping_interval_s=5)
    fill = f"for i = 1, 50000 do redis.call('SET', '{layer.prefix}:a1:x' .. i, '1') end"
    own_valkey.command("EVAL", fill, "0")
    own_valkey.command("SET", "theirs", "1")
    before = int(own_valkey.command("DBSIZE"))
    began = time.monotonic()
    await layer.flush()
    assert time.monotonic() - began < 5
    assert before >= 50001
    assert int(own_valkey.command("DBSIZE")) == 1


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
        await until(lambda: layer.losses.count)
        await until(lambda: links(layer)["up"])
        await asyncio.sleep(0.2)
    assert len(asked) == 1


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
    wires = [publish_command(topic, payload, sharded=True) for payload in payloads]
    # As when the map is old: the first is refused, the second is under way, the third is only held.
    sent = [wrong.publish(topic, payloads[0], wires[0])]
    async with asyncio.timeout(3):
        while not router._held:  # noqa: ASYNC110  # nothing tells
            await asyncio.sleep(0)
    sent += [wrong.publish(topic, payloads[1], wires[1]), router.publish(topic, payloads[2], wires[2])]
    await asyncio.gather(*sent)
    assert await heard(layer, channel) == [0, 1, 2]
