"""The embedded Valkey's warden: a small process that keeps one server up while somebody uses it, and then stops it.

A program of the standard library alone, run with ``python -I -S``: it must know no Antiphon. ``embedded.py`` starts it,
with a lock on ``warden.lock`` that it inherits; the lock is the proof that it lives, and at most one can hold it.

Every process that uses the server holds a shared lock on ``users``. The warden waits for an exclusive one, so that
the kernel wakes it when the last user is gone, however it went.
"""

from __future__ import annotations

import contextlib
import errno
import fcntl
import json
import os
import select
import signal
import socket
import sys
import threading
import time

if sys.platform == "win32":
    raise SystemExit("no file locks here")

# The longest pause between two attempts to start a server that dies at once, seconds.
LONGEST_PAUSE_S = 1.0
# How often the files are looked after, while nothing happens, seconds.
CARE_EVERY_S = 30.0
STOP_LIMIT_S = 10.0


class Warden:
    """Keeps the server of one folder up."""

    def __init__(self, argv: list[str], folder: str, data: str, linger_s: float, lock: int) -> None:
        self.argv = argv
        self.folder = folder
        self.path = os.path.join(folder, "valkey.sock")  # noqa: PTH118 - pathlib would double the time to start
        self.data = data
        self.linger_s = linger_s
        self.lock = lock
        self.pid = 0  # of the server, where it is our child
        self.stopping = False
        self._data_lock: int | None = None
        self._said = ""
        self._mutex = threading.Lock()  # a server is either being started or being stopped

    def run(self) -> None:
        """Keep the server up until the last user has been gone for ``linger_s`` seconds, or SIGTERM comes."""
        users = os.open(f"{self.folder}/users", os.O_CREAT | os.O_RDWR | os.O_CLOEXEC, 0o600)
        threading.Thread(target=self.keep, daemon=True).start()
        with contextlib.suppress(SystemExit):
            while True:
                fcntl.flock(users, fcntl.LOCK_EX)  # granted when nobody is left
                fcntl.flock(users, fcntl.LOCK_UN)
                time.sleep(self.linger_s)
                with contextlib.suppress(BlockingIOError):
                    # Kept to our end: whoever comes now waits for it, and starts the next server.
                    fcntl.flock(users, fcntl.LOCK_EX | fcntl.LOCK_NB)
                    break
        self.stop()
        os._exit(0)

    # The server

    def keep(self) -> None:
        """Start the server where none runs, and start it again when it dies."""
        # A signal is for the thread that waits in a lock: nothing else would wake it.
        signal.pthread_sigmask(signal.SIG_BLOCK, {signal.SIGTERM})
        pause_s = 0.0
        while not self.stopping:
            link = self.dial()
            if link is None:
                time.sleep(pause_s)
                pause_s = min(max(2 * pause_s, 0.05), LONGEST_PAUSE_S)
                with self._mutex:
                    if not self.stopping:
                        try:
                            self.start()
                        except OSError as exc:
                            self.say(f"cannot start the server: {exc}")
                continue
            began = time.monotonic()
            with link:
                self.hold(link)
            if time.monotonic() - began > LONGEST_PAUSE_S:
                pause_s = 0.0

    def hold(self, link: socket.socket) -> None:
        """Wait until the server at the other end is gone: an open connection says so at once."""
        while True:
            if select.select([link], [], [], CARE_EVERY_S)[0]:
                with contextlib.suppress(OSError):
                    if link.recv(4096):
                        continue
                return
            if not self.care():
                self.say("the folder was removed under us: stopping")
                os.kill(os.getpid(), signal.SIGTERM)
                return

    def care(self) -> bool:
        """Keep the files from looking old to whoever tidies up; False when they are gone."""
        try:
            if not os.path.samestat(os.fstat(self.lock), os.stat(f"{self.folder}/warden.lock")):  # noqa: PTH116
                return False
            for name in ("", "warden.lock", "users", "valkey.sock"):
                os.utime(os.path.join(self.folder, name))  # noqa: PTH118
        except OSError:
            return False
        return True

    def dial(self) -> socket.socket | None:
        """Return a connection to the server that runs, if one does."""
        link = socket.socket(socket.AF_UNIX)
        try:
            link.connect(self.path)
        except OSError:
            link.close()
            return None
        return link

    def start(self) -> None:
        """Start the server and wait until its socket is there, or it has ended."""
        self.reap(limit_s=5.0)
        if not self.claim_data():
            return
        self.pid = os.posix_spawn(self.argv[0], self.argv, os.environ, setsigmask=[])
        while os.waitpid(self.pid, os.WNOHANG) == (0, 0):
            link = self.dial()
            if link is not None:
                link.close()
                return
            time.sleep(0.003)
        self.pid = 0
        self.say("the server ended as soon as it was started")

    def claim_data(self) -> bool:
        """Lock the folder of the data, for ourselves and the server that inherits it: two servers would ruin it."""
        if self._data_lock is None:
            descriptor = os.open(f"{self.data}/valkey.lock", os.O_CREAT | os.O_RDWR, 0o600)
            try:
                fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
            except OSError as exc:
                os.close(descriptor)
                if exc.errno not in {errno.EWOULDBLOCK, errno.EACCES}:
                    raise
                self.say(
                    f"the data in {self.data} is in use by a Valkey of this project that cannot be reached from here: "
                    f"another temporary directory than {os.path.dirname(self.folder)}? "  # noqa: PTH120
                    "Give both processes the same `directory`."
                )
                return False
            os.set_inheritable(descriptor, True)
            self._data_lock = descriptor
        return True

    def reap(self, limit_s: float) -> None:
        """Wait for the end of a server of ours, which is to end; kill it after ``limit_s``."""
        limit = time.monotonic() + limit_s
        while self.pid and os.waitpid(self.pid, os.WNOHANG) == (0, 0):
            if time.monotonic() > limit:
                os.kill(self.pid, signal.SIGKILL)
            time.sleep(0.003)
        self.pid = 0

    def stop(self) -> None:
        """Stop the server, and wait until it has written what it keeps."""
        signal.signal(signal.SIGTERM, signal.SIG_IGN)
        self.stopping = True
        with self._mutex:
            if self.pid:
                os.kill(self.pid, signal.SIGTERM)
                self.reap(STOP_LIMIT_S)
            elif (link := self.dial()) is not None:  # one that another warden started
                with link, contextlib.suppress(OSError):
                    link.settimeout(STOP_LIMIT_S)
                    link.sendall(b"SHUTDOWN\r\n")
                    while link.recv(4096):
                        pass
            with contextlib.suppress(OSError):
                os.unlink(self.path)  # noqa: PTH108

    def say(self, text: str) -> None:
        """Write a line to the log, which the server writes to as well; not the same one twice in a row."""
        if text == self._said:
            return
        self._said = text
        sys.stderr.write(f"{os.getpid()}:W {time.strftime('%d %b %Y %H:%M:%S')} * antiphon: {text}\n")
        sys.stderr.flush()


def main() -> None:
    """Become a process of our own, and keep the server."""
    job = json.loads(sys.argv[1])
    if os.fork():
        os._exit(0)  # whoever started us waits for this, and for nothing else
    signal.pthread_sigmask(signal.SIG_SETMASK, [])  # a thread's mask is inherited
    signal.signal(signal.SIGTERM, lambda *_: sys.exit())
    for number in (signal.SIGINT, signal.SIGHUP):
        signal.signal(number, signal.SIG_IGN)
    os.umask(0o077)
    os.chdir("/")
    os.set_inheritable(job["lock"], False)  # ours, not the server's
    Warden(**job).run()


if __name__ == "__main__":
    main()
