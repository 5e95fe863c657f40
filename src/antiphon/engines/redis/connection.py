"""One socket to one Redis or Valkey server: RESP3, replies in order, pushes as they come. Knows no topic.

What one turn of the loop sends travels in one write. What arrives is handled in slices of ``SLICE_S``, so that a burst
never holds the loop. A connection that has ended keeps in ``pending`` what was not answered, for the link to deal
with, and is not used again.

RESP3: https://github.com/redis/redis-specifications/blob/master/protocol/RESP3.md
"""

from __future__ import annotations

import asyncio
import itertools
from collections import deque
from collections.abc import Callable, Iterator, Sequence
from math import inf
from time import monotonic
from typing import Any

from hiredis import PushNotification, Reader, ReplyError, pack_command

from ...exceptions import EngineUnavailable
from ...types import Receipt
from .append import ORIGIN, UNKNOWN_ORIGIN, Publication
from .hosts import Address

__all__ = ["Call", "Connection", "ReplyError", "look", "until_ended"]

SLICE_S = 0.005
# Bytes that the kernel does not take: beyond the first, new publishes wait; beyond the second, the server is wedged.
HIGH_WATER_BYTES = 4 << 20
UNSENT_MAX_BYTES = 64 << 20

_MORE = object()
_RECEIPTS = tuple(Receipt(nodes) for nodes in range(257))


class Call:
    """A command whose reply goes to a future as it is."""

    __slots__ = ("future",)

    def __init__(self, future: asyncio.Future[Any]) -> None:
        self.future = future

    def answer(self, reply: Any) -> bool:
        """Take a reply; True when nothing more is expected."""
        if not self.future.done():
            if isinstance(reply, ReplyError):
                self.future.set_exception(reply)
            else:
                self.future.set_result(reply)
        return True


class _Fence(Call):
    """Commands that are answered by pushes alone, then a HELLO: its reply says that all before it is done.

    Not a PING, which a server refuses while its disk is full (MISCONF), a script runs (BUSY) or it loads: HELLO never.

    An error among them comes as a reply of its own, one too many: it belongs to this entry too.
    """

    __slots__ = ("error",)

    def __init__(self, future: asyncio.Future[Any]) -> None:
        super().__init__(future)
        self.error: ReplyError | None = None

    def answer(self, reply: Any) -> bool:
        if isinstance(reply, ReplyError):
            self.error = self.error or reply
            return False
        return super().answer(self.error if self.error is not None else reply)


class Connection(asyncio.Protocol):
    """A connected socket. ``ended`` is done when it is of no use any more; its result says why.

    ``on_push(push)`` gets every message of a subscription and every other push: a list. ``on_published(publication,
    reply)`` gets each publish whose reply is not a plain number, and every one while ``settling`` is set.
    """

    def __init__(
        self,
        loop: asyncio.AbstractEventLoop,
        on_push: Callable[[list[Any]], None],
        on_published: Callable[[Publication, Any], None],
    ) -> None:
        self.loop = loop
        self.ended: asyncio.Future[str] = loop.create_future()
        self.settling = False
        self.origin = UNKNOWN_ORIGIN  # of the server: see append.py
        self.received_s = monotonic()
        self.pending: deque[Publication | Call] = deque()
        self._on_push = on_push
        self._on_published = on_published
        self._reader = Reader(notEnoughData=_MORE)
        self._transport: asyncio.Transport | None = None
        self._out: list[bytes] = []  # one item an entry of ``pending``
        self._scheduled = False
        self._writable = True
        self._reading = True
        # (when, how many entries had been sent by then): the age of what waits, without a clock for each command.
        self._marks: deque[tuple[float, int]] = deque()
        self._answered = 0
        self._unsent_bytes = 0
        self.blocked_since_s = inf  # when the kernel stopped taking anything

    def __repr__(self) -> str:
        state = "ended" if self.ended.done() else "open"
        return f"<Connection {state}, {len(self.pending)} unanswered>"

    @classmethod
    async def open(
        cls,
        address: Address,
        on_push: Callable[[list[Any]], None],
        on_published: Callable[[Publication, Any], None],
    ) -> Connection:
        """Connect. Raises OSError or TimeoutError."""
        loop = asyncio.get_running_loop()
        async with asyncio.timeout(address.connect_timeout_s):
            if address.path is not None:
                _, connection = await loop.create_unix_connection(
                    lambda: cls(loop, on_push, on_published), address.path
                )
            else:
                _, connection = await loop.create_connection(
                    lambda: cls(loop, on_push, on_published), address.host, address.port, ssl=address.ssl
                )
        return connection

    # Sending

    def publish(self, wire: bytes, publication: Publication) -> None:
        """Send a publish, in line with everything else; ``wire`` is the whole command."""
        if type(publication) is not tuple:
            wire = wire.replace(ORIGIN, self.origin, 1)
        self.pending.append(publication)
        self._out.append(wire)
        if not self._scheduled:
            self._scheduled = True
            self.loop.call_soon(self._flush)

    def call(self, *command: bytes | str | int) -> asyncio.Future[Any]:
        """Send a command; its reply is the future's result, an error reply its ReplyError."""
        future: asyncio.Future[Any] = self.loop.create_future()
        if ORIGIN in command:
            command = tuple(self.origin if part == ORIGIN else part for part in command)
        self._send(pack_command(command), Call(future))  # type: ignore[arg-type]  # its stub says a tuple of one
        return future

    def fence(self, *commands: Sequence[bytes]) -> asyncio.Future[Any]:
        """Send commands that are answered by pushes; the future is done when the server has done them all."""
        future: asyncio.Future[Any] = self.loop.create_future()
        wires = [pack_command(tuple(command)) for command in commands]  # type: ignore[arg-type]  # as above
        self._send(b"".join([*wires, _HELLO]), _Fence(future))
        return future

    def _send(self, wire: bytes, entry: Call) -> None:
        if self.ended.done():
            entry.future.set_exception(EngineUnavailable(f"no connection: {self.ended.result()}"))
            return
        self.pending.append(entry)
        self._out.append(wire)
        if not self._scheduled:
            self._scheduled = True
            self.loop.call_soon(self._flush)

    def _flush(self) -> None:
        self._scheduled = False
        # uvloop raises for a write to what is closing, where asyncio drops it: it stays unwritten, and is told as such.
        if not self._writable or self._transport is None or self._transport.is_closing():
            self._unsent_bytes = sum(map(len, self._out))
            if self._unsent_bytes > UNSENT_MAX_BYTES:
                self.abort(f"it does not take the {self._unsent_bytes >> 20} MiB that wait for it")
            return
        out, self._out = self._out, []
        if out:
            self._marks.append((monotonic(), self._answered + len(self.pending)))
            self._transport.write(out[0] if len(out) == 1 else b"".join(out))

    @property
    def congested(self) -> bool:
        """Whether the server takes what it is sent much slower than it comes."""
        return self._unsent_bytes > HIGH_WATER_BYTES

    def unanswered(self) -> Iterator[tuple[Publication | Call, float]]:
        """Yield what is not answered yet, the oldest first: (entry, when it was written; ``inf``: it was not)."""
        marks = self._marks
        while marks and marks[0][1] <= self._answered:
            marks.popleft()
        entries, count = iter(self.pending), self._answered
        for at, sent in marks:
            for entry in itertools.islice(entries, sent - count):
                yield entry, at
            count = sent
        for entry in entries:
            yield entry, inf

    def fail_overdue(self, now: float, limit_s: float, error: Callable[[str], EngineUnavailable]) -> None:
        """Fail the publishes that have waited longer than ``limit_s`` for their reply."""
        for entry, written_s in self.unanswered():
            if now - min(written_s, self.blocked_since_s) <= limit_s:
                break
            if not isinstance(entry, Call) and not entry[0].done():
                entry[0].set_exception(error(f"not confirmed within {limit_s:g} s; it may or may not have arrived"))

    # Receiving

    def data_received(self, data: bytes) -> None:
        """Take bytes from the socket."""
        self.received_s = monotonic()
        self._reader.feed(data)
        if self._reading:
            self._drain()

    def _drain(self) -> None:
        gets, pending = self._reader.gets, self.pending
        until = monotonic() + SLICE_S
        handled = 0
        try:
            while (reply := gets()) is not _MORE:
                if type(reply) is int and type(entry := pending[0]) is tuple and not self.settling:
                    # The reply to a publish, as nearly all are: ``_answer`` in place, for 5 % of a publish's cost.
                    pending.popleft()
                    self._answered += 1
                    future = entry[0]
                    if not future.done():
                        future.set_result(_RECEIPTS[reply] if reply < 257 else Receipt(reply))
                elif type(reply) is PushNotification:
                    self._on_push(reply)
                else:
                    self._answer(pending, reply)
                handled += 1
                if not handled & 15 and monotonic() >= until:
                    # A burst: the loop gets its turn, the socket waits.
                    self._pause_reading()
                    self.loop.call_soon(self._drain)
                    return
        except Exception as exc:  # bytes that are no RESP, or a reply that nobody asked for
            self.abort(f"its answer cannot be read: {exc!r}")
            return
        if not self._reading:
            self._reading = True
            if self._transport is not None and not self._transport.is_closing():
                self._transport.resume_reading()

    def _answer(self, pending: deque[Publication | Call], reply: Any) -> None:
        entry = pending[0]
        if isinstance(entry, Call):
            if entry.answer(reply):
                pending.popleft()
                self._answered += 1
            return
        pending.popleft()
        self._answered += 1
        self._on_published(entry, reply)

    def _pause_reading(self) -> None:
        if self._reading:
            self._reading = False
            if self._transport is not None and not self._transport.is_closing():
                self._transport.pause_reading()

    # The transport's calls

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        """Begin."""
        self._transport = transport  # type: ignore[assignment]  # a stream's transport is a Transport, by its methods
        transport.set_write_buffer_limits(high=HIGH_WATER_BYTES)  # type: ignore[attr-defined]

    def pause_writing(self) -> None:
        """Hold back: the kernel takes no more."""
        self._writable = False
        self.blocked_since_s = monotonic()

    def resume_writing(self) -> None:
        """Go on."""
        self._writable = True
        self.blocked_since_s = inf
        self._unsent_bytes = 0
        self._flush()

    def connection_lost(self, exc: Exception | None) -> None:
        """End."""
        self.end(f"the connection broke: {exc}" if exc is not None else "the server closed the connection")

    # Ending

    def end(self, reason: str) -> None:
        """Say that it is of no use any more."""
        if not self.ended.done():
            self.ended.set_result(reason)

    def abort(self, reason: str) -> None:
        """End at once, whatever was not written yet."""
        self.end(reason)
        if self._transport is not None:
            self._transport.abort()

    def close(self) -> None:
        """End when what was sent is written."""
        if not self.ended.done():
            self._flush()
            self.end("closed by us")
        if self._transport is not None:
            self._transport.close()

    def give_up(self, reason: str) -> None:
        """Abort, with nobody waiting for a reply any more."""
        self.abort(reason)
        for entry in self.pending:
            if isinstance(entry, Call):
                entry.future.cancel()

    def fileno(self) -> int:
        """Return the socket's descriptor, or -1."""
        sock = self._transport.get_extra_info("socket") if self._transport is not None else None
        return int(sock.fileno()) if sock is not None else -1


_HELLO = pack_command((b"HELLO",))


def look(done: asyncio.Future[Any]) -> None:
    """Fetch a future's error: somebody may have stopped waiting, and then it is not worth a warning."""
    if not done.cancelled():
        done.exception()


async def until_ended(connection: Connection, future: asyncio.Future[Any]) -> Any:
    """Wait for a reply, or for the end of the connection. Raises EngineUnavailable then."""
    future.add_done_callback(look)  # it may fail when nobody waits any more
    await asyncio.wait((future, connection.ended), return_when=asyncio.FIRST_COMPLETED)
    if not future.done():
        raise EngineUnavailable(connection.ended.result())
    return future.result()
