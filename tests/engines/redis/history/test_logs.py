"""Logs on a server that forgets: keys, scripts, memory; and on one whose slots move."""

from __future__ import annotations

import asyncio
from typing import Any

import pytest

import antiphon
from antiphon.exceptions import EngineUnavailable
from antiphon.layer.redis import RedisChannelLayer
from antiphon.layers import channel_layers
from antiphon.testing.faults import Proxy, ValkeyCluster, ValkeyServer
from tests.engines.redis.history.members import GROUPS, Member
from tests.engines.redis.link.layers import MakeLayer
from tests.layer.members import numbered


def keys_of(layer: RedisChannelLayer, group: str = "room") -> tuple[str, str]:
    channel = f"{layer.prefix}:a1:{{g:{group}}}"
    return f"{channel}m", f"{channel}h"


@pytest.mark.parametrize("gone", ["m", "h", "both", "all"])
async def test_a_log_of_which_something_was_evicted(own_valkey: ValkeyServer, make_layer: MakeLayer, gone: str) -> None:
    layer = make_layer(own_valkey.url, groups=GROUPS)
    mine = await Member(layer).join("room")
    *_, last = [(await layer.group_send("room", numbered(n))).position for n in (1, 2, 3)]
    assert await mine.hears(3) == [1, 2, 3]
    assert last is not None
    meta, entries = keys_of(layer)
    if gone == "all":
        own_valkey.command("FLUSHALL")
    else:
        own_valkey.command("DEL", *{"m": [meta], "h": [entries], "both": [meta, entries]}[gone])
    for n in (4, 5):
        await layer.group_send("room", numbered(n))
    if gone == "h":
        # Its place is known: nothing is missing to who was there.
        assert await mine.hears(5) == [1, 2, 3, 4, 5]
        assert (await layer.history("room", since=last)).complete
        assert not (await layer.history("room", since=last._replace(offset=1))).complete
    else:
        assert await mine.hears(5) == [1, 2, 3, "lost", 4, 5]
        assert not (await layer.history("room", since=last)).complete
    assert [publication.message["n"] for publication in await layer.history("room")] == [4, 5]


async def test_scripts_that_are_forgotten_in_the_middle_cost_no_order(
    own_valkey: ValkeyServer, make_layer: MakeLayer
) -> None:
    layer = make_layer(own_valkey.url, groups=GROUPS)
    mine = await Member(layer).join("room")
    sends: list[asyncio.Future[Any]] = []
    for n in range(500):
        sends.append(asyncio.ensure_future(layer.group_send("room", numbered(n))))
        if n % 100 == 50:
            await asyncio.sleep(0)
            own_valkey.command("SCRIPT", "FLUSH")
    receipts = await asyncio.gather(*sends)
    assert [receipt.position.offset for receipt in receipts] == list(range(1, 501))
    assert await mine.hears(499) == list(range(500))


async def test_scripts_that_are_forgotten_are_loaded_by_synchronous_code(
    own_valkey: ValkeyServer, make_layer: MakeLayer
) -> None:
    layer = make_layer(own_valkey.url, groups=GROUPS)
    mine = await Member(layer).join("room")
    before = channel_layers.set("default", layer)
    try:

        def sending() -> None:
            last = None
            for n in range(10):
                own_valkey.command("SCRIPT", "FLUSH")
                last = antiphon.group_send("room", numbered(n)).position
                assert last is not None
                assert last.offset == n + 1
            own_valkey.command("SCRIPT", "FLUSH")
            assert layer.positions_blocking(["room"])["room"] == last

        await asyncio.to_thread(sending)
    finally:
        channel_layers.set("default", before)
    assert await mine.hears(9) == list(range(10))


async def test_what_was_sent_again_stands_in_the_log_once(own_valkey: ValkeyServer, make_layer: MakeLayer) -> None:
    with Proxy(own_valkey.tcp_url) as proxy:
        sending = make_layer(proxy.url, groups=GROUPS, publish_retry=20)
        hearing = make_layer(own_valkey.url, groups=GROUPS)
        mine = await Member(hearing).join("room")
        await sending.group_send("room", numbered(0))
        for turn in range(5):
            start = 1 + turn * 50
            proxy.black_hole(direction="down")  # they arrive there, and nobody hears of it
            sends = [asyncio.ensure_future(sending.group_send("room", numbered(n))) for n in range(start, start + 50)]
            offset = start
            while offset < start + 50:
                await asyncio.sleep(0.01)
                offset = int(own_valkey.command("HGET", keys_of(hearing)[0], "s"))
            proxy.cut()
            proxy.black_hole(False)
            receipts = await asyncio.gather(*sends)
            assert [receipt.position.offset for receipt in receipts if receipt.position] == list(
                range(start + 1, start + 51)
            )
            assert {receipt.state for receipt in receipts} == {"duplicate"}
        await sending.group_send("room", numbered(1000))
        assert await mine.hears(1000) == [*range(251), 1000]
        assert len(await hearing.history("room")) == 252


async def test_a_full_server_refuses_what_has_a_history_and_publishes_nothing(make_layer: MakeLayer) -> None:
    with ValkeyServer(unix_socket=True, maxmemory="3mb") as server:
        layer = make_layer(server.url, groups=GROUPS)
        mine = await Member(layer).join("room")
        await layer.group_send("room", numbered(1))
        server.command("CONFIG", "SET", "maxmemory", "1")
        with pytest.raises(EngineUnavailable, match="nothing was published"):
            await layer.group_send("room", numbered(2))
        server.command("CONFIG", "SET", "maxmemory", "0")
        receipt = await layer.group_send("room", numbered(3))
        assert receipt.position is not None
        assert receipt.position.offset == 2
        assert await mine.hears(3) == [1, 3]


async def test_the_log_moves_with_its_slot(valkey_cluster: ValkeyCluster, make_layer: MakeLayer) -> None:
    layer = make_layer(*valkey_cluster.hosts, cluster=True, groups=GROUPS)
    mine = await Member(layer).join("room")
    sends = [asyncio.ensure_future(layer.group_send("room", numbered(n))) for n in range(100)]
    await asyncio.gather(*sends)
    key = keys_of(layer)[0]
    home = valkey_cluster.node_of(key)
    away = next(server for server in valkey_cluster.primaries if server is not home)
    sends = [asyncio.ensure_future(layer.group_send("room", numbered(n))) for n in range(100, 200)]
    moving = asyncio.create_task(asyncio.to_thread(valkey_cluster.move_slot, valkey_cluster.slot_of(key), away))
    for n in range(200, 400):
        sends.append(asyncio.ensure_future(layer.group_send("room", numbered(n))))
        await asyncio.sleep(0.002)
    await moving
    receipts = await asyncio.gather(*sends)
    assert sorted(r.position.offset for r in receipts if r.position) == list(range(101, 401))
    await layer.group_send("room", numbered(1000))
    heard = await mine.hears(1000)
    assert heard == [*range(400), 1000]
    history = await layer.history("room")
    assert [publication.message["n"] for publication in history] == heard


async def test_a_digest_of_an_idempotency_key_is_all_that_the_server_sees(
    own_valkey: ValkeyServer, make_layer: MakeLayer
) -> None:
    layer = make_layer(own_valkey.url, groups=GROUPS)
    await layer.group_send("room", numbered(1), idempotency_key="card 4711 {x} *")
    keys = own_valkey.command("KEYS", "*")
    assert len(keys) == 3
    assert not any(b"4711" in key for key in keys)
    assert all(key.startswith(f"{layer.prefix}:a1:{{g:room}}".encode()) for key in keys)
    assert all(int(own_valkey.command("PTTL", key)) > 0 for key in keys)  # nothing stays for ever
