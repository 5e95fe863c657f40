"""What the tests of the links do with a layer over Redis: join, hear, wait until it is up or down, cut it off."""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import Callable
from typing import Any, TypeAlias

from antiphon.engines.redis.link import Link
from antiphon.layer.redis import RedisChannelLayer
from antiphon.testing.faults import ValkeyServer
from tests.waiting import until

MakeLayer: TypeAlias = Callable[..., RedisChannelLayer]


async def member(layer: RedisChannelLayer, group: str) -> str:
    channel = await layer.new_channel()
    await layer.group_add(group, channel)
    return channel


async def heard(layer: RedisChannelLayer, channel: str, wait_s: float = 0.3) -> list[Any]:
    """Everything that comes until it is quiet for ``wait_s``, and what was on its way then on a busy machine."""
    found: list[Any] = []
    for _ in range(2):
        with contextlib.suppress(TimeoutError):
            while True:
                found.append((await asyncio.wait_for(layer.receive(channel), wait_s)).get("n"))
        # What was published before is read before the answer to this question: both come on one connection.
        await layer.health()
        wait_s = 0.05
    return found


def link_of(layer: RedisChannelLayer) -> Link:
    [node] = layer._nodes.values()
    [link] = node.engine.links  # type: ignore[attr-defined]  # a RedisEngine
    assert isinstance(link, Link)
    return link


async def up(layer: RedisChannelLayer, limit_s: float = 30.0) -> None:
    async with asyncio.timeout(limit_s):
        while not (await layer.health())["ok"]:  # noqa: ASYNC110  # nothing tells
            await asyncio.sleep(0.02)


async def down(layer: RedisChannelLayer, limit_s: float = 30.0) -> None:
    await until(lambda: not layer.stats()["links"]["up"], limit_s)


async def lost(layer: RedisChannelLayer, limit_s: float = 30.0) -> None:
    await until(lambda: layer.losses.count, limit_s)


def cut(server: ValkeyServer) -> None:
    for kind in ("normal", "pubsub"):
        server.command("CLIENT", "KILL", "TYPE", kind)
