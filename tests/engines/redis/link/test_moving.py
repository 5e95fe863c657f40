"""A primary that has moved: what is lost includes what others publish on the old one until they hear of it."""

from __future__ import annotations

import asyncio
import time

import pytest

from antiphon.testing.faults import ValkeySentinel
from tests.engines.redis.link.layers import MakeLayer, link_of, lost, member, up
from tests.waiting import until


@pytest.mark.xdist_group("sentinel")
async def test_a_loss_is_told_when_the_last_sender_has_moved_too(
    valkey_sentinel: ValkeySentinel, make_layer: MakeLayer
) -> None:
    layer = make_layer(*valkey_sentinel.hosts, timeout_s=5.0)
    await member(layer, "room")
    await up(layer)
    before = link_of(layer).address
    try:
        await asyncio.to_thread(valkey_sentinel.failover, "command")
        await until(lambda: link_of(layer).up and link_of(layer).address != before)
        moved_s = time.time() - (time.monotonic() - link_of(layer)._moved_s)
        await lost(layer)
    finally:
        await asyncio.to_thread(valkey_sentinel.heal)
    [loss] = [loss for loss in layer.losses.recent if loss.group == "room"]
    assert loss.since < moved_s
    # A thread looks for the primary once a second.
    assert loss.until >= moved_s + 1.0
