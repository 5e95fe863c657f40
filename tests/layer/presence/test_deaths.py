"""Nodes that die, end, stand still, or lose their engine: who leaves, and who is told of it."""

from __future__ import annotations

import asyncio
import logging

import pytest

from antiphon.testing.faults import ChildProcess, Peer, ValkeyServer
from tests.layer.presence.conftest import MakeNode, Stores
from tests.layer.presence.house import PresenceNode, becomes
from tests.waiting import until


async def test_the_members_of_a_dead_node_are_hidden_then_leave_and_are_told_once(make: MakeNode) -> None:
    others = [await make() for _ in range(3)]
    dead = await make()
    for n in range(30):
        await dead.enters("g", f"{n}")
    await dead.enters("g", "both")
    await others[0].enters("g", "both")
    await dead.enters("long_g", "patient")
    await dead.die()
    # Its connections are gone; whose grace runs is there.
    assert await others[0].rosters.stats("g") == (1, 31)
    assert sum(member.away for member in await others[0].rosters.roster("g")) == 31
    await asyncio.gather(*(node.looks(lambda: len(dead.left()) >= 30) for node in others))
    assert await others[1].rosters.stats("g") == (1, 1)
    assert await others[1].users("g") == ["both"]
    assert await others[1].rosters.stats("long_g") == (0, 1)
    for node in others:
        await node.presence.close()  # what any of them had begun has ended
    assert dead.left() == sorted(f"{n}" for n in range(30))
    assert dead.left("long_g") == []


async def test_who_comes_back_elsewhere_before_a_dead_node_is_swept_has_not_left(make: MakeNode) -> None:
    here, dead = await make(), await make()
    for user in ("back", "gone"):
        await dead.enters("g", user)
    await dead.die()
    await here.enters("g", "back")
    await here.looks(here.left)
    assert here.left() == ["gone"]
    assert here.told.count(("join", "g", "back")) == 1


async def test_a_deploy_makes_no_noise(make: MakeNode) -> None:
    old, new = await make(), await make()
    mailboxes = {user: await old.enters("long_g", user) for user in ("1", "2", "3")}
    # One socket ends before the lease does, of the others nobody says that they ended.
    old.presence.exit("long_g", mailboxes["1"])
    await old.presence.close()
    assert await new.rosters.stats("long_g") == (0, 3)
    assert [member.away for member in await new.rosters.roster("long_g")] == [True] * 3
    for user in mailboxes:
        await new.enters("long_g", user)
    assert await new.rosters.stats("long_g") == (3, 3)
    assert await new.store.finish("long_g", 10) == ([], None)
    assert old.told == [("join", "long_g", user) for user in mailboxes]


async def test_who_does_not_come_back_after_a_drain_leaves_when_the_grace_is_over(make: MakeNode) -> None:
    old, new = await make(), await make()
    for user in ("back", "gone"):
        await old.enters("g", user)
    await old.presence.close()
    await new.enters("g", "back")
    await new.looks(new.left)
    assert new.left() == ["gone"]
    await becomes(lambda: new.rosters.online(["back", "gone"]), ["back"])


async def test_the_grace_of_a_node_that_died_in_it_is_ended_by_another(make: MakeNode) -> None:
    here, dead = await make(), await make()
    mailbox = await dead.enters("g", "7")
    dead.presence.exit("g", mailbox)
    await until(lambda: not dead.presence._waiting)
    await dead.die()
    await here.looks(here.left)
    assert here.left() == ["7"]


async def test_a_node_that_stood_still_for_too_long_comes_back_under_another_name(
    make: MakeNode, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level(logging.CRITICAL, "antiphon")
    here, still = await make(), await make()
    mailbox = await still.enters("g", "7")
    await here.enters("g", "8")
    name, renew = still.presence.node, still.store.renew
    standing, free = asyncio.Event(), asyncio.Event()

    async def held(node: str, ttl_s: float) -> object:
        if node == name:
            standing.set()
            await free.wait()
        return await renew(node, ttl_s)

    monkeypatch.setattr(still.store, "renew", held)
    still.presence.check()
    await standing.wait()
    await renew(name, 0.0)
    await here.looks(here.left)
    assert await here.rosters.stats("g") == (1, 1)
    free.set()
    await becomes(lambda: here.rosters.stats("g"), (2, 2))
    assert still.presence.node != name
    await until(lambda: still.told.count(("join", "g", "7")) == 2)
    still.presence.exit("g", mailbox)
    await until(lambda: here.left() == ["7", "7"])


async def test_one_that_stood_still_and_was_not_swept_yet_makes_no_noise(make: MakeNode) -> None:
    here, still = await make(), await make()
    await still.enters("long_g", "7")
    await still.store.renew(still.presence.node, 0.0)
    assert await here.rosters.stats("long_g") == (0, 1)
    still.presence.check()
    await becomes(lambda: here.rosters.stats("long_g"), (1, 1))
    assert still.told == [("join", "long_g", "7")]


async def test_an_engine_that_forgets_everything_is_told_again_and_nobody_hears_of_it(
    own_valkey: ValkeyServer, node_at: MakeNode, stores: Stores, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level(logging.CRITICAL, "antiphon")
    place = stores(own_valkey)
    here, there = await node_at(place), await node_at(place)
    for user in ("1", "2"):
        await here.enters("g", user)
    last = await there.enters("g", "2")
    away = await there.enters("long_g", "away")
    there.presence.exit("long_g", away)
    await until(lambda: not there.presence._waiting)
    own_valkey.command("FLUSHALL")
    for node in (here, there):
        node.presence.check()
    await becomes(lambda: here.rosters.stats("g"), (3, 2))
    await becomes(lambda: here.rosters.stats("long_g"), (0, 1))  # whose grace runs is there again, too
    await becomes(lambda: here.rosters.online(["1", "2"]), ["1", "2"])
    there.presence.exit("g", last)
    await becomes(lambda: here.rosters.stats("g"), (2, 2))
    assert here.told == [("join", "g", "1"), ("join", "g", "2"), ("join", "long_g", "away")]


async def test_who_goes_while_an_engine_restarts_with_nothing_is_told_of(
    own_valkey: ValkeyServer, node_at: MakeNode, stores: Stores, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level(logging.CRITICAL, "antiphon")
    place = stores(own_valkey)
    here, there = await node_at(place), await node_at(place)
    await here.enters("g", "1")
    gone = await there.enters("g", "gone")
    await there.enters("g", "2")
    await asyncio.to_thread(own_valkey.kill)
    there.presence.exit("g", gone)
    await asyncio.to_thread(own_valkey.start)
    here.presence.check()
    await until(here.left)
    await becomes(lambda: here.rosters.stats("g"), (2, 2))
    assert here.told == [("join", "g", "1"), ("join", "g", "gone"), ("join", "g", "2"), ("leave", "g", "gone")]


async def test_what_a_server_lost_in_part_is_found_and_mended(
    node_at: MakeNode, stores: Stores, valkey: ValkeyServer, fresh_prefix: str, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level(logging.CRITICAL, "antiphon")
    here = await node_at(stores(valkey))
    for user in ("1", "2"):
        await here.enters("g", user)
    # As a shard that was emptied, or a replica that had not heard of it: the leases are elsewhere.
    for key in valkey.command("KEYS", f"{fresh_prefix}:a1:{{p:g}}:*"):
        valkey.command("DEL", key)
    assert await here.rosters.stats("g") == (0, 0)
    here.presence.check()
    await becomes(lambda: here.rosters.stats("g"), (2, 2))
    assert here.told == [("join", "g", "1"), ("join", "g", "2")]


async def test_a_node_waits_for_an_engine_that_is_away_and_brings_everything_later(
    own_valkey: ValkeyServer, node_at: MakeNode, stores: Stores, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level(logging.CRITICAL, "antiphon")
    here = await node_at(stores(own_valkey))
    first = await here.enters("g", "1")
    await asyncio.to_thread(own_valkey.kill)
    entering = here.presence.enter("g", here.connection("2"))
    here.presence.exit("g", first)
    await asyncio.to_thread(own_valkey.start)
    await entering
    await until(here.left)
    assert sorted(here.told) == [("join", "g", "1"), ("join", "g", "2"), ("leave", "g", "1")]
    await becomes(lambda: here.rosters.stats("g"), (1, 1))


async def inhabit(peer: Peer, url: str, prefix: str) -> None:
    """Be a process with members, until it is killed."""
    from antiphon.engines.redis.bus import RedisBus
    from antiphon.engines.redis.hosts import parse_hosts
    from antiphon.engines.redis.presence import RedisPresence
    from tests.engines.redis.queue.readers import Sink

    engine = RedisBus(parse_hosts([url]), prefix=prefix).node_engine()
    engine.attach(Sink(), asyncio.get_running_loop(), "child")
    node = PresenceNode(RedisPresence(engine, engine.keys), [], lease_s=2.0)
    entered = [node.presence.enter("g", node.connection(f"{n}")) for n in range(500)]
    await asyncio.gather(*entered)
    peer.send("entered")
    await asyncio.Event().wait()


async def test_the_members_of_a_killed_process_leave_and_are_told_once(
    node_at: MakeNode, stores: Stores, valkey: ValkeyServer, fresh_prefix: str
) -> None:
    # One that looks by itself, often enough; the other one only when it is told to.
    here, there = await node_at(stores(valkey), lease_s=1.0), await node_at(stores(valkey))
    await here.enters("g", "499")
    child = ChildProcess(inhabit, valkey.url, fresh_prefix)
    try:
        await asyncio.to_thread(child.start)
        assert await child.receive_async() == "entered"
        await becomes(lambda: there.rosters.stats("g"), (501, 500))
        await asyncio.to_thread(child.kill)
    finally:
        await asyncio.to_thread(child.close)
    await until(lambda: len(here.left()) >= 499)
    await becomes(lambda: there.rosters.stats("g"), (1, 1))
    assert here.left() == sorted(f"{n}" for n in range(499))
    assert len(here.messages) < 100  # many at once are few messages


async def test_the_first_node_of_a_new_life_clears_away_what_the_last_one_left(make: MakeNode) -> None:
    last = await make()
    await last.enters("g", "7")
    await last.presence.close()
    first = await make()
    await until(first.left)
    assert await first.rosters.stats("g") == (0, 0)
