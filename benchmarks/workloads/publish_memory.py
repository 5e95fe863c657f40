"""Sends a second on a layer in memory: awaited on the loop of the member, or called by synchronous code in a thread.

The group has one stock chat consumer. The clock runs during ``RUN`` sends and stands still until the member has sent them
on: no channel fills up, and what it does meanwhile in its own thread is part of what a call costs. Each must arrive.
"""

from __future__ import annotations

import time
from collections.abc import Awaitable, Callable
from typing import Any

import sides
from asgiref.sync import async_to_sync, sync_to_async
from fanout import ChatConsumer, script
from members import Crowd

RUN = 100


async def publish_memory(report: sides.Report, way: str, seconds: float, server: None = None) -> None:
    """Send runs of messages, for ``seconds`` at each word.

    ``way``: ``await``; or, as a synchronous view of the same process would, ``plain`` (antiphon.group_send) or
    ``async_to_sync``.
    """
    layer: Any = sides.get_channel_layer()
    message, expected = script(1)[0]
    crowd = Crowd(ChatConsumer.as_asgi())
    await crowd.open(1)
    crowd.watch()
    sends = runs(way, layer, message)
    await crowd.verify(expected, lambda: layer.group_send(sides.GROUP, message))
    total = 1
    figures: dict[str, float] = {}
    while report(figures):
        sent, timed, cpu, began = 0, 0.0, time.process_time(), time.perf_counter()
        while (spent := time.perf_counter() - began) < seconds:
            done = crowd.begin(expected, RUN)
            timed += await sends()
            await done
            sent += RUN
        figures = {"sends_per_s": sent / timed, "busy": (time.process_time() - cpu) / spent}
        total += sent
    crowd.check([total])
    await crowd.close()


def runs(way: str, layer: Any, message: Any) -> Callable[[], Awaitable[float]]:
    """Return what sends ``RUN`` messages and says how many seconds the calls took."""

    async def awaited() -> float:
        group_send = layer.group_send
        began = time.perf_counter()
        for _ in range(RUN):
            await group_send(sides.GROUP, message)
        return time.perf_counter() - began

    if way == "await":
        return awaited
    call: Callable[[str, Any], Any]
    if way == "plain":
        from antiphon import group_send as call
    else:

        def call(group: str, message: Any) -> Any:
            return async_to_sync(layer.group_send)(group, message)

    def called() -> float:
        began = time.perf_counter()
        for _ in range(RUN):
            call(sides.GROUP, message)
        return time.perf_counter() - began

    return sync_to_async(called, thread_sensitive=False)


if __name__ == "__main__":
    sides.main(publish_memory)
