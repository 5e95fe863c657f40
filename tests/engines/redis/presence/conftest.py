"""Where the groups of a test are kept: every kind of server, and nodes with stores there."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from typing import Any

import pytest

from antiphon.engines.redis.bus import RedisBus
from antiphon.engines.redis.engine import RedisEngine
from antiphon.engines.redis.hosts import parse_hosts
from antiphon.engines.redis.presence import RedisPresence
from antiphon.testing.faults import ValkeyCluster
from tests.engines.redis.queue.readers import Sink
from tests.servers import *  # noqa: F403  # fixtures
from tests.waiting import until


@pytest.fixture(params=["valkey", "redis7", "cluster", "shards"])
def place(request: pytest.FixtureRequest) -> dict[str, Any]:
    """Options of a RedisBus."""
    if request.param == "cluster":
        cluster: ValkeyCluster = request.getfixturevalue("valkey_cluster")
        return {"hosts": cluster.hosts, "cluster": True}
    names = ["valkey", "redis7"] if request.param == "shards" else [request.param]
    return {"hosts": [request.getfixturevalue(name).url for name in names]}


@pytest.fixture
async def make_store(fresh_prefix: str) -> AsyncIterator[Any]:
    """Return a maker of stores, each with links of its own."""
    engines: list[RedisEngine] = []

    async def make(**options: Any) -> RedisPresence:
        options = {"prefix": fresh_prefix, "timeout_s": 5.0, **options}
        engine = RedisBus(parse_hosts(options.pop("hosts")), **options).node_engine()
        engine.attach(Sink(), asyncio.get_running_loop(), f"node{len(engines)}")
        engines.append(engine)
        await until(lambda: engine.links and all(link.up for link in engine.links))
        return RedisPresence(engine, engine.keys)

    yield make
    for engine in engines:
        await engine.close()


@pytest.fixture
async def store(make_store: Any, place: dict[str, Any]) -> RedisPresence:
    """Return a store at each kind of place in turn."""
    made: RedisPresence = await make_store(**place)
    return made
