"""A cluster whose map nobody can read: what is not done says why, and the log says it once."""

from __future__ import annotations

import asyncio
import logging

import pytest

from antiphon.exceptions import EngineUnavailable
from antiphon.testing.faults import ValkeyServer
from antiphon.testing.faults.valkey import free_port
from tests.engines.redis.link.layers import MakeLayer

HELLO = {"type": "hello"}


@pytest.mark.parametrize("clustered", [False, None], ids=["no cluster", "nobody"])
async def test_an_error_says_why_there_is_no_map(
    valkey: ValkeyServer, make_layer: MakeLayer, caplog: pytest.LogCaptureFixture, clustered: bool | None
) -> None:
    url = f"redis://127.0.0.1:{free_port()}" if clustered is None else valkey.tcp_url
    cause = "Connect" if clustered is None else "cluster support disabled"
    layer = make_layer(url, cluster=True, timeout_s=0.3)
    with caplog.at_level(logging.WARNING):
        channel = await layer.new_channel()
        with pytest.raises(EngineUnavailable, match=cause):
            await layer.group_send("room", HELLO)
        with pytest.raises(EngineUnavailable, match=cause):
            await layer.group_add("room", channel)
        with pytest.raises(EngineUnavailable, match=cause):
            await layer.send("jobs", HELLO)
        health = await layer.health()
        await asyncio.sleep(1)  # it goes on trying
    assert not health["ok"]
    [link] = health["links"]
    assert link["name"] == "cluster"
    assert not link["up"]
    assert cause in link["reason"]
    assert sum("map cannot be read" in record.message for record in caplog.records) == 1


async def test_nobody_is_told_of_a_close_while_the_map_is_looked_for_again(make_layer: MakeLayer) -> None:
    layer = make_layer(f"redis://127.0.0.1:{free_port()}", cluster=True, timeout_s=0.3)
    await layer.new_channel()
    [node] = layer._nodes.values()
    while (router := node.engine._router) is None:  # type: ignore[attr-defined]  # noqa: ASYNC110  # a RedisEngine; nothing tells
        await asyncio.sleep(0)
    while not router._task.cancelling():  # noqa: ASYNC110  # the turn in which its limit is over
        await asyncio.sleep(0)
    with pytest.raises(EngineUnavailable, match="Connect"):
        await layer.group_send("room", HELLO)
