"""A message whose handler failed comes again after a pause, which holds up nothing else."""

from __future__ import annotations

import time
from typing import Any

from antiphon.consumers.worker import Worker
from antiphon.layers import InMemoryChannelLayer, channel_layers
from tests.consumers.client import until
from tests.consumers.test_worker import working


def failing(seen: list[tuple[int, int, float]]) -> Any:
    async def app(scope: Any, receive: Any, send: Any) -> None:
        message = await receive()
        seen.append((message["n"], scope["antiphon.delivery"].count, time.monotonic()))
        if message["n"] == 0:
            raise LookupError

    return app


async def test_a_message_that_fails_waits_longer_each_time_and_others_do_not_wait_for_it() -> None:
    seen: list[tuple[int, int, float]] = []
    layer = InMemoryChannelLayer()
    channel_layers.set("default", layer)
    async with working(Worker(failing(seen), ["jobs"], layer, retry_pause_s=0.3)):
        for n in range(4):
            await layer.send("jobs", {"type": "job", "n": n})
        await until(lambda: len(seen) == 6)
    assert [(n, count) for n, count, _ in seen] == [(0, 1), (1, 1), (2, 1), (3, 1), (0, 2), (0, 3)]
    times = [at for n, _, at in seen if n == 0]
    assert times[1] - times[0] >= 0.3
    assert times[2] - times[1] >= 0.9


async def test_what_is_kept_when_the_worker_ends_is_given_back_at_once() -> None:
    seen: list[tuple[int, int, float]] = []
    layer = InMemoryChannelLayer()
    channel_layers.set("default", layer)
    worker = Worker(failing(seen), ["jobs"], layer, retry_pause_s=60)
    async with working(worker):
        await layer.send("jobs", {"type": "job", "n": 0})
        await until(lambda: worker._kept)
    async with await layer.lease("jobs") as lease:
        assert lease.delivery_count == 2
