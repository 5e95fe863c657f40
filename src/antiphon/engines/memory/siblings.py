"""Finds other processes of the same project whose in-memory layers hold connections. Knows no messages.

A process that holds connections keeps an exclusive lock on a file named after itself, in a private folder of the
user and project; the lock ends with the process, however it ends. Where file locks do not exist (Windows) nothing is
found, and nothing is said.
"""

from __future__ import annotations

import contextlib
import logging
import os
import time
from importlib import import_module
from pathlib import Path
from typing import IO, Any

from ... import framework
from ...project import private_folder, project_key, project_name, runtime_home

# Any: type checkers for Windows, where it is None, know no function of it.
fcntl: Any
try:
    fcntl = import_module("fcntl")
except ImportError:  # pragma: no cover - Windows
    fcntl = None

__all__ = ["Siblings"]

logger = logging.getLogger("antiphon.layer")

# Others hold our file for microseconds, while they look whether we live; at worst a lock waits this many milliseconds.
_ATTEMPTS = 20


class Siblings:
    """The processes of this project, of this user, on this machine."""

    def __init__(self, name: str) -> None:
        self.name = name
        self._lock: IO[bytes] | None = None
        self._warned = False

    def announce(self) -> None:
        """Say that this process holds connections, and warn once if another does too. Never raises."""
        if self._lock is not None or fcntl is None or framework.current().under_test():
            return
        with contextlib.suppress(OSError):
            self._lock = self._claim(self._folder() / str(os.getpid()))
            others = self.alive()
            if others and not self._warned:
                self._warned = True
                logger.warning(
                    "The in-memory channel layer %r does not cross processes, and process %s of this project serves "
                    "connections too: members here and there do not hear each other. Run one process, or use "
                    "antiphon.layers.EmbeddedChannelLayer or antiphon.layers.RedisChannelLayer.",
                    self.name,
                    ", ".join(map(str, others)),
                )

    def alive(self) -> list[int]:
        """Return the ids of the other processes that hold connections."""
        if fcntl is None or framework.current().under_test():
            return []
        found = []
        with contextlib.suppress(OSError):
            for path in self._folder().iterdir():
                if path.name.isdigit() and int(path.name) != os.getpid() and self._held(path):
                    found.append(int(path.name))
        return sorted(found)

    def _claim(self, path: Path) -> IO[bytes]:
        """Return our own file, locked. Raises OSError when that cannot be done."""
        for _ in range(_ATTEMPTS):
            file = self._open(path)
            with contextlib.suppress(OSError):
                fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
                # A process that looks around takes what is not locked yet for that of a dead one, and removes it.
                if os.path.samestat(os.fstat(file.fileno()), path.lstat()):
                    return file
            file.close()
            time.sleep(0.001)
        raise OSError(f"cannot lock {path}")

    def _held(self, path: Path) -> bool:
        with contextlib.suppress(OSError), self._open(path) as file:
            try:
                fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
            except BlockingIOError:
                return True
            path.unlink()  # its process is gone
        return False

    def _open(self, path: Path) -> IO[bytes]:
        # O_NOFOLLOW: the folder is ours alone, but a link in it would still be somebody's trick.
        descriptor = os.open(path, os.O_CREAT | os.O_RDWR | getattr(os, "O_NOFOLLOW", 0), 0o600)
        return os.fdopen(descriptor, "r+b")

    def _folder(self) -> Path:
        return private_folder(private_folder(runtime_home()) / project_key(project_name(), self.name))

    def after_fork(self) -> None:
        """Forget the parent's lock: closing our copy of the descriptor does not release it."""
        if self._lock is not None:
            self._lock.close()
            self._lock = None
