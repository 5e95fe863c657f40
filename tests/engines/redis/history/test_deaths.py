"""Logs and the deaths of servers: nothing is missing while the log is there, and its loss is told."""

from __future__ import annotations

import asyncio
from contextlib import suppress

import pytest

from antiphon.exceptions import EngineUnavailable
from antiphon.layer.redis import RedisChannelLayer
from antiphon.testing.faults import Proxy, ValkeyServer
from antiphon.types import Position
from tests.engines.redis.history.members import GROUPS, Member
from tests.engines.redis.link.layers import MakeLayer, link_of, up
from tests.layer.members import numbered
from tests.waiting import eventually, until


async def send(layer: RedisChannelLayer, *numbers: int) -> list[Position]:
    found = []
    for n in numbers:
        position = (await layer.group_send("room", numbered(n))).position
        assert position is not None
        found.append(position)
    return found


async def test_a_server_that_keeps_its_log_dies_and_nothing_is_missing(make_layer: MakeLayer) -> None:
    with ValkeyServer(unix_socket=True, persist=True, appendfsync="always") as server:
        sending = make_layer(server.url, groups=GROUPS, publish_retry=20)
        hearing = make_layer(server.url, groups=GROUPS)
        mine = await Member(hearing).join("room")
        sent: list[int] = []

        async def keep_sending() -> None:
            for n in range(300):
                with suppress(EngineUnavailable):
                    await sending.group_send("room", numbered(n), idempotency_key=f"n{n}")
                    sent.append(n)

        task = asyncio.create_task(keep_sending())
        await until(lambda: len(sent) > 100)
        await asyncio.to_thread(server.kill)
        await asyncio.to_thread(server.start)
        await task
        await up(hearing)
        await send(sending, 1000)
        assert await mine.hears(1000) == [*sent, 1000]
        assert sent == list(range(300))
        history = await sending.history("room")
        assert [publication.message["n"] for publication in history] == [*sent, 1000]


async def test_a_position_from_before_the_restart_is_still_good(make_layer: MakeLayer) -> None:
    with ValkeyServer(unix_socket=True, persist=True, appendfsync="always") as server:
        layer = make_layer(server.url, groups=GROUPS)
        before = await send(layer, 1, 2, 3)
        await asyncio.to_thread(server.kill)
        await asyncio.to_thread(server.start)
        await up(layer)
        (after,) = await send(layer, 4)
        assert after.epoch != before[0].epoch
        assert after.offset == 4
        history = await layer.history("room", since=before[1])
        assert history.complete
        assert [publication.message["n"] for publication in history] == [3, 4]
        assert not (await layer.history("room", since=before[0]._replace(offset=4))).complete  # not of that epoch


async def test_a_server_that_comes_back_without_its_log_is_told_as_a_loss(make_layer: MakeLayer) -> None:
    with ValkeyServer(unix_socket=True) as server:
        layer = make_layer(server.url, groups=GROUPS)
        mine = await Member(layer).join("room")
        *_, last = await send(layer, 1, 2, 3)
        await mine.hears(3)
        await asyncio.to_thread(server.kill)
        await asyncio.to_thread(server.start)
        await up(layer)
        await send(layer, 4, 5)
        assert await mine.hears(5) == [1, 2, 3, "lost", 4, 5]
        assert mine.lost[0]["last"] == list(last)
        assert mine.lost[0]["group"] == "room"
        assert [loss.group for loss in layer.losses.recent if loss.kind == "group"] == ["room"]
        recovery = await mine.node.recover("g:room", mine.mailbox, last)
        assert not recovery.recovered
        assert recovery.position == await layer.position("room")


async def test_a_replica_that_lagged_behind_is_promoted(make_layer: MakeLayer) -> None:
    with ValkeyServer() as old, ValkeyServer() as new, Proxy(old) as proxy:
        layer = make_layer(proxy.url, groups=GROUPS)
        mine = await Member(layer).join("room")
        new.command("REPLICAOF", "127.0.0.1", str(old.port))
        kept = await send(layer, 1, 2, 3)
        log = f"{layer.prefix}:a1:{{g:room}}m"

        def has_all() -> bool:
            linked = new.info("replication")["master_link_status"] == "up"
            return linked and new.command("HGET", log, "s") == b"3"

        assert eventually(has_all)
        new.command("REPLICAOF", "NO", "ONE")
        gone = await send(layer, 4, 5)
        await mine.hears(5)
        attempts = link_of(layer).attempts
        old.kill()
        proxy.target = ("127.0.0.1", new.port)
        proxy.cut()
        await until(lambda: link_of(layer).attempts > attempts)
        await up(layer)
        (first, *_) = await send(layer, 6, 7)
        assert await mine.hears(7) == [1, 2, 3, 4, 5, "lost", 6, 7]
        assert first.offset == 4
        assert first.epoch != gone[0].epoch
        assert (await layer.history("room", since=kept[2])).complete
        assert not (await layer.history("room", since=gone[0])).complete  # what it has at 4 is another message


async def test_what_was_read_but_never_sent_on_is_read_again(make_layer: MakeLayer) -> None:
    with ValkeyServer() as server, Proxy(server) as proxy:
        sending = make_layer(server.url, groups=GROUPS)
        hearing = make_layer(proxy.url, groups=GROUPS, ping_interval_s=0.3)
        mine = await Member(hearing).join("room")
        await send(sending, 1)
        await mine.hears(1)
        proxy.black_hole(direction="down")
        await send(sending, *range(2, 400))
        proxy.cut()
        proxy.black_hole(False)
        await send(sending, 400)
        assert await mine.hears(400) == list(range(1, 401))
        assert [loss for loss in hearing.losses.recent if loss.kind == "group"] == []
        assert hearing.stats()["history"]["filled"] >= 398


async def test_the_last_message_before_a_silence_is_missed_by_nobody(
    make_layer: MakeLayer, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("antiphon.layer.logs.fill.CHECK_S", 0.2)
    with ValkeyServer() as server:
        layer = make_layer(server.url, groups=GROUPS)
        mine = await Member(layer).join("room")
        await send(layer, 1)
        await mine.hears(1)
        # As a server would that loses what it publishes: the log has a message that went to nobody.
        channel = f"{layer.prefix}:a1:{{g:room}}"
        payload = server.command("XRANGE", f"{channel}h", "-", "+")[0][1][1]
        server.command("HINCRBY", f"{channel}m", "s", "1")
        server.command("XADD", f"{channel}h", "2-0", "d", payload.replace(b"\xa1n\x01", b"\xa1n\x02"))
        assert await mine.hears(2) == [1, 2]
