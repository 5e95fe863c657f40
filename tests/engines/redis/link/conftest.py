"""Layers of one test over real servers, and what its loop complains of."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from typing import Any

import pytest

from antiphon.layer.redis import RedisChannelLayer
from tests.engines.redis.link.layers import MakeLayer


@pytest.fixture
async def make_layer(fresh_prefix: str) -> AsyncIterator[MakeLayer]:
    layers: list[RedisChannelLayer] = []

    def make(*urls: str, **options: Any) -> RedisChannelLayer:
        given: dict[str, Any] = {"ping_interval_s": 2.0, "timeout_s": 3.0, "prefix": fresh_prefix} | options
        layer = RedisChannelLayer(hosts=list(urls), **given)
        layers.append(layer)
        return layer

    yield make
    for layer in layers:
        await layer.close()


@pytest.fixture
async def loop_errors() -> AsyncIterator[list[dict[str, Any]]]:
    """What nobody retrieved, and what was destroyed while pending."""
    found: list[dict[str, Any]] = []
    loop = asyncio.get_running_loop()
    loop.set_exception_handler(lambda _, context: found.append(context))
    yield found
    loop.set_exception_handler(None)
