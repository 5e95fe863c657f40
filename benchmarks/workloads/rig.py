"""One server process on this process's core and one load generator on another, and how a workload speaks to both.

Knows nothing of what is measured. A workload on real sockets is spoken to as all others (``sides.py``), and only passes
the work on: it sleeps while the two are at it.
"""

from __future__ import annotations

import ctypes
import http.client
import json
import os
import platform
import signal
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Mapping, Sequence
from importlib import metadata
from pathlib import Path
from types import TracebackType
from typing import Any, Self

__all__ = ["HEADERS", "SOCKETS", "Rig", "bound_to_parent", "main"]

SOCKETS = Path(__file__).resolve().parents[1] / "sockets"
# Beside Host, Upgrade, Connection, Sec-WebSocket-Key and Sec-WebSocket-Version: twelve in all, as of a browser.
HEADERS = (
    ("Origin", "http://127.0.0.1:{port}"),
    ("User-Agent", "Mozilla/5.0 (X11; Linux x86_64; rv:140.0) Gecko/20100101 Firefox/140.0"),
    ("Accept", "*/*"),
    ("Accept-Language", "en-GB,en;q=0.7,de;q=0.3"),
    ("Accept-Encoding", "gzip, deflate, br"),
    ("Cache-Control", "no-cache"),
    ("Cookie", "csrftoken=Zq3vX8mPbT1nL5wK7yR2cD9fG4hJ6sA0; sessionid={session}"),
)
# As ``sockets/chat.py`` puts it into the database.
SESSION = "an1dle2ses3sion4of5the6benchmark"
# What a chat's client sends, and gets: what is between is the load generator's.
TEXTS = {"socketio": ('42["chat",{"message":"', '"}]')}
PROGRAMS = ("limit", "bare")
_PR_SET_PDEATHSIG = 1


def bound_to_parent(core: int | None) -> Callable[[], None]:
    """Return what a child does before it begins: it goes when this process does, however that ends."""
    libc = ctypes.CDLL(None)

    def begin() -> None:
        libc.prctl(_PR_SET_PDEATHSIG, signal.SIGKILL)
        if core is not None:
            os.sched_setaffinity(0, {core})

    return begin


class Rig:
    """A server and its load generator, from ``with`` to its end.

    ``program``: "limit" (the C program), "bare" (uvloop alone), or "serve" with what ``sockets/serve.py`` wants.
    """

    def __init__(
        self,
        server: Mapping[str, Any],
        *,
        load: str,
        limit: str,
        generator_core: int | None,
    ) -> None:
        self.home = tempfile.TemporaryDirectory(prefix="bench-sockets-")
        side = server.get("side", "")
        command = [limit] if side == "limit" else [sys.executable, str(SOCKETS / "bare.py")]
        if side not in PROGRAMS:
            given = {**server, "home": self.home.name} if server.get("stack") else dict(server)
            command = [sys.executable, str(SOCKETS / "serve.py"), json.dumps(given)]
        self.generator: subprocess.Popen[str] | None = None
        self.server = subprocess.Popen(
            command,
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            text=True,
            preexec_fn=bound_to_parent(None),  # noqa: PLW1509  # no threads here
        )
        self.port: int = self._answer(self.server)["port"]
        headers = Path(self.home.name, "headers")
        lines = "".join(f"{name}: {value}\r\n" for name, value in HEADERS)
        headers.write_text(lines.replace("{port}", str(self.port)).replace("{session}", SESSION))
        before, after = TEXTS.get(side, ('{"message": "', '"}'))
        command = [load, str(self.port), str(self.server.pid), str(headers), before, after]
        self.generator = subprocess.Popen(
            [*command, "engineio"] if side == "socketio" else command,
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            text=True,
            preexec_fn=bound_to_parent(generator_core),  # noqa: PLW1509  # no threads here
        )

    def __repr__(self) -> str:
        return f"<Rig {self.server.pid}:{self.port}>"

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, exc: BaseException | None, traceback: TracebackType | None
    ) -> None:
        for process in (self.generator, self.server):
            if process is not None:
                process.kill()
                process.wait()
        self.home.cleanup()

    def _answer(self, process: subprocess.Popen[str]) -> dict[str, Any]:
        assert process.stdout is not None
        line = process.stdout.readline()
        if not line:
            raise SystemExit(f"{process.args!r:.300} ended with {process.wait()}")
        found: dict[str, Any] = json.loads(line)
        if "error" in found:
            # The server may have gone first: then that is the reason.
            ended = "" if self.server.poll() is None else f" (the server ended with {self.server.returncode})"
            raise SystemExit(f"{found['error']}{ended}")
        return found

    def ask(self, *words: object) -> dict[str, Any]:
        """Let the load generator run one command, and return its answer. Raises SystemExit when a message was lost."""
        assert self.generator is not None
        assert self.generator.stdin is not None
        self.generator.stdin.write(" ".join(map(str, words)) + "\n")
        self.generator.stdin.flush()
        return self._answer(self.generator)

    def disturbed(self) -> Callable[[], dict[str, float]]:
        """Begin to watch the server; the result says {"busy": share of the time it wanted that it had its core}.

        Nothing for one whose threads work, too: they also wait for each other.
        """
        began = _scheduled(self.server.pid)

        def found() -> dict[str, float]:
            ended = _scheduled(self.server.pid)
            all_ran, ran, waited = (after - before for before, after in zip(began, ended, strict=True))
            return {} if all_ran > 1.05 * ran else {"busy": ran / max(1, ran + waited)}

        return found

    def open(
        self,
        number: int,
        path: str,
        clients: int,
        *,
        together: int = 32,
        size: int = 128,
        quiet: bool = False,
        buffer_bytes: int = 0,
    ) -> dict[str, Any]:
        """Open a set of clients of the room at ``path``, so many at a time. ``size``: bytes of its messages' text."""
        return self.ask("open", number, path, clients, together, size, int(quiet), buffer_bytes)

    def tell(self) -> dict[str, Any]:
        """Ask the application what it holds, after a collection of garbage: {"rss_bytes", "dropped"}."""
        link = http.client.HTTPConnection("127.0.0.1", self.port, timeout=60)
        link.request("GET", "/")
        found: dict[str, Any] = json.loads(link.getresponse().read())
        link.close()
        if found.pop("other"):
            raise SystemExit("both frameworks were imported into one process")
        return found


def _scheduled(pid: int) -> tuple[int, int, int]:
    """Return, in nanoseconds, the time that a process ran, that its main thread ran, and that this waited for its core."""
    ran, waited, _ = Path(f"/proc/{pid}/schedstat").read_text().split()
    # The clock of another process: what clock_getcpuclockid() returns.
    return time.clock_gettime_ns(~pid << 3 | 2), int(ran), int(waited)


def _versions(names: Sequence[str]) -> dict[str, str]:
    found = {"python": platform.python_version()}
    for name in names:
        try:
            found[name] = metadata.version(name)
        except metadata.PackageNotFoundError:
            continue
    return found


PACKAGES = (
    *("channels", "channels_redis", "daphne", "python-socketio", "uvicorn", "websockets", "httptools", "uvloop"),
    *("redis", "hiredis", "django", "asgiref", "ormsgpack"),
)


def main(workload: Callable[..., None]) -> None:
    """Run a workload: ``python <workload>.py <side> <parameters as JSON>``, as ``sides.py`` says."""
    versions = _versions(PACKAGES)

    def report(figures: Mapping[str, float]) -> bool:
        print(json.dumps({"figures": figures, "versions": versions}), flush=True)
        return bool(sys.stdin.readline())

    workload(report, **json.loads(sys.argv[2]))
