"""One connection of the blocking publisher: a command, its reply, and what is certain when that fails.

A command that could not be written whole has not run: the server never saw its end. One that was written and not
answered may have run. The two are different errors here, because only the first may be sent again as it is.

A line may also *track* the registry of bound queues: the server then announces each change of it on the connection,
before the reply to any command that came after the change. So whoever has read the reply to a publish knows whether the
table he holds is that of the publish. Tracking is opted into for the one read of the table, so that an idle line has at
most one announcement waiting.
"""

from __future__ import annotations

import os
import re
import select
import socket
from collections.abc import Sequence
from time import monotonic
from typing import Any

from redis.exceptions import AuthenticationError, BusyLoadingError, RedisError, ResponseError

from .append import ORIGIN, UNKNOWN_ORIGIN, origin_of
from .dial import dial_blocking, pack
from .hosts import Address

__all__ = ["BoundTable", "Line", "Severed", "Undecided", "bound_queues"]

_yield = getattr(os, "sched_yield", None)  # not on Windows, nor on macOS before 3.15
# Some 200 us, if nobody else wants the core. After that in vain, so many calls sleep at once.
_LOOKS = 250
_FAR_CALLS = 30
_LOOPBACK = ("localhost", "127.0.0.1", "::1")
# Announced by the kernel when the other side has closed; Linux alone has POLLRDHUP.
_GONE = getattr(select, "POLLHUP", 0) | getattr(select, "POLLERR", 0) | getattr(select, "POLLRDHUP", 0)
# A kernel takes this much at once on a connection with nothing under way: no time passes in a smaller write.
_LONG_WRITE_BYTES = 64 * 1024

# Replies, whatever redis-py makes of them.
_REPLIED = (ResponseError, AuthenticationError, BusyLoadingError)

# topic -> (queue, until when by our monotonic clock)
BoundTable = dict[bytes, list[tuple[str, float]]]


class Severed(Exception):
    """The connection broke before the whole command was written: it has not run."""


class Undecided(Exception):
    """The command was written and its reply never came: it may have run."""


class Line:
    """One connection to one server; used by one thread at a time.

    ``checked_at``: when the server was last seen to be a primary. ``fresh``: no command has been answered yet.
    """

    __slots__ = ("_bound_key", "_connection", "_far", "_near", "_origin", "_poll", "_sock", "_timeout_s", "address",
                 "bound", "checked_at", "fresh", "sent", "stale", "tracked")  # fmt: skip

    def __init__(self, address: Address, timeout_s: float) -> None:
        """Connect. Raises what ``dial_blocking`` raises."""
        self.address = address
        self.checked_at = float("-inf")
        self.fresh = True
        self.sent = 0
        self._far = 0
        self._near = False
        self.bound: BoundTable = {}
        self.stale = self.tracked = False
        self._bound_key = b""
        self._origin = b""
        self._timeout_s = timeout_s
        self._connection = dial_blocking(address, timeout_s)
        self._sock: socket.socket = self._connection._sock
        self._poll: Any = None
        if hasattr(select, "poll"):  # not on Windows, nor under eventlet
            self._poll = select.poll()
            self._near = address.path is not None or address.host in _LOOPBACK
            self._poll.register(self._sock, getattr(select, "POLLIN", 1) | getattr(select, "POLLRDHUP", 0))

    def __repr__(self) -> str:
        return f"<Line to {self.address.name} sent={self.sent}{' tracked' if self.tracked else ''}>"

    def call(self, packed: bytes, timeout_s: float) -> Any:
        """Send one packed command and return its reply.

        Raises Severed, Undecided, or the error that the server replied.
        """
        self.ask(packed, timeout_s)
        return self.answer()

    def answer(self) -> Any:
        """Return the reply to what was asked last. Raises Undecided, or the error that the server replied."""
        self._await_awake()
        try:
            reply = self._connection.read_response()
        except _REPLIED:
            raise
        except (RedisError, OSError) as exc:
            raise Undecided(str(exc)) from exc
        self.fresh = False
        return reply

    def calls(self, packed: bytes, timeout_s: float, count: int) -> list[Any]:
        """Send ``count`` packed commands in one write and return their replies; of error replies the first is raised."""
        self.ask(packed, timeout_s)
        replies: list[Any] = []
        error: RedisError | None = None
        for _ in range(count):
            try:
                replies.append(self._connection.read_response())
            except _REPLIED as exc:
                error = error or exc
            except (RedisError, OSError) as exc:
                raise Undecided(str(exc)) from exc
        self.fresh = False
        if error is not None:
            raise error
        return replies

    def replies(self, packed: bytes, timeout_s: float, count: int) -> tuple[list[Any], Exception | None]:
        """Send ``count`` packed commands in one write; return their replies, errors among them, and what broke it off.

        Of those that have no reply, nobody knows whether they have run.
        """
        replies: list[Any] = []
        try:
            self.ask(packed, timeout_s)
            for _ in range(count):
                try:
                    replies.append(self._connection.read_response())
                except _REPLIED as exc:
                    replies.append(exc)
        except (Severed, RedisError, OSError) as exc:
            return replies, exc
        self.fresh = False
        return replies, None

    def with_origin(self, packed: bytes, timeout_s: float) -> bytes:
        """Return a command with the server's origin (see ``append.py``) in its place. Raises Severed: nothing was sent."""
        if not self._origin:
            questions = pack("INFO", "server") + pack("INFO", "replication")
            try:
                server, replication = self.calls(questions, timeout_s, 2)
            except ResponseError:  # an ACL may forbid it
                self._origin = UNKNOWN_ORIGIN
            except Undecided as exc:
                raise Severed(str(exc)) from exc
            else:
                self._origin = origin_of(_told(server, b"run_id"), _told(replication, b"master_replid"))
        return packed.replace(ORIGIN, self._origin, 1)

    def ask(self, packed: bytes, timeout_s: float) -> None:
        """Send packed commands, and wait for no reply. Raises Severed."""
        if self._connection._sock is None:
            raise Severed("the connection is closed")
        if timeout_s != self._timeout_s:
            self._limit(timeout_s)
        long_since = monotonic() if len(packed) > _LONG_WRITE_BYTES else None
        try:
            self._sock.sendall(packed)  # as connection.send_packed_command, which costs as much as the system call
        except (RedisError, OSError) as exc:
            raise Severed(str(exc)) from exc
        if long_since is not None:
            self._limit(max(timeout_s - (monotonic() - long_since), 0.01))

    def _await_awake(self) -> None:
        """Give the server a moment to answer before we sleep.

        One on this machine needs some ten microseconds, and being woken takes a thread several times as long: this
        doubles the rate where the server has a core of its own, and costs nothing where it shares ours. One on another
        machine takes longer than that.
        """
        if not self._near or _yield is None:
            return
        if self._far:
            self._far -= 1
            return
        ready = self._poll.poll
        for _ in range(_LOOKS):
            if ready(0):
                return
            _yield()
        self._far = _FAR_CALLS

    def _limit(self, timeout_s: float) -> None:
        self._timeout_s = timeout_s
        self._sock.settimeout(timeout_s)

    def is_dead(self) -> bool:
        """Say whether the server has closed the connection; costs one system call, and waits for nothing."""
        if self._connection._sock is None:
            return True
        if self._poll is None:
            readable = bool(select.select([self._sock], [], [], 0)[0])
            return readable and self._at_end()
        events = self._poll.poll(0)
        if not events:
            return False
        return bool(events[0][1] & _GONE) or self._at_end()

    def _at_end(self) -> bool:
        # Something is there to read: an announcement, or the end.
        try:
            # The plain socket's, because TLS sockets refuse flags.
            return socket.socket.recv(self._sock, 1, socket.MSG_PEEK) == b""
        except (BlockingIOError, InterruptedError):
            return False
        except OSError:
            return True

    # --- the registry of bound queues

    def track(self, key: bytes, timeout_s: float) -> bool:
        """Have changes of the registry ``key`` announced here, and read it; False where the server refuses.

        Raises Severed or Undecided.
        """
        parser = self._connection._parser
        if not hasattr(parser, "set_invalidation_push_handler"):
            return False
        parser.set_invalidation_push_handler(self._announced)
        self._bound_key = key
        try:
            self.call(pack("CLIENT", "TRACKING", "ON", "OPTIN"), timeout_s)
            self.tracked = True
            self.load_bound(key, timeout_s)
        except ResponseError:
            self.tracked = False
        return self.tracked

    def _announced(self, push: Sequence[Any]) -> None:
        self.stale = True

    def load_bound(self, key: bytes, timeout_s: float) -> BoundTable:
        """Read the registry. Raises Severed, Undecided, or the error that the server replied."""
        commands = [pack("TIME"), pack("ZRANGE", key, 0, -1, "WITHSCORES")]
        if self.tracked:
            commands.insert(1, pack("CLIENT", "CACHING", "YES"))  # for the one command after it
        self.stale = False
        replies = self.calls(b"".join(commands), timeout_s, len(commands))
        (now_s, now_us), members = replies[0], replies[-1]
        ahead_s = int(now_s) + int(now_us) / 1e6 - monotonic()
        table: BoundTable = {}
        for member, until_ms in members:
            topic, _, queue = member.partition(b"\0")
            table.setdefault(topic, []).append((queue.decode(), float(until_ms) / 1000 - ahead_s))
        self.bound = table
        return table

    def current_bound(self, timeout_s: float) -> BoundTable:
        """Return the registry as it was at the last reply, on a line that tracks it."""
        return self.load_bound(self._bound_key, timeout_s) if self.stale else self.bound

    # --- the end

    def close(self) -> None:
        """End the connection."""
        self._release_parser()
        self._connection.disconnect()

    def abandon(self) -> None:
        """Close the descriptor and send nothing: for a connection that was inherited through a fork."""
        self._release_parser()
        # Not redis-py's disconnect: it may wait for locks that threads of the parent held at the fork.
        self._connection._sock = None
        self._sock.close()

    def _release_parser(self) -> None:
        # The parser's handler refers to this line: without the circle, the end is the end.
        parser = self._connection._parser
        if hasattr(parser, "set_invalidation_push_handler"):
            parser.set_invalidation_push_handler(None)


def _told(info: bytes | str, name: bytes) -> str:
    """Return one line's value of what INFO answered, "" where it is not told."""
    text = info if isinstance(info, bytes) else info.encode()
    found = re.search(rb"^%b:(\S+)" % name, text, re.MULTILINE)
    return found[1].decode() if found is not None else ""


def bound_queues(table: BoundTable, topic: bytes) -> list[str]:
    """Return the queues that are bound to a topic now."""
    entries = table.get(topic)
    if not entries:
        return []
    now = monotonic()
    return [queue for queue, until in entries if until > now]
