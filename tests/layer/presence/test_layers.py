"""Presence as a layer's callers see it, on real servers: two layers stand for two processes."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import AsyncIterator, Callable
from typing import Any, TypeAlias

import pytest

from antiphon.layer.mailbox import Mailbox
from antiphon.layers import RedisChannelLayer
from antiphon.names import group_topic
from antiphon.testing.faults import ValkeyCluster, ValkeyServer
from tests.layer.presence.house import becomes

GROUPS = {
    "room": {"presence": True, "presence_grace_s": 600},
    "log": {"presence": True, "presence_grace_s": 0, "history_size": 50},
}
MakeLayer: TypeAlias = Callable[..., RedisChannelLayer]


@pytest.fixture
async def make_layer(fresh_prefix: str) -> AsyncIterator[MakeLayer]:
    """Return a maker of layers that are one project's."""
    made: list[RedisChannelLayer] = []

    def make(hosts: Any, **options: Any) -> RedisChannelLayer:
        made.append(RedisChannelLayer(hosts, prefix=fresh_prefix, groups=GROUPS, **options))
        return made[-1]

    yield make
    for layer in made:
        await layer.close()


@pytest.fixture(params=["valkey", "cluster"])
def layers(request: pytest.FixtureRequest, make_layer: MakeLayer) -> tuple[RedisChannelLayer, RedisChannelLayer]:
    """Two layers, on one server and on a cluster in turn."""
    if request.param == "cluster":
        cluster: ValkeyCluster = request.getfixturevalue("valkey_cluster")
        return make_layer(cluster.hosts, cluster=True), make_layer(cluster.hosts, cluster=True)
    server: ValkeyServer = request.getfixturevalue("valkey")
    return make_layer([server.url]), make_layer([server.url])


async def member(layer: RedisChannelLayer, user: str, *groups: str) -> Mailbox:
    """Let a connection of a user join groups; it listens for who comes and goes."""
    node, mailbox = layer.open_mailbox("Chat", capacity=None, overflow=None)
    node.hub.identify(mailbox, user, None)
    mailbox.wants = frozenset({"presence.join", "presence.leave"})
    mailbox.info_of = lambda group: {"name": f"user {user}", "of": group}
    for group in groups:
        await node.join(group_topic(group), mailbox)
    return mailbox


async def heard(layer: RedisChannelLayer, mailbox: Mailbox, count: int) -> list[tuple[str, str]]:
    """Wait for so many announcements: (what, who), sorted."""
    found: list[tuple[str, str]] = []
    async with asyncio.timeout(30):
        while len(found) < count:
            message = await layer.receive(mailbox.channel)
            found += [(message["type"].partition(".")[2], each["user"]) for each in message["users"]]
    return sorted(found)


async def test_the_members_of_all_processes_are_seen_from_each(
    layers: tuple[RedisChannelLayer, RedisChannelLayer],
) -> None:
    here, there = layers
    listening = await member(here, "1", "room", "log")
    other = await member(there, "2", "room", "log")
    await member(there, "2", "room")
    for layer in layers:
        seen = await layer.presence("room")
        assert sorted((each.user, each.info["name"]) for each in seen) == [
            ("1", "user 1"),
            ("2", "user 2"),
            ("2", "user 2"),
        ]
        assert await layer.presence_stats("room") == (3, 2)
        assert await layer.presence_stats("log") == (2, 2)
        assert await layer.online(["1", "2", "3"]) == ["1", "2"]
    assert (here.stats()["presence_members"], there.stats()["presence_members"]) == (2, 3)
    there._node().leave(group_topic("log"), other)
    told = await heard(here, listening, 5)
    assert told == [("join", "1"), ("join", "1"), ("join", "2"), ("join", "2"), ("leave", "2")]
    assert await here.presence_stats("log") == (1, 1)


async def test_who_comes_back_to_another_process_after_a_replacement_has_not_left(
    layers: tuple[RedisChannelLayer, RedisChannelLayer],
) -> None:
    here, there = layers
    listening = await member(here, "1", "room")
    await member(there, "2", "room")
    await there.close()

    async def away() -> list[tuple[str | None, bool]]:
        return sorted((each.user, each.away) for each in await here.presence("room"))

    await becomes(away, [("1", False), ("2", True)])
    assert await here.presence_stats("room") == (1, 2)
    await member(here, "2", "room")
    await member(here, "3", "room")
    assert await heard(here, listening, 3) == [("join", "1"), ("join", "2"), ("join", "3")]


async def test_a_server_that_comes_back_with_nothing_is_told_who_is_there_at_once(
    own_valkey: ValkeyServer, make_layer: MakeLayer, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level(logging.CRITICAL, "antiphon")
    layer = make_layer([own_valkey.url])
    presence = layer._node().presence
    assert presence is not None
    presence.lease_s = 86400.0  # its renewal finds out too: not in this test
    await member(layer, "1", "room")
    for _ in range(10):  # what it asks the server at its start is through before these are
        assert await layer.presence_stats("room") == (1, 1)
    await asyncio.to_thread(own_valkey.kill)
    await asyncio.to_thread(own_valkey.start)
    await becomes(lambda: layer.presence_stats("room"), (1, 1))
