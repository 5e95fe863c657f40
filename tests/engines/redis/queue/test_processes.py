"""Readers in processes of their own, and one that is killed."""

from __future__ import annotations

import asyncio
import contextlib
import os
import signal
import sys
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

from antiphon.testing.faults import ValkeyServer
from tests.engines.redis.queue.readers import Make, put, soon
from tests.waiting import until

READER = """
import asyncio, sys
from antiphon.engines.redis.bus import RedisBus
from antiphon.engines.redis.hosts import parse_hosts

class Sink:
    def arrive(self, topic, payload): pass
    def lost(self, topics, reason, good_until): pass
    def link(self, name, up): pass

async def main(url, prefix, name, mode):
    engine = RedisBus(parse_hosts([url]), prefix=prefix, lease_s=1.0).node_engine()
    engine.attach(Sink(), asyncio.get_running_loop(), name)
    print("up", flush=True)
    while True:
        leased = await engine.lease("q")
        print(leased.payload.decode(), leased.delivery_count, flush=True)
        if mode == "hold":
            await asyncio.sleep(60)
        await asyncio.sleep(0.001)
        await engine.ack("q", leased.token)

asyncio.run(main(*sys.argv[1:]))
"""


@contextlib.asynccontextmanager
async def reader_process(path: Path, url: str, prefix: str, name: str, mode: str) -> AsyncIterator[Any]:
    script = path / "reader.py"
    script.write_text(READER)
    process = await asyncio.create_subprocess_exec(
        sys.executable, str(script), url, prefix, name, mode, stdout=asyncio.subprocess.PIPE
    )
    try:
        assert process.stdout is not None
        assert await soon(process.stdout.readline()) == b"up\n"
        yield process
    finally:
        if process.returncode is None:
            process.kill()
        await process.wait()


async def test_two_processes_get_each_message_once(
    any_server: ValkeyServer, make: Make, fresh_prefix: str, tmp_path: Path
) -> None:
    sender = await make(any_server)
    url = any_server.url
    async with (
        reader_process(tmp_path, url, fresh_prefix, "p1", "work") as one,
        reader_process(tmp_path, url, fresh_prefix, "p2", "work") as two,
    ):
        await put(sender, "q", *(b"%d" % n for n in range(100)))
        found: list[tuple[str, str]] = []

        async def collect(process: Any, name: str) -> None:
            while True:
                found.append((name, (await process.stdout.readline()).decode().strip()))

        tasks = [asyncio.create_task(collect(one, "p1")), asyncio.create_task(collect(two, "p2"))]
        await until(lambda: len(found) >= 100)
        await asyncio.sleep(0.1)
        for task in tasks:
            task.cancel()
    assert sorted(line for _, line in found) == sorted(f"{n} 1" for n in range(100))
    assert {name for name, _ in found} == {"p1", "p2"}


async def test_what_a_killed_process_had_leased_is_delivered_again(
    any_server: ValkeyServer, make: Make, fresh_prefix: str, tmp_path: Path
) -> None:
    engine = await make(any_server, lease_s=1.0)
    async with reader_process(tmp_path, any_server.url, fresh_prefix, "p1", "hold") as process:
        await put(engine, "q", b"1", b"2")
        assert await soon(process.stdout.readline()) == b"1 1\n"
        os.kill(process.pid, signal.SIGKILL)
        await process.wait()
    found = [await soon(engine.lease("q")) for _ in range(2)]
    assert [(leased.payload, leased.delivery_count) for leased in found] == [(b"2", 1), (b"1", 2)]
