"""Nodes of one test, on the memory engine and on Valkey."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Callable
from typing import Any, TypeAlias

import pytest

from antiphon.engines.base import PresenceStore
from antiphon.engines.memory.presence import MemoryPresence
from antiphon.engines.redis.bus import RedisBus
from antiphon.engines.redis.engine import RedisEngine
from antiphon.engines.redis.hosts import parse_hosts
from antiphon.engines.redis.presence import RedisPresence
from antiphon.testing.faults import ValkeyServer
from tests.engines.redis.queue.readers import Sink
from tests.layer.presence.house import Place, PresenceNode
from tests.servers import *  # noqa: F403  # fixtures
from tests.waiting import until

MakeNode: TypeAlias = Callable[..., Any]
Stores: TypeAlias = Callable[[ValkeyServer], Place]


@pytest.fixture
async def stores(fresh_prefix: str) -> AsyncIterator[Stores]:
    """Return, for a server, a maker of stores: each has links of its own."""
    engines: list[RedisEngine] = []

    def at(server: ValkeyServer) -> Place:
        async def place() -> PresenceStore:
            engine = RedisBus(parse_hosts([server.url]), prefix=fresh_prefix, timeout_s=2.0).node_engine()
            engine.attach(Sink(), asyncio.get_running_loop(), f"node{len(engines)}")
            engines.append(engine)
            await until(lambda: engine.links and all(link.up for link in engine.links))
            return RedisPresence(engine, engine.keys)

        return place

    yield at
    for engine in engines:
        await engine.close()


@pytest.fixture(params=["memory", "valkey"])
def place(request: pytest.FixtureRequest, stores: Stores) -> Place:
    """Where the groups of a test are kept."""
    if request.param == "valkey":
        return stores(request.getfixturevalue("valkey"))
    shared = MemoryPresence()

    async def memory() -> PresenceStore:
        return shared

    return memory


@pytest.fixture
async def node_at(stores: Stores) -> AsyncIterator[MakeNode]:
    """Return a maker of nodes at a place; all of them announce into one list."""
    nodes: list[PresenceNode] = []
    told: list[tuple[str, str, str]] = []

    async def make(place: Place, **options: Any) -> PresenceNode:
        nodes.append(PresenceNode(await place(), told, **options))
        return nodes[-1]

    yield make
    for node in nodes:
        await node.presence.close()


@pytest.fixture
def make(node_at: MakeNode, place: Place) -> MakeNode:
    """Return a maker of nodes, on each engine in turn."""

    async def make(**options: Any) -> PresenceNode:
        node: PresenceNode = await node_at(place, **options)
        return node

    return make
