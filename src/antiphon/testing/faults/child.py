"""``ChildProcess``: a function of a module in another process, and a line of JSON to it. Knows neither layer nor server."""

from __future__ import annotations

import asyncio
import importlib
import importlib.util
import inspect
import json
import os
import select
import socket
import subprocess
import sys
import time
from collections.abc import Callable, Mapping
from pathlib import Path
from types import ModuleType
from typing import IO, Any

from .process import START_LIMIT_S, ServerProcess

__all__ = ["ChildProcess", "Peer"]

RECEIVE_LIMIT_S = 20.0
# Before anything is imported: the child looks for modules where its parent does.
_PROGRAM = """
import json, sys
order = json.loads(sys.argv[1])
sys.path[:] = order["path"]
from antiphon.testing.faults.child import run
run(order)
"""


class Peer:
    """One end of the line: values go as JSON, a line each. EOFError says that the other end is gone."""

    def __init__(self, connection: socket.socket) -> None:
        self._socket = connection
        self._buffer = bytearray()

    def send(self, value: Any) -> None:
        """Send a value that JSON can hold."""
        try:
            self._socket.sendall(json.dumps(value).encode() + b"\n")
        except OSError as exc:
            raise EOFError("the other process has ended") from exc

    def receive(self, timeout_s: float | None = RECEIVE_LIMIT_S) -> Any:
        """Wait for the next value, blocking the thread. Raises TimeoutError, and EOFError at the end."""
        deadline = None if timeout_s is None else time.monotonic() + timeout_s
        while (line := self._line()) is None:
            left = None if deadline is None else max(0.0, deadline - time.monotonic())
            if not select.select([self._socket], [], [], left)[0]:
                raise TimeoutError(f"nothing received within {timeout_s} s")
            self._fill()
        return json.loads(line)

    async def receive_async(self, timeout_s: float | None = RECEIVE_LIMIT_S) -> Any:
        """Wait for the next value while the loop goes on. One task at a time."""
        loop = asyncio.get_running_loop()
        async with asyncio.timeout(timeout_s):
            while (line := self._line()) is None:
                readable = asyncio.Event()
                loop.add_reader(self._socket.fileno(), readable.set)
                try:
                    await readable.wait()
                finally:
                    loop.remove_reader(self._socket.fileno())
                self._fill()
        return json.loads(line)

    def close(self) -> None:
        """Close this end."""
        self._socket.close()

    def _line(self) -> bytes | None:
        line, newline, rest = self._buffer.partition(b"\n")
        if not newline:
            return None
        self._buffer = rest
        return bytes(line)

    def _fill(self) -> None:
        try:
            data = self._socket.recv(65536)
        except ConnectionResetError:
            data = b""
        if not data:
            raise EOFError("the other process has ended")
        self._buffer += data


class ChildProcess(ServerProcess):
    """Calls ``function(peer, *args)`` in a fresh interpreter, from ``start()`` on; a context manager, too.

    ``function``: ``"module:function"``, or a function of a module's top level; a coroutine function is run on an event
    loop. ``args`` are what JSON can hold. The two sides talk over ``send()`` and ``receive()``, there on ``peer``.
    ``start()`` returns when the function is about to be called; the child ends when it returns. What it prints is in
    ``log``, and its end is told by EOFError with the end of that log.
    """

    def __init__(
        self,
        function: str | Callable[..., Any],
        *args: Any,
        env: Mapping[str, str] | None = None,
        cwd: str | Path | None = None,
        start_limit_s: float = START_LIMIT_S,
    ) -> None:
        super().__init__(
            [sys.executable], answers=self._greeted, env=env, cwd=cwd or Path.cwd(), start_limit_s=start_limit_s
        )
        self._order = {"path": sys.path, "args": args, **_place(function)}
        self._peer: Peer | None = None

    @property
    def name(self) -> str:
        """The function's name."""
        return f"{self._order['module']}:{self._order['function']}"

    def start(self) -> None:
        """Start the interpreter, and return when the function is about to be called."""
        if self._peer is not None and not self.running:
            self._peer.close()
        super().start()

    def send(self, value: Any) -> None:
        """Send a value to the function's ``peer``."""
        self._line().send(value)

    def receive(self, timeout_s: float | None = RECEIVE_LIMIT_S) -> Any:
        """Return the next value from the child, blocking the thread until then.

        Raises TimeoutError, and EOFError, with the end of the child's log, when it has ended.
        """
        try:
            return self._line().receive(timeout_s)
        except EOFError as exc:
            raise self._gone() from exc

    async def receive_async(self, timeout_s: float | None = RECEIVE_LIMIT_S) -> Any:
        """Do as ``receive()`` while the loop goes on."""
        try:
            return await self._line().receive_async(timeout_s)
        except EOFError as exc:
            raise self._gone() from exc

    def wait(self, limit_s: float = RECEIVE_LIMIT_S) -> int:
        """Wait for the function's end, and return the exit code: 0, or 1 when it raised. Raises TimeoutError."""
        if self._process is None:
            raise RuntimeError(f"{self!r} was not started")
        try:
            return self._process.wait(limit_s)
        except subprocess.TimeoutExpired as exc:
            raise TimeoutError(f"{self!r} did not end within {limit_s} s; its log:\n{self.log_tail()}") from exc

    def close(self) -> None:
        """Kill it and remove its folder."""
        super().close()
        if self._peer is not None:
            self._peer.close()

    def _spawn(self, log: IO[bytes]) -> subprocess.Popen[bytes]:
        ours, theirs = socket.socketpair()
        self._peer = Peer(ours)
        order = json.dumps(self._order | {"fd": theirs.fileno()})
        with theirs:
            return self._popen([*self.args, "-c", _PROGRAM, order], log, pass_fds=(theirs.fileno(),))

    def _greeted(self) -> bool:
        try:
            return bool(self._line().receive(0.05))
        except (TimeoutError, EOFError):
            return False

    def _line(self) -> Peer:
        if self._peer is None:
            raise RuntimeError(f"{self!r} was not started")
        return self._peer

    def _gone(self) -> EOFError:
        return EOFError(f"{self!r} has ended; its log:\n{self.log_tail()}")


def run(order: Mapping[str, Any]) -> None:
    """Do what the parent ordered; called in the child."""
    peer = Peer(socket.socket(fileno=order["fd"]))
    os.set_inheritable(order["fd"], False)
    function = getattr(_module(order["module"], order["file"]), order["function"])
    peer.send(True)
    if inspect.iscoroutinefunction(function):
        asyncio.run(function(peer, *order["args"]))
    else:
        function(peer, *order["args"])
    peer.close()


def _place(function: str | Callable[..., Any]) -> dict[str, str | None]:
    if isinstance(function, str):
        module, _, name = function.partition(":")
        if not (module and name):
            raise ValueError(f"expected 'module:function', got {function!r}")
        return {"module": module, "function": name, "file": None}
    if "." in function.__qualname__:
        raise ValueError(f"expected a function of a module's top level, got {function!r}")
    return {"module": function.__module__, "function": function.__name__, "file": inspect.getsourcefile(function)}


def _module(name: str, file: str | None) -> ModuleType:
    # From its file where the parent had it from there: runners of tests import files that stand on no path.
    if file is None:
        return importlib.import_module(name)
    spec = importlib.util.spec_from_file_location(name if name != "__main__" else "__mp_main__", file)
    if spec is None or spec.loader is None:
        raise ImportError(f"cannot import {file}")
    module = importlib.util.module_from_spec(spec)
    sys.modules[spec.name] = module
    spec.loader.exec_module(module)
    return module
