"""Messages that arrive when later ones of their sender are here: order holds, and the gap is told."""

from __future__ import annotations

import asyncio
import time

from antiphon.envelope import MESSAGE, pack
from antiphon.testing.faults import ValkeyServer
from tests.engines.redis.link.layers import MakeLayer, heard, lost, member


async def test_what_comes_after_later_ones_is_dropped_and_told_once(
    valkey: ValkeyServer, make_layer: MakeLayer
) -> None:
    layer = make_layer(valkey.url)
    channel = await member(layer, "room")
    began_s = time.time()

    def publish(n: int, sent_s: float) -> None:
        body = layer.encode({"type": "t", "n": n})
        topic = f"{layer.prefix}:a1:{{g:room}}"
        assert valkey.command("PUBLISH", topic, pack(MESSAGE, 7, n, int(sent_s * 1e6), body)) == 1

    for n in (1, 5, 6, 2, 3, 7):
        await asyncio.to_thread(publish, n, began_s + 3600 if n == 3 else began_s - 10 + n)
    await lost(layer)
    assert await heard(layer, channel) == [1, 5, 6, 7]
    [loss] = layer.losses.recent
    assert loss.group == "room"
    assert abs(loss.since - (began_s - 8)) < 0.001
    assert loss.until >= began_s
