"""Asks the server what it did: its processor time, commands, bytes and connections. Needs no client library."""

from __future__ import annotations

import socket

__all__ = ["Reading", "Watch"]


class Reading:
    """What the server has counted since it started, at one moment."""

    def __init__(self, info: dict[str, str]) -> None:
        self.cpu_s = float(info["used_cpu_user"]) + float(info["used_cpu_sys"])
        self.commands = int(info["total_commands_processed"])
        self.connections = int(info["total_connections_received"])
        self.bytes_out = int(info["total_net_output_bytes"])
        self.published = sum(calls_of(value) for name, value in info.items() if name in _PUBLISHES)
        self.version = info.get("valkey_version") or info["redis_version"]


_PUBLISHES = ("cmdstat_publish", "cmdstat_spublish")


def calls_of(stat: str) -> int:
    """Return N of ``calls=N,usec=…``."""
    return int(stat.partition("calls=")[2].partition(",")[0])


class Watch:
    """One connection of our own to the server at a Unix socket."""

    def __init__(self, path: str) -> None:
        self.socket = socket.socket(socket.AF_UNIX)
        self.socket.connect(path)
        self.file = self.socket.makefile("rb")

    def read(self) -> Reading:
        """Return what the server has counted so far; this question is one command of it."""
        self.socket.sendall(b"INFO everything\r\n")
        size = int(self.file.readline()[1:])
        text = self.file.read(size + 2).decode()
        return Reading(dict(line.split(":", 1) for line in text.splitlines() if ":" in line))

    def close(self) -> None:
        """Hang up."""
        self.file.close()
        self.socket.close()
