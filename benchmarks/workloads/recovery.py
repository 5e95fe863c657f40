"""The jitter test: a group of clients whose sockets are cut, two server processes, one publisher, one engine.

In the middle the engine is killed and started again, and a server process is replaced. What each client got is compared
with what was published. This process is the clients; the servers are on the core that it was started on.
"""

from __future__ import annotations

import asyncio
import contextlib
import json
import os
import resource
import signal
import socket
import sys
import tempfile
import time
from asyncio.subprocess import DEVNULL, PIPE, Process
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

import rig
import uvloop
from recovery_clients import Client, Line, Record, Weather

TOGETHER = 50
# When the engine is killed and when a server is replaced, as shares of the time of all messages.
KILLED_AT, REPLACED_AT = 0.35, 0.7
# After the last message: when everybody is in and nobody has heard anything for so long, no more will come; when
# everybody has had it, nothing will come again.
QUIET_S, SETTLED_S = 3.0, 0.5
END_S = 30.0
START_S = 10.0


def recovery(
    report: Callable[[Mapping[str, float]], bool],
    side: str,
    append_only: bool,
    clients: int,
    messages: int,
    per_s: float,
    cut_every_s: float,
    cut_for_s: float,
    engine_down_s: float,
    valkey: str,
    generator_core: int | None,
    **_: Any,
) -> None:
    """Run the whole test at each word but the first, which has nothing to warm up."""
    servers = os.sched_getaffinity(0)
    if generator_core is not None:
        os.sched_setaffinity(0, {generator_core})
    # Sockets that were cut without a word to the server stay open for a while.
    most = resource.getrlimit(resource.RLIMIT_NOFILE)[1]
    resource.setrlimit(resource.RLIMIT_NOFILE, (most, most))
    if not report({}):
        return
    figures: Mapping[str, float] = {}
    while report(figures):
        with tempfile.TemporaryDirectory(prefix="bench-recovery-") as home:
            test = Test(side, home, min(servers), valkey, append_only=append_only)
            figures = uvloop.run(test.run(clients, messages, per_s, (cut_every_s, cut_for_s), engine_down_s))


class Test:
    """One run."""

    def __init__(self, side: str, home: str, core: int, valkey: str, *, append_only: bool) -> None:
        self.side = side
        self.core = core
        self.socket = f"{home}/valkey.sock"
        # Synced at each write: what the publisher has a receipt of survives a kill.
        self.engine_command = (
            *(valkey, "--port", "0", "--unixsocket", self.socket, "--dir", home, "--save", ""),
            *("--appendonly", "yes" if append_only else "no", "--appendfsync", "always"),
        )
        # Keeps the port while no server has it.
        self.place = socket.socket()
        self.place.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEPORT, 1)
        self.place.bind(("127.0.0.1", 0))
        self.port: int = self.place.getsockname()[1]
        self.positions: dict[int, list[Any] | None] = {}
        # What all say about the engine's death is a book, and is read only when one of them did not start.
        self.output = Path(home, "log").open("w+")  # noqa: SIM115  # closed by run()
        self.processes: list[Process] = []

    async def run(
        self, count: int, messages: int, per_s: float, cuts: tuple[float, float], engine_down_s: float
    ) -> dict[str, float]:
        """Run it; return its figures."""
        record, weather = Record(messages), Weather(self.port, *cuts)
        clients = [Client(weather, record) for _ in range(count)]
        living: list[asyncio.Task[None]] = []
        try:
            engine = await self.start_engine()
            leaving, _ = await asyncio.gather(self.start_server("handler"), self.start_server("relay"))
            publisher = await self.start(*self.program("recovery_publisher", messages=messages, per_s=per_s), told=True)
            lines: list[Line] = []
            for start in range(0, count, TOGETHER):
                lines += await asyncio.gather(*(client.join() for client in clients[start : start + TOGETHER]))
            living = [asyncio.ensure_future(client.live(line)) for client, line in zip(clients, lines, strict=True)]
            span_s = messages / per_s
            await asyncio.gather(
                self.publish(publisher),
                self.kill_engine(engine, span_s * KILLED_AT, engine_down_s),
                self.replace_server(leaving, span_s * REPLACED_AT),
            )
            weather.calm = True
            await self.end(clients, record, living)
        finally:
            for task in living:
                task.cancel()
            await asyncio.gather(*living, return_exceptions=True)
            for process in self.processes:
                if process.returncode is None:
                    process.kill()
                    await process.wait()
            self.place.close()
            self.output.close()
        return self.figures(clients, record)

    # Processes

    def program(self, name: str, **parameters: Any) -> tuple[str, str, str]:
        """Return the command of a program in ``sockets/``."""
        given = {"side": self.side, "server_socket": self.socket, **parameters}
        return sys.executable, str(rig.SOCKETS / f"{name}.py"), json.dumps(given)

    async def start(self, *command: str, core: int | None = None, told: bool = False) -> Process:
        """Start a process. ``told``: it reads its orders from us, and says how it goes."""
        process = await asyncio.create_subprocess_exec(
            *command,
            stdin=PIPE if told else DEVNULL,
            stdout=PIPE if told else DEVNULL,
            stderr=self.output,
            preexec_fn=rig.bound_to_parent(core),
        )
        self.processes.append(process)
        return process

    async def start_server(self, kind: str) -> Process:
        """Start a server process on the port that all share; return once it listens."""
        kinds = {"kind": kind} if self.side == "antiphon" else {}
        server = "antiphon" if self.side == "antiphon" else "uvicorn"
        command = self.program("serve", server=server, port=self.port, **kinds)
        process = await self.start(*command, core=self.core, told=True)
        assert process.stdout is not None
        if not await process.stdout.readline():
            raise SystemExit(f"a server ended with {await process.wait()}\n{self.log()}")
        return process

    async def start_engine(self) -> Process:
        """Start the engine; return once it answers."""
        process = await self.start(*self.engine_command)
        deadline = time.monotonic() + START_S
        while time.monotonic() < deadline and process.returncode is None:
            with contextlib.suppress(OSError):
                reader, writer = await asyncio.open_unix_connection(self.socket)
                writer.write(b"PING\r\n")
                answer = await reader.readline()
                writer.close()
                if answer.startswith(b"+PONG"):
                    return process
            await asyncio.sleep(0.02)
        raise SystemExit(f"the engine did not start ({process.returncode})\n{self.log()}")

    def log(self) -> str:
        """Return the end of what all processes have said."""
        return Path(self.output.name).read_text()[-5000:]

    # What happens

    async def publish(self, publisher: Process) -> None:
        """Let the publisher send all its messages, and note where each is in the log."""
        assert publisher.stdin is not None
        assert publisher.stdout is not None
        publisher.stdin.write(b"go\n")
        async for line in publisher.stdout:
            number, position = json.loads(line)
            self.positions[number] = position
        if await publisher.wait():
            raise SystemExit(f"the publisher ended with {publisher.returncode}\n{self.log()}")

    async def kill_engine(self, engine: Process, after_s: float, down_s: float) -> None:
        """Kill the engine, and start it again."""
        await asyncio.sleep(after_s)
        engine.kill()
        await engine.wait()
        await asyncio.sleep(down_s)
        await self.start_engine()

    async def replace_server(self, server: Process, after_s: float) -> None:
        """End one server process as a deploy does, while another takes its place."""
        await asyncio.sleep(after_s)
        server.send_signal(signal.SIGTERM)
        await self.start_server("handler")
        await server.wait()

    async def end(self, clients: Sequence[Client], record: Record, living: Sequence[asyncio.Task[None]]) -> None:
        """Wait until each client has the last message, or until none comes any more."""
        deadline = time.monotonic() + END_S
        while (now := time.monotonic()) < deadline:
            for task in living:
                if task.done():
                    task.result()
            whole = all(client.last == record.messages for client in clients)
            silent_s = now - record.heard_s
            if silent_s > (SETTLED_S if whole else QUIET_S) and all(client.within for client in clients):
                return
            await asyncio.sleep(0.1)

    def figures(self, clients: Sequence[Client], record: Record) -> dict[str, float]:
        """Return what is told of a run."""
        missed = sum(len(client.missed()) for client in clients)
        deliveries = len(clients) * record.messages
        found: dict[str, float] = {
            "delivered": (deliveries - missed) / deliveries,
            "duplicated": sum(client.duplicated for client in clients),
            "missed": missed,
            "out_of_order": sum(client.out_of_order for client in clients),
            "p50_ms": percentile(record.latencies, 50),
            "p99_ms": percentile(record.latencies, 99),
            "cuts": record.cuts,
            "recovered": record.recovered,
        }
        if self.side == "antiphon":
            found |= {
                "told": sum(bool(client.told) for client in clients) / len(clients),
                "unrecovered": record.unrecovered,
                "interrupted": record.interrupted,
                "unaccounted": sum(len(client.unaccounted(self.positions)) for client in clients),
                "join_p50_ms": percentile(record.joins, 50),
                "join_p99_ms": percentile(record.joins, 99),
                "return_p50_ms": percentile(record.returns, 50),
                "return_p99_ms": percentile(record.returns, 99),
            }
        return found


def percentile(values: Sequence[float], percent: int) -> float:
    """Return a percentile of values; 0 without any."""
    ordered = sorted(values)
    return ordered[min(len(ordered) - 1, len(ordered) * percent // 100)] if ordered else 0.0


if __name__ == "__main__":
    rig.main(recovery)
