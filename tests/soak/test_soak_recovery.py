"""The jitter test under faults at random: the engine keeps its log, so nobody loses anything, nor is told so.

SOAK_S: seconds; SOAK_SEED: which faults (printed, so that a run can be had again).
"""

from __future__ import annotations

import asyncio
import random
import sys
import time
from typing import Any

import pytest

from antiphon.layer.redis import RedisChannelLayer
from antiphon.layers import channel_layers
from antiphon.testing.faults import Proxy, ValkeyServer
from tests.faults.wanderers import (
    GROUPS,
    LOST,
    Publisher,
    Wanderer,
    account,
    all_heard,
    replace_server,
    rooms,
    wandering,
)
from tests.soak.test_soak_engines import SEED, SOAK_S, _quiet, one_fault

__all__ = ["_quiet"]  # the fixture of that module, for this one too

pytestmark = pytest.mark.soak
CLIENTS = 100
PAUSE_S = 0.02
# How often a server process is replaced.
REPLACED_S = 7.0


async def test_clients_that_come_and_go_lose_nothing_through_faults_at_random() -> None:
    print(f"\nseed {SEED}", file=sys.stderr)
    chance = random.Random(SEED)
    faults: list[str] = []
    options: dict[str, Any] = {"prefix": "soak", "groups": GROUPS, "ping_interval_s": 0.5, "timeout_s": 1.5}
    with ValkeyServer(binary="valkey", persist=True, appendfsync="always") as server, Proxy(server) as proxy:

        def new_layer(**more: Any) -> RedisChannelLayer:
            return RedisChannelLayer([proxy.url], **options, **more)

        for alias in ("first", "second"):
            channel_layers.set(alias, new_layer())
        publisher = Publisher(new_layer(publish_retry=5), PAUSE_S)
        wanderers = [Wanderer(rooms("first", "second"), chance, 4.0, 0.6) for _ in range(CLIENTS)]
        async with wandering(wanderers):
            sending = asyncio.create_task(publisher.send())
            end, replaced = time.monotonic() + SOAK_S, time.monotonic()
            while time.monotonic() < end:
                faults.append(await one_fault(chance, server, proxy))
                await asyncio.sleep(chance.choice((0.0, 0.1, 0.7, 1.5)))
                if time.monotonic() > replaced + REPLACED_S:
                    replaced = time.monotonic()
                    await replace_server(chance.choice(("first", "second")), new_layer(), wanderers)
            publisher.ends = True
            await sending
            await all_heard(wanderers, publisher.sent)
            stats = [channel_layers[alias].stats() for alias in ("first", "second")]
        for layer in (channel_layers["first"], channel_layers["second"], publisher.layer):
            await layer.close()
    told = sum(LOST in wanderer.heard for wanderer in wanderers)
    comebacks = sum(wanderer.comebacks for wanderer in wanderers)
    print(
        f"{publisher.sent:,} notes, {publisher.resent} of them again; {comebacks:,} comebacks, {told} told of a loss; "
        f"{[one['history'] for one in stats]}; {len(faults)} faults: {faults}",
        file=sys.stderr,
    )
    complaints = [(wanderer, wrong) for wanderer in wanderers if (wrong := account(wanderer.heard, publisher.sent))]
    assert not complaints
    assert told == 0
