"""redis-py by itself, publishing what a layer would: one call after the other, or asyncio pipelines of many."""

from __future__ import annotations

import time

import redis
import redis.asyncio
import sides
from listener import Listener
from watch import Watch

CHANNEL = f"asgi:a1:g:{sides.GROUP}"  # as long as a layer's
UNHEARD = "asgi:a1:g:empty"  # as long; nobody subscribes to it


async def pipelines(report: sides.Report, server: str, size: int, seconds: float) -> None:
    """Fill a pipeline with ``size`` PUBLISHes and await it, again and again."""
    client = redis.asyncio.Redis(unix_socket_path=server)
    body = sides.encoded(sides.message(0))
    watch = Watch(server)
    figures: dict[str, float] = {}
    await client.publish(UNHEARD, body)
    while report(figures):
        sent, before, cpu, began = 0, watch.read(), time.process_time(), time.perf_counter()
        while (spent := time.perf_counter() - began) < seconds:
            async with client.pipeline(transaction=False) as pipeline:
                for _ in range(size):
                    pipeline.publish(UNHEARD, body)
                await pipeline.execute()
            sent += size
        cpu, server_s = time.process_time() - cpu, watch.read().cpu_s - before.cpu_s
        figures = {
            "sends_per_s": sent / spent,
            "server_us_per_send": server_s / sent * 1e6,
            "busy": (cpu + server_s) / spent,
        }
    watch.close()
    await client.aclose()


def calls(report: sides.Report, server: str, seconds: float) -> None:
    """Call ``publish`` again and again; another process has subscribed."""
    client = redis.Redis(unix_socket_path=server)
    body = sides.encoded(sides.message(0))
    sides.time_calls(report, server, lambda: client.publish(CHANNEL, body), seconds, Listener(CHANNEL))
    client.close()


if __name__ == "__main__":
    sides.main(pipelines if "size" in sides.PARAMETERS else calls)
