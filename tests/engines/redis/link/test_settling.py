"""A server that comes back: what waited for it waits a moment longer, for the other nodes, and never in vain."""

from __future__ import annotations

import asyncio
import time

import pytest

from antiphon.engines.redis import link as links
from antiphon.layer.redis import RedisChannelLayer
from antiphon.testing.faults import Proxy, ValkeyServer
from tests.engines.redis.link.layers import MakeLayer, down, heard, link_of, member
from tests.waiting import FOR_EVER_S, until


def send(layer: RedisChannelLayer, n: int) -> asyncio.Future[int | None]:
    async def sent() -> int | None:
        return (await layer.group_send("room", {"type": "t", "n": n})).nodes

    return asyncio.ensure_future(sent())


def clients_come_and_go(server: ValkeyServer, count: int) -> None:
    """Have a server count clients, as one that has run for a while has."""
    for _ in range(count):
        server.command("PING")
        server._client.close()


@pytest.mark.parametrize("clients_since", [0, 100])
async def test_what_waited_for_a_restarted_server_waits_for_the_other_nodes_too(
    own_valkey: ValkeyServer, make_layer: MakeLayer, monkeypatch: pytest.MonkeyPatch, clients_since: int
) -> None:
    monkeypatch.setattr(links, "BACKOFF_S", (0.02, 0.02))  # the others need not their longest pause
    monkeypatch.setattr(links, "SETTLE_S", 2.0)
    clients_come_and_go(own_valkey, 50)
    with Proxy(own_valkey.url) as proxy:
        sender, receiver = make_layer(own_valkey.url), make_layer(proxy.url)
        channel = await member(receiver, "room")
        assert await send(sender, 0) == 1
        own_valkey.kill()
        await asyncio.gather(down(sender), down(receiver))
        proxy.refuse()
        waiting = [send(sender, n) for n in range(1, 4)]
        await asyncio.sleep(0.05)
        own_valkey.restart()
        clients_come_and_go(own_valkey, clients_since)  # others may have been faster
        await until(lambda: link_of(sender).up)
        assert not link_of(receiver).up
        waiting.append(send(sender, 4))  # in line behind the others, though the link is up
        proxy.refuse(False)
        assert await asyncio.gather(*waiting) == [1] * 4  # none was published to nobody
        assert await heard(receiver, channel) == [0, 1, 2, 3, 4]


async def test_what_waited_for_a_connection_that_broke_waits_no_longer(
    valkey: ValkeyServer, make_layer: MakeLayer, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(links, "SETTLE_S", FOR_EVER_S)
    with Proxy(valkey.url) as proxy:
        sender, receiver = make_layer(proxy.url, timeout_s=FOR_EVER_S), make_layer(valkey.url)
        channel = await member(receiver, "room")
        assert await asyncio.wait_for(send(sender, 0), 30) == 1  # nor does the first connection
        for n in (1, 2):
            proxy.refuse()
            proxy.cut()
            await down(sender)
            waiting = send(sender, n)
            await asyncio.sleep(0.05)
            proxy.refuse(False)
            await until(lambda: link_of(sender).up)
            assert await asyncio.wait_for(waiting, 30) == 1
        assert await heard(receiver, channel) == [0, 1, 2]
        assert receiver.losses.count == 0


async def test_no_publish_fails_because_it_waited_for_other_nodes(
    own_valkey: ValkeyServer, make_layer: MakeLayer, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(links, "SETTLE_S", FOR_EVER_S)
    clients_come_and_go(own_valkey, 50)
    layer = make_layer(own_valkey.url, timeout_s=2.5)
    channel = await member(layer, "room")
    own_valkey.kill()
    await down(layer)
    sent_s = time.monotonic()
    waiting = [send(layer, n) for n in range(3)]
    await asyncio.sleep(0)
    own_valkey.restart()
    assert await asyncio.gather(*waiting) == [1] * 3
    assert time.monotonic() - sent_s > 2.0  # they waited as long as they could
    assert link_of(layer)._publishing is link_of(layer).connection  # what comes later does not wait at all
    assert await send(layer, 3) == 1
    assert await heard(layer, channel) == [0, 1, 2, 3]


async def test_a_connection_that_breaks_while_publishes_wait_for_other_nodes_gets_none_of_them(
    own_valkey: ValkeyServer, make_layer: MakeLayer, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(links, "SETTLE_S", 1.0)
    clients_come_and_go(own_valkey, 50)
    receiver = make_layer(own_valkey.url)
    with Proxy(own_valkey.url) as proxy:
        sender = make_layer(proxy.url)
        channel = await member(receiver, "room")
        assert await send(sender, 0) == 1
        own_valkey.kill()
        await asyncio.gather(down(sender), down(receiver))
        waiting = [send(sender, n) for n in range(1, 4)]
        await asyncio.sleep(0)
        own_valkey.restart()
        await until(lambda: link_of(sender).up and link_of(receiver).up)
        proxy.refuse()
        proxy.cut()
        await down(sender)
        await asyncio.sleep(1.1)  # the wait for the others ends while there is no connection
        proxy.refuse(False)
        assert await asyncio.gather(*waiting) == [1] * 3
        assert await heard(receiver, channel) == [0, 1, 2, 3]
