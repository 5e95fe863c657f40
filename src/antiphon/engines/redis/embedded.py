"""The embedded Valkey: one server a project and user on this machine, shared by its processes over a Unix socket.

Whoever needs it first starts its warden (``warden.py``), which starts the server, starts it again when it dies, and
stops it when the last process has left. Both belong to no process that uses them, and survive each. Knows no layer.

=============== ===================================================== ==========================================
in the folder   what it is                                            who holds it
=============== ===================================================== ==========================================
valkey.sock     the server's socket; there is no port                 the server
users           lock, shared                                          every process that uses the server
warden.lock     lock, exclusive                                       the warden, or who is about to start it
valkey.lock     lock, exclusive, beside the data                      the server: two would ruin the data
valkey.log      what server and warden have to say
=============== ===================================================== ==========================================

The folder is ``<temporary directory>/antiphon-<user id>/<project>``; the append-only file lies in the user's state folder,
``~/.local/state/antiphon/<project>`` (or under ``XDG_STATE_HOME``), where it outlives a reboot. With ``directory``, all lies there.
"""

from __future__ import annotations

import asyncio
import atexit
import contextlib
import fcntl
import json
import logging
import os
import socket
import stat
import subprocess
import sys
import threading
import time
import weakref
from pathlib import Path
from typing import Self

from ...exceptions import EngineUnavailable, OptionError
from ...project import private_folder, project_key, project_name, runtime_home, state_home
from .hosts import Address
from .packaged import python, server_binary, server_command, server_version

if sys.platform == "win32":  # told to type checkers; the package with the server does not exist there
    raise ImportError("no fcntl")

__all__ = ["EmbeddedValkey"]

logger = logging.getLogger("antiphon.engine")

# What the kernel takes as the path of a Unix socket, in bytes, without its last zero.
SOCKET_PATH_MAX = 103 if sys.platform == "darwin" else 107
LOG_LIMIT_BYTES = 1 << 20
_ANSWER_LIMIT_S = 0.5
_POLL_S = 0.005
_START_LIMIT_S = 10.0


class EmbeddedValkey:
    """The Valkey of one project, as one process sees it; use ``ensure`` at every attempt to connect.

    ``project``: what its processes agree on; None: the path of Django's settings, else the current directory.
    ``persist``: keep an append-only file, written to disk every second. ``directory``: a folder for all of its files,
    where the processes have different temporary directories. ``linger_s``: how long it runs on after the last process.
    Raises MissingExtra where the package with the server is not installed, or is not for this platform.
    """

    def __init__(
        self,
        project: str | None = None,
        *,
        persist: bool = True,
        directory: str | os.PathLike[str] | None = None,
        linger_s: float = 5.0,
    ) -> None:
        self.binary = server_binary()
        self.project = project if project is not None else project_name()
        self.persist = persist
        self.linger_s = linger_s
        if directory is not None:
            self.folder = self.data = Path(directory).absolute()
        else:
            self.folder = runtime_home() / project_key(self.project)
            # By machine too: homes are shared over networks, and this server is not.
            home = state_home()
            self.data = self.folder if home is None else home / project_key(self.project, os.uname().nodename)
        self._named = directory is not None
        self.path = str(self.folder / "valkey.sock")
        if len(os.fsencode(self.path)) > SOCKET_PATH_MAX:
            raise OptionError(
                f"directory: expected a path of at most {SOCKET_PATH_MAX - len('/valkey.sock')} bytes, because that of "
                f"a Unix socket in it is limited; {'got' if self._named else 'the temporary directory leads to'} "
                f"{str(self.folder)!r} of {len(os.fsencode(self.folder))}"
            )
        self._users: int | None = None  # our lock on users
        self._electing: int | None = None  # warden.lock, while it is being handed over
        self._greeted = False
        self._mutex = threading.Lock()
        _all.add(self)

    def __repr__(self) -> str:
        return f"<EmbeddedValkey {self.path}{'' if self._users is not None else ', not in use'}>"

    @property
    def name(self) -> str:
        """The server in a log or an error."""
        return f"embedded Valkey in {self.folder}"

    # Where it is, as a link and the blocking publisher ask

    async def find(self) -> Address:
        """Return the server's address, with the server running. Raises EngineUnavailable."""
        return Address(path=await self.ensure())

    def find_blocking(self) -> Address:
        """As ``find``, from a thread."""
        return Address(path=self.ensure_blocking())

    async def ensure(self, deadline_s: float = _START_LIMIT_S) -> str:
        """Return the path of the server's socket, with the server running: it is started if nobody has.

        Never blocks the loop. Raises EngineUnavailable when it does not run after ``deadline_s`` seconds.
        """
        loop = asyncio.get_running_loop()
        future: asyncio.Future[str] = loop.create_future()

        def settle(path: str, error: Exception | None) -> None:
            if future.done():  # whoever asked was cancelled
                return
            if error is not None:
                future.set_exception(error)
            else:
                future.set_result(path)

        def work() -> None:
            path, error = "", None
            try:
                path = self.ensure_blocking(deadline_s)
            except Exception as exc:
                error = exc
            with contextlib.suppress(RuntimeError):  # the loop is closed
                loop.call_soon_threadsafe(settle, path, error)

        # A thread of its own: those of the loop's executor may all be taken by what waits for us.
        threading.Thread(target=work, name="antiphon-valkey", daemon=True).start()
        return await future

    def ensure_blocking(self, deadline_s: float = _START_LIMIT_S) -> str:
        """As ``ensure``, from a thread."""
        deadline = time.monotonic() + deadline_s
        try:
            with self._mutex:
                self._prepare()
                while True:
                    self._register(deadline)
                    answers = self._answers()
                    self._see_to_warden()
                    if answers:
                        return self.path
                    if time.monotonic() > deadline:
                        raise EngineUnavailable(
                            f"the embedded Valkey did not answer within {deadline_s:g} s; {self._last_words()}"
                        )
                    time.sleep(_POLL_S)
        except OSError as exc:
            raise EngineUnavailable(f"the embedded Valkey cannot be used: {exc}") from exc

    def close(self) -> None:
        """Leave: the last process to do so ends the server, ``linger_s`` seconds later."""
        # At the end of a process a thread may still wait for a server that does not start; the kernel unlocks for us.
        if not self._mutex.acquire(timeout=1.0):
            return
        users, self._users = self._users, None
        try:
            if users is not None:
                self._shut_down_unless_watched(users)
                os.close(users)
        finally:
            self._mutex.release()

    def after_fork(self) -> None:
        """Take part as a process of our own: what was inherited belongs to the parent."""
        self._mutex = threading.Lock()
        if self._electing is not None:
            os.close(self._electing)  # while we held it too, the warden would seem to live
            self._electing = None
        if self._users is not None:
            os.close(self._users)
            self._users = None
            with contextlib.suppress(OSError):
                self._register(time.monotonic())

    # The folder

    def _prepare(self) -> None:
        if not self._named:
            private_folder(self.folder.parent)
            if self.data != self.folder:
                self.data.parent.parent.mkdir(parents=True, exist_ok=True)
                private_folder(self.data.parent)
                private_folder(self.data)
        private_folder(self.folder, named=self._named)
        with contextlib.suppress(FileNotFoundError):
            state = os.lstat(self.path)
            if not stat.S_ISSOCK(state.st_mode) or state.st_uid != os.getuid():
                raise OSError(f"{self.path} is not a socket of ours")

    def _open(self, name: str) -> _File:
        return _File(self.folder / name)

    def _lock(self, name: str, kind: int) -> _File | None:
        """Return the locked file, or None: somebody else has it, or has just removed it."""
        file = self._open(name)
        try:
            fcntl.flock(file.descriptor, kind | fcntl.LOCK_NB)
        except BlockingIOError:
            file.close()
            return None
        if not file.is_there():
            file.close()
            return None
        return file

    def _register(self, deadline: float) -> None:
        """Be one of the users; again, if the folder was removed and made anew."""
        if self._users is not None:
            with contextlib.suppress(FileNotFoundError):
                if os.path.samestat(os.fstat(self._users), os.lstat(self.folder / "users")):
                    return
            os.close(self._users)
            self._users = None
        # Refused only while the warden looks whether anybody is left, or ends: then the next server will be ours.
        while (file := self._lock("users", fcntl.LOCK_SH)) is None:
            if time.monotonic() > deadline:
                raise EngineUnavailable(f"the embedded Valkey in {self.folder} does not end")
            time.sleep(_POLL_S)
        self._users = file.descriptor

    # The server and its warden

    def _answers(self) -> bool:
        with socket.socket(socket.AF_UNIX) as link, contextlib.suppress(OSError):
            link.settimeout(_ANSWER_LIMIT_S)
            link.connect(self.path)
            if _ask(link, b"PING") != b"PONG":  # it may still be loading its data
                return False
            if not self._greeted:
                self._greeted = True
                self._compare(_ask(link, b"INFO server"), _ask(link, b"CONFIG GET appendonly"))
            return True
        return False

    def _compare(self, info: bytes, appendonly: bytes) -> None:
        """Say once how the server that runs differs from the one that would be started."""
        running = info.partition(b"valkey_version:")[2].partition(b"\r")[0].decode()
        installed = server_version()
        if running != installed:
            logger.warning(
                "The embedded Valkey that runs is %s, the one installed is %s; it is used until the last process of "
                "this project has left",
                running or "unknown",
                installed,
            )
        if (b"yes" in appendonly) != self.persist:
            logger.warning(
                "The embedded Valkey that runs was started with persist=%s, not %s; it is used as it is until the "
                "last process of this project has left",
                not self.persist,
                self.persist,
            )

    def _see_to_warden(self) -> None:
        """Start a warden unless one lives."""
        lock = self._lock("warden.lock", fcntl.LOCK_EX)
        if lock is None:
            return
        job = {
            "argv": server_command(self.binary, self.folder, self.data, persist=self.persist),
            "folder": str(self.folder),
            "data": str(self.data),
            "linger_s": self.linger_s,
            "lock": lock.descriptor,
        }
        self._electing = lock.descriptor
        try:
            with _File(self.folder / "valkey.log") as log:
                if os.fstat(log.descriptor).st_size > LOG_LIMIT_BYTES:
                    os.ftruncate(log.descriptor, 0)
                # It forks, and its first process ends at once: nobody has to wait for the second.
                subprocess.run(  # noqa: S603 - our own program, and no shell
                    [python(), "-I", "-S", str(Path(__file__).with_name("warden.py")), json.dumps(job)],
                    stdin=subprocess.DEVNULL,
                    stdout=log.descriptor,
                    stderr=log.descriptor,
                    start_new_session=True,
                    pass_fds=[lock.descriptor],
                    timeout=_START_LIMIT_S,
                    check=False,
                )
        except subprocess.SubprocessError as exc:
            raise EngineUnavailable(f"the warden of the embedded Valkey did not start: {exc}") from exc
        finally:
            self._electing = None
            lock.close()

    def _shut_down_unless_watched(self, users: int) -> None:
        """End a server whose warden was killed, if nobody else uses it: nobody would."""
        with contextlib.suppress(OSError), socket.socket(socket.AF_UNIX) as link:
            warden = self._lock("warden.lock", fcntl.LOCK_EX)
            if warden is None:
                return
            warden.close()
            fcntl.flock(users, fcntl.LOCK_EX | fcntl.LOCK_NB)
            link.settimeout(_ANSWER_LIMIT_S)
            link.connect(self.path)
            link.sendall(b"SHUTDOWN\r\n")
            link.recv(4096)

    def _last_words(self) -> str:
        log = self.folder / "valkey.log"
        try:
            lines = log.read_text(errors="replace").splitlines()[-3:]
        except OSError:
            lines = []
        return f"the end of {log}: " + (" | ".join(lines) or "nothing")


class _File:
    """An open file of the folder."""

    def __init__(self, path: Path) -> None:
        self.path = path
        # O_NOFOLLOW: the folder is ours alone, but a link in it would still be somebody's trick.
        self.descriptor = os.open(path, os.O_CREAT | os.O_RDWR | os.O_APPEND | getattr(os, "O_NOFOLLOW", 0), 0o600)

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *args: object) -> None:
        self.close()

    def is_there(self) -> bool:
        """Say whether the path still leads to this file."""
        try:
            return os.path.samestat(os.fstat(self.descriptor), self.path.lstat())
        except FileNotFoundError:
            return False

    def close(self) -> None:
        """Close it, which ends its lock unless another process has inherited it."""
        os.close(self.descriptor)


def _ask(link: socket.socket, command: bytes) -> bytes:
    """Send one command and return the text of its reply, whatever its type."""
    link.sendall(command + b"\r\n")
    reply = b""
    while True:
        part = link.recv(65536)
        if not part:
            return b""
        reply += part
        head, mark, rest = reply.partition(b"\r\n")
        # An array's end is not looked for: the only one asked for is shorter than a packet.
        if mark and (head[:1] != b"$" or len(rest) >= int(head[1:]) + 2):
            return head[1:] if head[:1] in b"+-:" else rest


_all: weakref.WeakSet[EmbeddedValkey] = weakref.WeakSet()


def _after_fork() -> None:
    for embedded in tuple(_all):
        embedded.after_fork()


def _leave() -> None:
    for embedded in tuple(_all):
        embedded.close()


if hasattr(os, "register_at_fork"):
    os.register_at_fork(after_in_child=_after_fork)
atexit.register(_leave)
