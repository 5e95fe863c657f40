"""``RespClient``: commands to a Valkey or Redis server over one blocking socket. Knows RESP2 and nothing of the house.

Beside the clients under test on purpose: what a fault tool sees must not depend on the code whose faults are looked for.
"""

from __future__ import annotations

import os
import select
import socket
import threading
from types import TracebackType
from typing import Any, Self

__all__ = ["RespClient", "RespError"]

TIMEOUT_S = 5.0


class RespError(Exception):
    """The server answered with an error; the text is the server's."""


class RespClient:
    """Sends commands one at a time, from any thread; connects when it must, and again after the server was away."""

    def __init__(self, address: tuple[str, int] | str, password: str | None = None) -> None:
        self.address = address
        self.password = password
        self._lock = threading.Lock()
        self._connection: _Connection | None = None

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, exc: BaseException | None, traceback: TracebackType | None
    ) -> None:
        self.close()

    def command(self, *args: Any, timeout_s: float = TIMEOUT_S) -> Any:
        """Send one command and return its reply: bytes, int, None, a list, or str for a status as "OK".

        Raises RespError for the server's errors, and OSError (TimeoutError) when it cannot be reached. A list may
        hold a RespError.
        """
        with self._lock:
            try:
                reply = self._connect(timeout_s).call(args, timeout_s)
            except OSError:
                self._drop()
                raise
        if isinstance(reply, RespError):
            raise reply
        return reply

    def close(self) -> None:
        """Close the connection; the next command opens another."""
        with self._lock:
            self._drop()

    def _connect(self, timeout_s: float) -> _Connection:
        if self._connection is not None and self._connection.usable():
            return self._connection
        self._drop()
        self._connection = made = _Connection(self.address, timeout_s)
        if self.password is not None:
            reply = made.call(("AUTH", self.password), timeout_s)
            if isinstance(reply, RespError):
                self._drop()
                raise reply
        return made

    def _drop(self) -> None:
        connection, self._connection = self._connection, None
        if connection is not None:
            connection.close()


class _Connection:
    __slots__ = ("_owner", "_reader", "_socket")

    def __init__(self, address: tuple[str, int] | str, timeout_s: float) -> None:
        if isinstance(address, tuple):
            self._socket = socket.create_connection(address, timeout=timeout_s)
        else:
            self._socket = socket.socket(socket.AF_UNIX)
            try:
                self._socket.settimeout(timeout_s)
                self._socket.connect(address)
            except OSError:
                self._socket.close()
                raise
        self._reader = self._socket.makefile("rb")
        self._owner = os.getpid()

    def usable(self) -> bool:
        # Readable between commands: the server has closed it. In a forked process: it is the parent's.
        return self._owner == os.getpid() and not select.select([self._socket], [], [], 0)[0]

    def call(self, args: tuple[Any, ...], timeout_s: float) -> Any:
        parts = [arg if isinstance(arg, bytes) else str(arg).encode() for arg in args]
        body = b"".join(b"$%d\r\n%s\r\n" % (len(part), part) for part in parts)
        self._socket.settimeout(timeout_s)
        self._socket.sendall(b"*%d\r\n%s" % (len(parts), body))
        return self._read()

    def close(self) -> None:
        self._reader.close()
        self._socket.close()

    def _read(self) -> Any:
        line = self._reader.readline()
        if not line.endswith(b"\r\n"):
            raise ConnectionResetError("the server closed the connection")
        kind, rest = line[:1], line[1:-2]
        if kind == b"+":
            return rest.decode()
        if kind == b"-":
            return RespError(rest.decode(errors="replace"))
        if kind == b":":
            return int(rest)
        if kind == b"$":
            size = int(rest)
            return None if size < 0 else self._reader.read(size + 2)[:-2]
        if kind == b"*":
            count = int(rest)
            return None if count < 0 else [self._read() for _ in range(count)]
        raise ConnectionResetError(f"expected RESP2, got {line[:80]!r}")
