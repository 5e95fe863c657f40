"""Sends a second: awaited from many tasks, to nobody; or from synchronous code, to a member in another process."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Callable
from typing import Any

import sides
from asgiref.sync import async_to_sync
from listener import Listener
from watch import Watch


async def awaited(report: sides.Report, server: str, tasks: int, seconds: float) -> None:
    """Let each task await ``group_send`` in a loop."""
    layer: Any = sides.get_channel_layer()
    message = sides.message(0)
    watch = Watch(server)
    group_send = layer.group_send
    await group_send(sides.GROUP, message)
    going = False
    total = 0

    async def keep_sending() -> None:
        nonlocal total
        sent = 0
        while going:
            await group_send(sides.GROUP, message)
            sent += 1
        total += sent

    figures: dict[str, float] = {}
    versions = {"server": watch.read().version}
    lost = 0
    while report(figures, versions):
        going, total = True, 0
        before, cpu, began = watch.read(), time.process_time(), time.perf_counter()
        running = [asyncio.ensure_future(keep_sending()) for _ in range(tasks)]
        await asyncio.sleep(seconds)
        going = False
        await asyncio.gather(*running)
        spent, cpu, after = time.perf_counter() - began, time.process_time() - cpu, watch.read()
        server_s = after.cpu_s - before.cpu_s
        figures = {
            "sends_per_s": total / spent,
            "server_us_per_send": server_s / total * 1e6,
            "server_commands_per_send": (after.commands - before.commands - 1) / total,
            "busy": (cpu + server_s) / spent,
        }
        if sides.arrived(layer) is not None:
            # Nobody listens: what the server was asked to publish is what left. core asks for none where nobody is.
            lost += total - (after.published - before.published)
            figures["lost"] = lost
    watch.close()


def synchronous(report: sides.Report, server: str, way: str, seconds: float) -> None:
    """Call from plain code, without a loop.

    ``way``: ``plain`` (antiphon.group_send), ``async_to_sync``, or ``empty``: ``async_to_sync`` of a coroutine that does
    nothing, which is what asgiref alone costs.
    """
    layer: Any = sides.get_channel_layer()
    message = sides.message(0)
    group_send = nothing if way == "empty" else layer.group_send
    call: Callable[[str, Any], Any]
    if way == "plain":
        from antiphon import group_send as call
    else:

        def call(group: str, message: Any) -> Any:
            return async_to_sync(group_send)(group, message)

    listener = Listener() if way != "empty" else None
    sides.time_calls(report, server, lambda: call(sides.GROUP, message), seconds, listener)


async def nothing(group: str, message: Any) -> None:
    """Do nothing."""


if __name__ == "__main__":
    sides.main(synchronous if "way" in sides.PARAMETERS else awaited)
