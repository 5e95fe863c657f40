"""One message for many WebSockets: encoded once, framed once for each way of compression. Does no I/O.

Also what a server offers that takes such frames (``scope["extensions"]["antiphon.socket"]``), so that consumers and
the server of ours know each other by this module alone.
"""

from __future__ import annotations

from collections.abc import Awaitable, Sequence
from typing import Any, Protocol

from ..types import Event
from .deflate import Setting, compress
from .frames import BINARY, TEXT, frame

__all__ = ["EXTENSION", "EventSink", "FrameSocket", "Prebuilt", "prebuilt_text"]

# What the scope's "extensions" call a FrameSocket.
EXTENSION = "antiphon.socket"
# Below it a compressed message is rarely smaller, and never by as much as the work is worth.
_COMPRESS_MIN_BYTES = 64


class Prebuilt:
    """One message, text or bytes. ``frame``: as it is sent uncompressed; ``event``: as ASGI sends it, one for all."""

    __slots__ = ("_compressed", "_event", "_payload", "frame", "value")

    def __init__(self, value: str | bytes) -> None:
        self.value = value
        self._payload = value.encode() if isinstance(value, str) else value
        self.frame = frame(TEXT if isinstance(value, str) else BINARY, self._payload)
        self._compressed: dict[Setting, bytes] | None = None
        self._event: Event | None = None

    def __repr__(self) -> str:
        return f"<Prebuilt {len(self.frame)} bytes>"

    @property
    def event(self) -> Event:
        """The ASGI event that sends it. Shared: nobody may change it."""
        if self._event is None:
            self._event = {"type": "websocket.send", "text" if isinstance(self.value, str) else "bytes": self.value}
        return self._event

    def compressed(self, setting: Setting) -> bytes:
        """Return the frame for sockets that negotiated permessage-deflate with ``setting``: built once for all."""
        if len(self._payload) < _COMPRESS_MIN_BYTES:
            return self.frame
        if self._compressed is None:
            self._compressed = {}
        found = self._compressed.get(setting)
        if found is None:
            opcode = TEXT if isinstance(self.value, str) else BINARY
            found = frame(opcode, compress(self._payload, setting), compressed=True)
            self._compressed[setting] = found
        return found


# The last text that was framed: handlers that send the same text to every member send it one after another. One
# object, so that threads with loops of their own never see a text with the frame of another.
_last = Prebuilt("")


def prebuilt_text(text: str) -> Prebuilt:
    """Return a message of ``text``; the same one again while the text is the same."""
    global _last
    last = _last
    if last.value == text:
        return last
    last = _last = Prebuilt(text)
    return last


class EventSink(Protocol):
    """Who takes a client's events as they come, in place of ASGI ``receive``."""

    def client_event(self, event: Event, /) -> None:
        """Take one event. Never raises."""


class FrameSocket(Protocol):
    """A WebSocket of a server that takes prebuilt frames."""

    receive: Any
    send: Any
    full: bool  # more than the limit waits for the client

    def write(self, message: Prebuilt, /) -> bool:
        """Send a message; False, and nothing was sent, when it is ``full``."""

    def write_all(self, message: Prebuilt, sockets: Sequence[FrameSocket], /) -> None:
        """Send a message to many sockets, of its loop and none of them ``full``; it need not be among them."""

    def drained(self) -> Awaitable[None]:
        """Wait until less than the limit waits for the client, or it has gone."""

    def limit(self, send_buffer_bytes: int, /) -> None:
        """Set how much may wait for the client."""

    def attach(self, sink: EventSink, /) -> None:
        """Give the client's events to ``sink`` as they come, those that wait first; ``receive`` is over then."""

    def hold(self) -> None:
        """Read no more of the client until ``go_on``."""

    def go_on(self) -> None:
        """Read on."""
