"""N connections of a ``SyncConsumer`` whose handler blocks: calls a second, when one message reaches them all."""

from __future__ import annotations

import time
from typing import Any

import sides
from asgiref.sync import async_to_sync
from members import Crowd


class SleepyConsumer(sides.SyncConsumer):
    """Blocks as a slow query does."""

    def websocket_connect(self, event: dict[str, Any]) -> None:
        """Join the group."""
        async_to_sync(self.channel_layer.group_add)(sides.GROUP, self.channel_name)
        self.send({"type": "websocket.accept"})

    def websocket_disconnect(self, event: dict[str, Any]) -> None:
        """Leave the group and end."""
        async_to_sync(self.channel_layer.group_discard)(sides.GROUP, self.channel_name)
        raise sides.StopConsumer

    def job(self, event: dict[str, Any]) -> None:
        """Block, then answer."""
        time.sleep(event["block_s"])
        self.send({"type": "websocket.send", "text": event["text"] + "!"})


async def sync_consumers(report: sides.Report, connections: int, block_s: float, messages: int) -> None:
    """Open the connections, then send ``messages`` at each word, each when all have answered the one before."""
    layer: Any = sides.get_channel_layer()
    crowd = Crowd(SleepyConsumer.as_asgi())
    await crowd.open(connections)
    total = 0

    async def send() -> None:
        await layer.group_send(sides.GROUP, {"type": "job", "text": f"job {total}", "block_s": block_s})

    crowd.watch()
    await crowd.verify("job 0!", send)
    total += 1
    figures: dict[str, float] = {}
    while report(figures):
        began = time.perf_counter()
        for _ in range(messages):
            done = crowd.begin(f"job {total}!")
            await send()
            await done
            total += 1
        figures = {"calls_per_s": connections * messages / (time.perf_counter() - began)}
    crowd.check([total] * connections)
    await crowd.close()


if __name__ == "__main__":
    sides.main(sync_consumers)
