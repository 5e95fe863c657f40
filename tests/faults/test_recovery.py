"""The jitter test, small: clients whose network comes and goes, while the engine is killed and a server is replaced."""

from __future__ import annotations

import asyncio
import random

import pytest

from antiphon.layers import channel_layers
from antiphon.testing.faults import ValkeyServer
from tests.consumers.client import until
from tests.faults.ledger import FULL, Opened, span
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

CLIENTS = 100 if FULL else 20
NOTES = 400 if FULL else 80
PAUSE_S = 0.04


@pytest.mark.parametrize("kept", [True, False])
async def test_clients_that_come_and_go_get_every_note_once_or_are_told(open_layer: Opened, kept: bool) -> None:
    with ValkeyServer(binary="valkey", unix_socket=True, persist=kept, appendfsync="always") as server:
        for alias in ("first", "second"):
            channel_layers.set(alias, open_layer(server.url, groups=GROUPS))
        publisher = Publisher(open_layer(server.url, groups=GROUPS, publish_retry=10), PAUSE_S)
        seed = random.randrange(1_000_000)
        chance = random.Random(seed)
        wanderers = [Wanderer(rooms("first", "second"), chance, 1.0, 0.3) for _ in range(CLIENTS)]
        async with wandering(wanderers):
            sending = asyncio.create_task(publisher.send(NOTES))
            await until(lambda: publisher.sent >= NOTES // 4)
            await asyncio.to_thread(server.kill)
            await asyncio.sleep(span(1, 0.3))
            await asyncio.to_thread(server.restart)
            await until(lambda: publisher.sent >= NOTES // 2)
            await replace_server("first", open_layer(server.url, groups=GROUPS), wanderers)
            await sending
            await all_heard(wanderers, NOTES)
        complaints = [(wanderer, wrong) for wanderer in wanderers if (wrong := account(wanderer.heard, NOTES))]
        assert not complaints, f"seed {seed}"
        assert any(wanderer.comebacks for wanderer in wanderers)
        told = [wanderer for wanderer in wanderers if LOST in wanderer.heard]
        assert len(told) == (0 if kept else CLIENTS), f"seed {seed}"
