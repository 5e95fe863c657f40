"""What a client sends, until its consumer takes it: in order, and never more than the limits. Knows no consumer.

Events come in one of two ways, under the same rules. A server that can *pushes* them as they come, and is told to read
no further while the inbox is full; it costs no task, and the inbox itself is there only while something waits.
Elsewhere a task, the *reader*, awaits ASGI ``receive``. Either way a disconnect is seen while a handler runs.
"""

from __future__ import annotations

import asyncio
from typing import TYPE_CHECKING

from ..types import Event, Receive
from ..wire.prebuilt import FrameSocket
from .limits import RateLimit

if TYPE_CHECKING:
    from .connection import Connection

__all__ = ["Inbox"]


class Inbox:
    """The events of one client. ``socket``: of the server that pushes them, None where a reader fetches them."""

    __slots__ = ("_bytes", "_connection", "_events", "_rate", "_socket", "_space")

    def __init__(self, connection: Connection, socket: FrameSocket | None) -> None:
        self._connection = connection
        self._socket = socket
        self._events: list[tuple[Event, int]] = []
        self._bytes = 0
        self._space: asyncio.Future[None] | None = None
        rate = connection.limits.rate
        self._rate = RateLimit(*rate) if rate else None

    def __repr__(self) -> str:
        return f"<Inbox {len(self._events)} events {self._bytes} bytes>"

    def __len__(self) -> int:
        return len(self._events)

    @property
    def forgettable(self) -> bool:
        """Whether nothing is lost with this object."""
        return not self._events and self._socket is not None and self._rate is None

    async def read(self, receive: Receive) -> None:
        """Fetch the client's events until it has gone: the reader."""
        connection = self._connection
        try:
            while self.take(await receive()):
                while self._full():
                    self._space = asyncio.get_running_loop().create_future()
                    await self._space
        except asyncio.CancelledError:
            raise
        except BaseException as exc:
            connection.broken(exc)

    def take(self, event: Event) -> bool:
        """Take an event, unless the limits forbid it; False: it was the client's last."""
        connection, mailbox, kind, size = self._connection, self._connection.mailbox, event["type"], 0
        if kind == "websocket.receive":
            text = event.get("text")
            # Characters, not encoded bytes: measuring those would encode the frame for its length.
            size = len(text if text is not None else event.get("bytes") or b"")
            if size > connection.limits.message_bytes:
                mailbox.ask_close("too_big")
                return True
            if self._rate is not None and not self._rate.take():
                mailbox.ask_close("rate_limit")
                return True
            if mailbox.closing is not None:
                return True
        elif kind == "http.request":
            size = len(event.get("body") or b"")
        elif kind in ("websocket.disconnect", "http.disconnect"):
            connection.client_gone(event)
            return False
        self.put(event, size)
        if self._socket is not None and self._full():
            self._socket.hold()
        return True

    def put(self, event: Event, size: int = 0) -> None:
        """Put an event in line."""
        self._events.append((event, size))
        self._bytes += size
        self._connection.call()

    def pop(self) -> Event:
        """Take the oldest event out."""
        event, size = self._events.pop(0)
        self._bytes -= size
        return event

    def make_space(self) -> None:
        """Have more read, if there is room for it."""
        if self._socket is not None:
            if not self._full():
                self._socket.go_on()
        elif self._space is not None and not self._space.done():
            self._space.set_result(None)

    def forget_frames(self) -> None:
        """Drop what the client sent, and keep what is to be known of its connection."""
        self._events = [pair for pair in self._events if pair[0]["type"] != "websocket.receive"]
        self._bytes = sum(size for _, size in self._events)

    def _full(self) -> bool:
        connection, waiting = self._connection, len(self._events)
        if connection.mailbox.closing is not None:
            return False  # nothing more is kept, and the client's end must be seen
        if connection.kind == "channel":
            return waiting > 0  # what waits here, another worker could have taken
        limits = connection.limits
        return waiting >= limits.frames or (waiting > 0 and self._bytes >= limits.bytes)
