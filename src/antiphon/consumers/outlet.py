"""The one place of a connection that calls ASGI ``send``: it knows what was accepted and what is closed.

Where the server takes prebuilt frames, and nothing that wants to see them stands between it and the consumer, they go
there straight. After the end, whoever caused it, what is sent is dropped and counted: a handler may always be a moment
late.
"""

from __future__ import annotations

import logging
from typing import Any

from .. import framework
from ..layer.mailbox import Mailbox
from ..types import Event, Send
from ..wire.codes import close_code
from ..wire.prebuilt import FrameSocket, Prebuilt, prebuilt_text

__all__ = ["Outlet"]

logger = logging.getLogger("antiphon.consumer")

CONNECTING, OPEN, CLOSED = 0, 1, 2
# How uvicorn says that an event is out of order, and the events whose order is known here.
_EXPECTED = "xpected ASGI message"
_ORDERLY = frozenset(("websocket.accept", "websocket.send", "websocket.close"))


class Outlet:
    """What leaves for one client. ``late`` counts what was sent after the end."""

    __slots__ = ("_held", "_send", "_socket", "finished", "kind", "late", "mailbox", "protocol", "started", "state")

    def __init__(self, send: Send, kind: str, socket: FrameSocket | None = None) -> None:
        self._send = send
        self._socket = socket  # in use once ``state`` is OPEN; None where the server has no such thing
        self.kind = kind
        self.protocol = "plain"  # whose close codes the client knows
        # Only a WebSocket is accepted first.
        self.state = CONNECTING if kind == "websocket" else OPEN
        self.mailbox: Mailbox | None = None  # whose ``socket`` is to be ours while we are open
        self.started = False  # an HTTP response has begun
        self.finished = False  # and has ended
        self.late = 0
        self._held: list[Prebuilt] | None = None  # relayed before it was accepted

    def __repr__(self) -> str:
        return f"<Outlet {('connecting', 'open', 'closed')[self.state]}>"

    async def send(self, event: Event) -> None:
        """Send one ASGI event to the server.

        Raises RuntimeError for an event that is out of order: the application's mistake.
        """
        if self.state == OPEN:
            kind = event["type"]
            if kind == "websocket.send":
                socket = self._socket
                if socket is not None:
                    text = event.get("text")
                    message = prebuilt_text(text) if text is not None else Prebuilt(bytes(event["bytes"]))
                    if not socket.write(message):
                        await self._write_late(socket, message)
                    return
            elif kind == "websocket.close":
                self.end()
            elif kind == "websocket.accept" and self.kind == "websocket":
                raise RuntimeError("accept() was called twice: the connection is open already")
            elif kind == "http.response.start":
                self.started = True
            elif kind == "http.response.body" and not event.get("more_body", False):
                self.state = CLOSED
                self.finished = True
        elif self.state == CLOSED:
            self.late += 1
            logger.debug("Dropped %s: the connection has ended", event.get("type"))
            return
        else:
            await self._first(event)
            return
        try:
            await self._send(event)
        except (OSError, RuntimeError) as exc:
            self._failed(event, exc)

    def _failed(self, event: Event, exc: OSError | RuntimeError) -> None:
        """Take what the server raises for what it means: an OSError, that the client has gone; the disconnect follows."""
        # uvicorn forgets an accept whose client is just going, and takes what follows it for the first event.
        late = self.state != CONNECTING and _EXPECTED in str(exc) and event["type"] in _ORDERLY
        if isinstance(exc, RuntimeError) and not late:
            raise exc
        self._dropped(event, exc)

    async def _pass_on(self, event: Event) -> None:
        try:
            await self._send(event)
        except (OSError, RuntimeError) as exc:
            self._failed(event, exc)

    def _dropped(self, event: Event, exc: Exception) -> None:
        self.end()
        self.late += 1
        logger.debug("Dropped %s: %r", event.get("type"), exc)

    async def _first(self, event: Event) -> None:
        kind = event["type"]
        if kind == "websocket.accept":
            await self._accept(event)
            return
        if kind in ("websocket.close", "websocket.http.response.start"):
            # A response of our own has a body, which goes the same way.
            self.state = CLOSED if kind == "websocket.close" else OPEN
            self._socket = None
        elif kind == "websocket.send" and not framework.compat:
            raise RuntimeError("send() before accept(): call accept() first, in connect()")
        await self._pass_on(event)

    async def _accept(self, event: Event) -> None:
        self.state = OPEN
        socket, self._socket = self._socket, None  # not before the accept itself has gone that way
        await self._pass_on(event)
        if self.state != OPEN:
            return
        # Middlewares that have nothing to do any more say what to use in their place from now on.
        send: Any = self._send
        while (inner := getattr(send, "after_accept", None)) is not None:
            send = inner
        self._send = send
        if socket is not None and send == socket.send:
            self._socket = socket
        held, self._held = self._held, None
        for message in held or ():
            await self.relay(message)
        # Last: until here a relay's message must not overtake those.
        if self.mailbox is not None and self.state == OPEN:
            self.mailbox.socket = self._socket

    async def relay(self, message: Prebuilt) -> None:
        """Send a message that is the same for many clients. Before accept it is held until then."""
        socket = self._socket
        if self.state == CONNECTING:
            if self._held is None:
                self._held = []
            self._held.append(message)
        elif self.state != OPEN or socket is None:
            await self.send(message.event)
        elif not socket.write(message):
            await self._write_late(socket, message)

    async def _write_late(self, socket: FrameSocket, message: Prebuilt) -> None:
        """Write what a slow client had no room for, once it has."""
        while True:
            await socket.drained()
            if self.state != OPEN:
                self.late += 1
                return
            if socket.write(message):
                return

    @property
    def held(self) -> int:
        """How many messages wait for the accept."""
        return len(self._held or ())

    def end(self) -> None:
        """Learn that the client has gone."""
        self.state = CLOSED
        self._held = None
        if self.mailbox is not None:
            self.mailbox.socket = None

    async def close(self, reason: str) -> None:
        """Close a WebSocket for a reason of ``antiphon.wire.codes``; before accept, that denies it."""
        if self.state != CLOSED:
            await self.send(close_event(reason, self.protocol))


def close_event(reason: str, protocol: str = "plain") -> dict[str, Any]:
    """Return the ASGI event that closes a WebSocket of a client protocol for ``reason``."""
    return {"type": "websocket.close", "code": close_code(reason, protocol), "reason": reason}
