"""Whatever a client sends, its consumer answers by the tables, ends it by the tables, and lets no exception out."""

from __future__ import annotations

import json
import os
import random
import time
from typing import Any

import pytest

from antiphon.layers import InMemoryChannelLayer
from antiphon.wire.centrifuge import tables
from antiphon.wire.codes import REASONS
from tests.consumers.client import until
from tests.subscriptions.speaking import Open, speaker
from tests.unit.centrifuge_frames import frame

ERRORS = {error.code for error in tables.ERRORS.values()}
CODES = {why.code for why in tables.DISCONNECTS.values()} | {codes.centrifuge for codes in REASONS.values()}


class Strict(Open):
    """Takes one of everything that a client may do."""

    max_subscriptions = 3

    async def rpc_a(self, data: Any) -> Any:
        """Answer what was sent."""
        return data


@pytest.mark.filterwarnings("error")
async def test_no_frame_brings_anything_else_to_light(
    layer: InMemoryChannelLayer, caplog: pytest.LogCaptureFixture
) -> None:
    seed = int(os.environ.get("FUZZ_SEED", time.time_ns()))
    print(f"FUZZ_SEED={seed}")
    rng = random.Random(seed)
    for _ in range(100):
        async with speaker(Strict) as one:
            await one.begin()
            for _ in range(10):
                sent = frame(rng)
                one.put({"type": "websocket.receive", **({"text": sent} if isinstance(sent, str) else {"bytes": b""})})
            one.vanish()
            await one.ended()
        for event in one.events[1:]:
            if event["type"] == "websocket.close":
                assert event["code"] in CODES
                continue
            for line in event["text"].split("\n"):
                said = json.loads(line)
                assert "error" not in said or said["error"]["code"] in ERRORS
    await until(lambda: layer.stats()["groups"] == 0)
    assert [record for record in caplog.records if record.exc_info] == []
