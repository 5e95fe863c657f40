"""What runs in other processes: functions for ``ChildProcess``. Each opens a layer of its own and reports in JSON."""

from __future__ import annotations

import asyncio
import json
import logging
import time
from dataclasses import asdict
from pathlib import Path
from typing import Any

from antiphon.layer.redis import RedisChannelLayer
from antiphon.testing.faults import LoopWatch, Peer, clock_offset
from tests.faults.ledger import Crowd, Talker

# Notes that leave in one turn.
BURST = 25


async def talk_and_hear(
    peer: Peer, url: str, options: dict[str, Any], groups: list[str], numbers: list[int], seconds: float, report: str
) -> None:
    """Have a member in each group, send the notes ``numbers`` (first, count) evenly over ``seconds``, write it down."""
    logging.disable(logging.CRITICAL)
    layer = RedisChannelLayer([url], **options)
    crowd = Crowd(layer)
    for group in groups:
        await crowd.join(group)
    peer.send("ready")
    assert await peer.receive_async(30) == "go"
    talker = Talker(layer, groups)
    first, count = numbers
    began = time.monotonic()
    with LoopWatch() as watch:
        for n in range(first, first + count, BURST):
            for each in range(n, min(n + BURST, first + count)):
                talker.say(each)
            late = time.monotonic() - began - seconds * (n - first) / count
            await asyncio.sleep(max(0.0, -late))
        await talker.stop()
    peer.send("sent")
    assert await peer.receive_async(60) == "report"
    await asyncio.sleep(2)  # what is on its way
    connected = crowd.all_connected()
    Path(report).write_text(  # noqa: ASYNC240 - all is over
        json.dumps(
            {
                "sends": {n: asdict(sent) for n, sent in talker.sends.items()},
                "members": [asdict(member) for member in crowd.members],
                "losses": [asdict(loss) for loss in layer.losses.recent],
                "drops": layer.stats()["dropped"],
                "duplicates": layer.stats()["duplicates"],
                "connected": connected,
                "stall_s": watch.longest_stall_s,
            }
        )
    )
    await crowd.leave()
    await layer.close()
    peer.send("written")


async def hear(peer: Peer, url: str, options: dict[str, Any], groups: list[str], each: int) -> None:
    """Have members; ``["block", seconds]`` blocks the loop; ``"report"`` ends it with what they got."""
    logging.disable(logging.CRITICAL)
    layer = RedisChannelLayer([url], **options)
    crowd = Crowd(layer)
    for group in groups:
        await crowd.join(group, each)
    peer.send("ready")
    while (order := await peer.receive_async(None)) != "report":
        time.sleep(order[1])  # noqa: ASYNC251 - the fault itself
        peer.send("awake")
    peer.send(
        {
            "members": [asdict(member) for member in crowd.members],
            "losses": [asdict(loss) for loss in layer.losses.recent],
            "drops": layer.stats()["drops"],
            "connected": crowd.all_connected(),
        }
    )
    await crowd.leave()
    await layer.close()


async def talk_at_another_time(
    peer: Peer, url: str, options: dict[str, Any], group: str, numbers: list[int], offset_s: float
) -> None:
    """Send notes to a group, and tasks to a worker channel, with a wrong clock."""
    layer = RedisChannelLayer([url], **options)
    with clock_offset(offset_s):
        for n in range(*numbers):
            await layer.group_send(group, {"type": "note", "n": n})
            await layer.send("tasks", {"type": "task", "n": n})
        await layer.close()
    peer.send("sent")


async def work(peer: Peer, url: str, options: dict[str, Any], channel: str) -> None:
    """Take tasks off a worker channel until ``"report"``."""
    layer = RedisChannelLayer([url], **options)
    got: list[int] = []

    async def take() -> None:
        while True:
            got.append((await layer.receive(channel))["n"])
            await asyncio.sleep(0.002)

    taking = asyncio.create_task(take())
    peer.send("ready")
    assert await peer.receive_async(None) == "report"
    taking.cancel()
    await asyncio.wait([taking])
    peer.send(got)
    await layer.close()
