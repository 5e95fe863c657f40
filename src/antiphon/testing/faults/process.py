"""``ServerProcess``: a server as a child process that a test starts, kills, stops and restarts. Knows no protocol."""

from __future__ import annotations

import os
import signal
import socket
import subprocess
import time
from collections.abc import Callable, Mapping, Sequence
from contextlib import suppress
from pathlib import Path
from typing import IO

from . import guard
from .startable import Startable

__all__ = ["ServerProcess"]

START_LIMIT_S = 30.0
TERMINATE_LIMIT_S = 20.0
_POLL_S = 0.005
_TAIL_LINES = 20


class ServerProcess(Startable):
    """Runs ``args`` as a server, from ``start()`` to ``close()``; a context manager, too.

    ``address`` is where it listens: ``(host, port)``, the path of a Unix socket, or None where nothing tells that it is
    up. ``answers`` is asked instead where accepting a connection is not enough: a function that returns whether the
    server answers, OSError counting as no. ``env`` is added to this process's environment.

    Signals go to the server and to everything it started that stayed in its process group, as one. Output goes to
    ``log``, in ``folder``, which ``close()`` removes. All calls block, for milliseconds except ``start()``. When the
    process of the test dies, so does the server.
    """

    def __init__(
        self,
        args: Sequence[str | Path],
        *,
        address: tuple[str, int] | str | None = None,
        answers: Callable[[], bool] | None = None,
        env: Mapping[str, str] | None = None,
        cwd: str | Path | None = None,
        start_limit_s: float = START_LIMIT_S,
    ) -> None:
        self.args = [str(arg) for arg in args]
        self.address = address
        self.start_limit_s = start_limit_s
        self.folder = guard.folder()
        self.log = self.folder / "log"
        self.paused = False
        self._answers = answers
        self._env = env
        self._cwd = cwd
        self._process: subprocess.Popen[bytes] | None = None

    def __repr__(self) -> str:
        state = "paused" if self.paused else "running" if self.running else "down"
        return f"<{type(self).__name__} {self.name} {state}{f' pid {self.pid}' if self.running else ''}>"

    @property
    def name(self) -> str:
        """Where it listens, else the program's name."""
        if isinstance(self.address, tuple):
            return f"{self.address[0]}:{self.address[1]}"
        return self.address or Path(self.args[0]).name

    @property
    def running(self) -> bool:
        """Whether the process exists; one that is stopped exists."""
        return self._process is not None and self._process.poll() is None

    @property
    def pid(self) -> int:
        """The process's id. Raises RuntimeError when it does not run."""
        if self._process is None or not self.running:
            raise RuntimeError(f"{self!r} does not run: start() it")
        return self._process.pid

    def start(self) -> None:
        """Start the process, and return when it answers.

        Raises RuntimeError, with the end of its log, when it ends first or does not answer in ``start_limit_s``.
        """
        if self.running:
            raise RuntimeError(f"{self!r} is running already")
        self._ended()
        guard.make_again(self.folder)
        with self.log.open("ab") as log:
            self._process = self._spawn(log)
        guard.watch(self._process.pid)
        deadline = time.monotonic() + self.start_limit_s
        while not self._answering():
            if not self.running:
                code = self._process.returncode
                self.kill()
                raise RuntimeError(f"{self.name} ended with {code} before it answered; its log:\n{self.log_tail()}")
            if time.monotonic() > deadline:
                self.kill()
                raise RuntimeError(
                    f"{self.name} did not answer within {self.start_limit_s} s; its log:\n{self.log_tail()}"
                )
            time.sleep(_POLL_S)

    def kill(self) -> None:
        """Kill it (SIGKILL), and return when it is gone."""
        if self._process is not None:
            guard.kill_group(self._process.pid, signal.SIGKILL)
        self._ended()

    def terminate(self, limit_s: float = TERMINATE_LIMIT_S) -> int:
        """Ask it to end (SIGTERM), and return its exit code; it is killed where that takes longer than ``limit_s``."""
        process = self._process
        if process is None:
            return 0
        self.resume()  # one that is stopped would not hear it
        process.terminate()
        with suppress(subprocess.TimeoutExpired):
            process.wait(limit_s)
        self.kill()
        return process.returncode

    def stop(self) -> None:
        """Stop it in its tracks (SIGSTOP): its sockets stay open and nothing answers, until ``resume()``."""
        pid = self.pid
        guard.kill_group(pid, signal.SIGSTOP)
        self.paused = True
        if hasattr(os, "waitid"):  # macOS has it since Python 3.13
            os.waitid(os.P_PID, pid, os.WSTOPPED | os.WEXITED | os.WNOWAIT)

    def resume(self) -> None:
        """Let it go on after ``stop()`` (SIGCONT)."""
        if self.running:
            guard.kill_group(self.pid, signal.SIGCONT)
        self.paused = False

    def restart(self) -> None:
        """Start it again with the same arguments, address and folder; one that still runs is ended first (SIGTERM)."""
        if self.running:
            self.terminate()
        self.start()

    def close(self) -> None:
        """Kill it and remove its folder."""
        self.kill()
        guard.remove(self.folder)

    def log_tail(self, lines: int = _TAIL_LINES) -> str:
        """Return the last lines of what it wrote to its standard output and error."""
        if not self.log.exists():
            return "(empty)"
        text = self.log.read_text(encoding="utf-8", errors="replace")
        return "\n".join(text.splitlines()[-lines:]) or "(empty)"

    def _spawn(self, log: IO[bytes]) -> subprocess.Popen[bytes]:
        return self._popen(self.args, log)

    def _popen(self, args: Sequence[str], log: IO[bytes], pass_fds: Sequence[int] = ()) -> subprocess.Popen[bytes]:
        return subprocess.Popen(  # noqa: S603 -- the test says what to run
            args,
            stdin=subprocess.DEVNULL,
            stdout=log,
            stderr=log,
            cwd=self._cwd or self.folder,
            env={**os.environ, **self._env} if self._env else None,
            pass_fds=pass_fds,
            start_new_session=True,  # a group of its own, which Ctrl-C does not reach
        )

    def _ended(self) -> None:
        self.paused = False
        if self._process is not None:
            self._process.wait()
            guard.forget(self._process.pid)

    def _answering(self) -> bool:
        try:
            if self._answers is not None:
                return self._answers()
            return self.address is None or _accepts(self.address)
        except OSError:
            return False


def _accepts(address: tuple[str, int] | str) -> bool:
    if isinstance(address, tuple):
        socket.create_connection(address, timeout=1).close()
    else:
        with socket.socket(socket.AF_UNIX) as connection:
            connection.settimeout(1)
            connection.connect(address)
    return True
