"""Where the queues of a test are, and nodes that read them."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from typing import Any

import pytest

from antiphon.engines.redis.bus import RedisBus
from antiphon.engines.redis.engine import RedisEngine
from antiphon.engines.redis.hosts import parse_hosts
from antiphon.testing.faults import ValkeyCluster, ValkeyServer
from tests.engines.redis.queue.readers import Make, Sink
from tests.waiting import until


@pytest.fixture(params=["valkey", "redis7", "cluster", "shards"])
def place(request: pytest.FixtureRequest) -> dict[str, Any]:
    """Where the queues are: options of a RedisBus."""
    if request.param == "cluster":
        cluster: ValkeyCluster = request.getfixturevalue("valkey_cluster")
        return {"hosts": cluster.hosts, "cluster": True}
    names = ["valkey", "redis7"] if request.param == "shards" else [request.param]
    return {"hosts": [request.getfixturevalue(name).url for name in names]}


@pytest.fixture
async def make(fresh_prefix: str) -> AsyncIterator[Make]:
    """Return a maker of nodes, each with links of its own."""
    engines: list[RedisEngine] = []

    async def make(place: dict[str, Any] | ValkeyServer, **options: Any) -> RedisEngine:
        where = place if isinstance(place, dict) else {"hosts": [place.url]}
        options = {"prefix": fresh_prefix, "timeout_s": 3.0, **where, **options}
        engine = RedisBus(parse_hosts(options.pop("hosts")), **options).node_engine()
        engine.attach(Sink(), asyncio.get_running_loop(), f"node{len(engines)}")
        engines.append(engine)
        await until(lambda: engine.links and all(link.up for link in engine.links))
        return engine

    yield make
    for engine in engines:
        await engine.close()
