"""A server of the table in a process of its own: how it starts, and what is known of it while it runs."""

from __future__ import annotations

import asyncio
import contextlib
import itertools
import json
import os
import signal
import socket
import subprocess
import tempfile
import time
from collections.abc import AsyncIterator, Callable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from tests.waiting import until

from .client import Client

__all__ = ["KINDS", "Kind", "Server", "running"]

ROOT = Path(__file__).resolve().parents[3]
APPLICATION = "tests.server.behaviours.application:application"
# Deadlines of a "hasty" server: so short that a probe sees them pass, so long that a busy machine keeps them otherwise.
PING_S = 0.5
START_LIMIT_S = 60.0
HASTY = {
    "handshake_timeout_s": 2.0,
    "accept_timeout_s": 2.0,
    "send_timeout_s": 1.0,
    "close_timeout_s": 1.0,
}
USUAL = {"deflate": True, "drain_s": 0.2}


@dataclass(frozen=True, slots=True)
class Kind:
    """A server: ``options`` follow ``python -m <module>``, those of ``hasty`` too where deadlines are to be short."""

    name: str
    title: str
    module: str
    options: Callable[[int], list[str]]
    hasty: tuple[str, ...] = ()
    usual: tuple[str, ...] = ()

    def command(self, python: str, port: int, *, hasty: bool) -> list[str]:
        """Return the command that starts it."""
        return [python, "-m", self.module, *self.options(port), *(self.hasty if hasty else self.usual), APPLICATION]


def _uvicorn(*classes: str) -> Callable[[int], list[str]]:
    return lambda port: ["--host", "127.0.0.1", "--port", str(port), "--log-level", "warning", *classes]


_PINGS = ("--ws-ping-interval", str(PING_S), "--ws-ping-timeout", str(PING_S))
_NO_PINGS = ("--ws-ping-interval", "1000", "--ws-ping-timeout", "1000")
KINDS = {
    kind.name: kind
    for kind in (
        Kind(
            "antiphon",
            "uvicorn, our class",
            "uvicorn",
            _uvicorn("--ws", "antiphon.server:WebSocketProtocol", "--http", "antiphon.server:HTTPProtocol"),
            _PINGS,
            _NO_PINGS,
        ),
        Kind("uvicorn", "uvicorn, its own", "uvicorn", _uvicorn("--ws", "websockets-sansio"), _PINGS, _NO_PINGS),
        Kind(
            "hypercorn",
            "hypercorn",
            "hypercorn",
            lambda port: ["--bind", f"127.0.0.1:{port}", "--log-level", "warning"],
            ("--websocket-ping-interval", "1"),
        ),
        Kind(
            "granian",
            "granian",
            "granian",
            lambda port: ["--interface", "asgi", "--port", str(port), "--log-level", "warning"],
            ("--http1-header-read-timeout", "2000"),
        ),
        Kind(
            "daphne",
            "daphne",
            "daphne",
            lambda port: ["--bind", "127.0.0.1", "--port", str(port), "--verbosity", "0"],
            ("--ping-interval", "1", "--ping-timeout", "1", "--websocket_connect_timeout", "2"),
        ),
    )
}


@dataclass(slots=True)
class Server:
    """A server that runs. ``patience_s``: how long a probe waits for what may never come."""

    kind: Kind
    process: subprocess.Popen[bytes]
    port: int
    seen_file: Path
    patience_s: float
    pid: int = 0  # of the process that serves, which is another one where a supervisor starts it
    _numbers: itertools.count[int] = field(default_factory=itertools.count)

    def name(self) -> str:
        """Return a new name for a connection."""
        return f"c{next(self._numbers)}"

    def seen(self, who: str) -> dict[str, Any]:
        """Return what the application has noted of a connection so far."""
        found: dict[str, Any] = {}
        if self.seen_file.exists():
            for line in self.seen_file.read_text().splitlines():
                noted = json.loads(line)
                if noted["who"] == who:
                    found |= noted
        return found

    async def told(self, who: str, what: str) -> bool:
        """Wait until the application has noted ``what`` of a connection; False: it never did."""
        try:
            await until(lambda: what in self.seen(who), self.patience_s)
        except TimeoutError:
            return False
        return True

    async def connect(self, *, reads: bool = True) -> Client:
        """Open a TCP connection."""
        return await Client.connect(self.port, self.patience_s, reads=reads)

    @contextlib.asynccontextmanager
    async def client(
        self, path: str, who: str = "", *headers: bytes, reads: bool = True, key: bytes | None = None
    ) -> AsyncIterator[Client]:
        """Ask for a WebSocket."""
        async with await self.connect(reads=reads) as client:
            await client.ask(f"{path}?{who or self.name()}", *headers, **({} if key is None else {"key": key}))
            yield client

    async def exited(self) -> bool:
        """Wait for the end of the process; False: it goes on."""
        try:
            await until(lambda: self.process.poll() is not None, self.patience_s)
        except TimeoutError:
            return False
        return True

    # Memory, where the system tells

    def memory_mb(self, what: str = "VmRSS") -> float | None:
        """Return the memory of the serving process: VmRSS, now; VmHWM, at most."""
        try:
            lines = Path(f"/proc/{self.pid}/status").read_text().splitlines()
        except OSError:
            return None
        return next((int(line.split()[1]) / 1000 for line in lines if line.startswith(what + ":")), None)

    def growth_mb(self) -> Callable[[], float | None]:
        """Begin to measure the peak anew; what is returned says by how much it lies above the memory of now."""
        before_mb = self.memory_mb()
        try:
            Path(f"/proc/{self.pid}/clear_refs").write_text("5")
        except OSError:
            return lambda: None

        def grown_mb() -> float | None:
            peak_mb = self.memory_mb("VmHWM")
            return None if peak_mb is None or before_mb is None else max(peak_mb - before_mb, 0.0)

        return grown_mb

    def kill(self) -> None:
        """End it for good, with the processes it started."""
        with contextlib.suppress(ProcessLookupError):
            os.killpg(self.process.pid, signal.SIGKILL)
        self.process.wait()


def _free_port() -> int:
    with socket.socket() as sock:
        sock.bind(("127.0.0.1", 0))
        port: int = sock.getsockname()[1]
        return port


async def _answers(server: Server) -> bool:
    who = server.name()
    try:
        async with server.client("/raw/echo", who) as client:
            if client.status == 101 and await server.told(who, "server"):
                server.pid = server.seen(who)["pid"]
                return True
    except OSError:  # TimeoutError too
        pass
    return False


async def _started(server: Server) -> bool:
    """Wait until the server answers, or has ended instead."""
    until_s = time.monotonic() + START_LIMIT_S
    while server.process.poll() is None and time.monotonic() < until_s:
        if await _answers(server):
            return True
        await asyncio.sleep(0.05)
    return False


@contextlib.asynccontextmanager
async def running(
    kind: Kind,
    python: str,
    *,
    hasty: bool = False,
    patience_s: float,
    options: Mapping[str, Any] | None = None,
) -> AsyncIterator[Server]:
    """Run a server in a process group of its own. ``options``: of ``ANTIPHON``, over those that probes count on."""
    chosen = {**USUAL, **(HASTY if hasty else {}), **(options or {})}
    with tempfile.TemporaryDirectory(prefix="behaviours-") as scratch:
        environment = {
            **os.environ,
            "PYTHONPATH": os.pathsep.join((str(ROOT / "src"), str(ROOT))),
            "BEHAVIOURS_SEEN": str(Path(scratch) / "seen"),
            "BEHAVIOURS_OPTIONS": json.dumps(chosen),
        }
        log = Path(scratch) / "log"
        while True:
            port = _free_port()
            with log.open("ab") as output:
                process = subprocess.Popen(  # noqa: ASYNC220  # takes no time
                    kind.command(python, port, hasty=hasty),
                    cwd=scratch,
                    env=environment,
                    stdout=output,
                    stderr=output,
                    start_new_session=True,
                )
            server = Server(kind, process, port, Path(scratch) / "seen", patience_s)
            try:
                if await _started(server):
                    yield server
                    return
                # Somebody else may have taken the port meanwhile; any other reason is told.
                if "in use" not in (said := log.read_text()):
                    raise RuntimeError(f"{kind.name} did not start: {said}")
            finally:
                server.kill()
