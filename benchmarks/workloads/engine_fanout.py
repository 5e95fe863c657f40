"""One group over one or two processes, through an engine: deliveries a second, and what a send costs the server.

A delivery: the handler ran, encoded its own JSON, and ASGI ``send`` was called with the right text. The first process
sends, and has as many members as the second; the next message leaves when the last member of both has sent the one before.
"""

from __future__ import annotations

import asyncio
import contextlib
import json
import sys
import time
from typing import Any

import sides
from fanout import ChatConsumer
from members import Crowd
from watch import Watch

LINES = 64


def script() -> list[tuple[dict[str, str], str]]:
    """Return messages of 111 bytes each, with the JSON that every member must send."""
    messages = [sides.message(number) for number in range(LINES)]
    return [(message, json.dumps({"message": message["message"]})) for message in messages]


async def engine_fanout(
    report: sides.Report,
    server: str,
    members: int,
    processes: int = 1,
    sends: int = 0,
    seconds: float = 0.0,
    period_s: float = 0.0,
    burst: int = 1,
    role: str = "first",
) -> None:
    """Run a block at each word: of so many ``sends`` or ``seconds``, one send a ``period_s`` at most."""
    crowd = Crowd(ChatConsumer.as_asgi())
    await crowd.open(members)
    if role == "second":
        await listen(crowd, burst)
    else:
        partner = Partner() if processes == 2 else None
        await send(report, crowd, partner, Watch(server), sends, seconds, period_s, burst)
    await crowd.close()


async def send(
    report: sides.Report,
    crowd: Crowd,
    partner: Partner | None,
    watch: Watch,
    sends_max: int,
    seconds: float,
    period_s: float,
    burst: int,
) -> None:
    """Be the first process."""
    layer: Any = sides.get_channel_layer()
    lines = script()
    if partner is not None:
        await partner.start()

    async def first() -> None:
        await layer.group_send(sides.GROUP, lines[0][0])
        if partner is not None:
            await partner.finished()

    crowd.watch()
    await crowd.verify(lines[0][1], first)
    rounds = 1
    figures: dict[str, float] = {}
    versions = {"server": watch.read().version}
    clock = time.perf_counter
    while report(figures, versions):
        seen, before, sends = sides.arrived(layer), watch.read(), 0
        others = partner.figures if partner is not None else (0.0, 0)
        cpu, began = time.process_time(), clock()
        while (sends < sends_max) if sends_max else (clock() - began < seconds):
            message, expected = lines[rounds % LINES]
            done = crowd.begin(expected, burst)
            for _ in range(burst):
                await layer.group_send(sides.GROUP, message)
            await done
            if partner is not None:
                await partner.finished()
            sends += burst
            rounds += 1
            if (pause := began + sends * period_s - clock()) > 0:
                await asyncio.sleep(pause)
        spent, cpu, after = clock() - began, time.process_time() - cpu, watch.read()
        nodes = 1
        server_s = after.cpu_s - before.cpu_s
        figures = {
            "deliveries_per_s": sends * len(crowd.members) * (2 if partner else 1) / spent,
            "server_us_per_send": server_s / sends * 1e6,
            # Ours was one: the INFO that ended the block.
            "server_commands_per_send": (after.commands - before.commands - 1) / sends,
        }
        if partner is not None:
            nodes = 2
            cpu += partner.figures[0] - others[0]
        if not period_s:
            figures["busy"] = (cpu + server_s) / spent
        if seen is not None:
            here, there = sides.arrived(layer) - seen, (partner.figures[1] - others[1]) if partner else 0
            figures["messages_per_node_and_send"] = (here + there) / nodes / sends
            figures["publishes_per_send"] = (after.published - before.published) / sends
    watch.close()
    crowd.check([1 + (rounds - 1) * burst] * len(crowd.members))
    if partner is not None:
        await partner.end()


class Partner:
    """The second process, seen from the first. ``figures``: (processor seconds, messages of the engine) so far."""

    def __init__(self) -> None:
        self.figures = (0.0, 0)

    async def start(self) -> None:
        """Start it, and wait until its members are in the group."""
        parameters = {**sides.PARAMETERS, "role": "second"}
        self.process = await asyncio.create_subprocess_exec(
            sys.executable,
            __file__,
            sides.SIDE,
            json.dumps(parameters),
            stdin=asyncio.subprocess.PIPE,
            stdout=asyncio.subprocess.PIPE,
        )
        await self.finished()

    async def finished(self) -> None:
        """Wait until its members have sent what is under way."""
        assert self.process.stdout is not None
        line = await self.process.stdout.readline()
        if not line:
            raise AssertionError(f"the second process ended with {await self.process.wait()}")
        cpu_s, arrived = line.split()
        self.figures = float(cpu_s), int(arrived)

    async def end(self) -> None:
        """Let it check its own counts, and end."""
        assert self.process.stdin is not None
        self.process.stdin.close()
        if await self.process.wait():
            raise AssertionError("the second process found something wrong")


async def listen(crowd: Crowd, burst: int) -> None:
    """Be the second process: one line on stdout for each message that all members have sent, until stdin ends."""
    layer: Any = sides.get_channel_layer()
    lines = script()
    asyncio.get_running_loop().add_reader(0, lambda: crowd.done.cancel())  # noqa: PLW0108  # of the round there is then

    def say() -> None:
        sys.stdout.write(f"{time.process_time()} {sides.arrived(layer) or 0}\n")
        sys.stdout.flush()

    async def ready() -> None:
        say()

    await crowd.verify(lines[0][1], ready)
    rounds = 1
    with contextlib.suppress(asyncio.CancelledError):
        while True:
            done = crowd.begin(lines[rounds % LINES][1], burst)
            say()
            await done
            rounds += 1
    crowd.check([1 + (rounds - 1) * burst] * len(crowd.members))


if __name__ == "__main__":
    sides.main(engine_fanout)
