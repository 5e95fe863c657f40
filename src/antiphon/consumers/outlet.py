"""The one place of a connection that calls ASGI ``send``: it knows what was accepted and what is closed.

After the end, whoever caused it, what is sent is dropped and counted: a handler may always be a moment late.
"""

from __future__ import annotations

import logging
from typing import Any

from .. import framework
from ..types import Event, Send
from ..wire.codes import close_code

__all__ = ["Outlet"]

logger = logging.getLogger("antiphon.consumer")

CONNECTING, OPEN, CLOSED = 0, 1, 2
# How uvicorn says that an event is out of order, and the events whose order is known here.
_EXPECTED = "xpected ASGI message"
_ORDERLY = frozenset(("websocket.accept", "websocket.send", "websocket.close"))


class Outlet:
    """What leaves for one client. ``bytes_out`` counts payloads, ``late`` what was sent after the end."""

    __slots__ = ("_send", "bytes_out", "finished", "kind", "late", "started", "state")

    def __init__(self, send: Send, kind: str) -> None:
        self._send = send
        self.kind = kind
        # Only a WebSocket is accepted first.
        self.state = CONNECTING if kind == "websocket" else OPEN
        self.started = False  # an HTTP response has begun
        self.finished = False  # and has ended
        self.bytes_out = 0
        self.late = 0

    def __repr__(self) -> str:
        return f"<Outlet {('connecting', 'open', 'closed')[self.state]} {self.bytes_out} bytes>"

    async def send(self, event: Event) -> None:
        """Send one ASGI event to the server.

        Raises RuntimeError for an event that is out of order: the application's mistake.
        """
        if self.state == OPEN:
            kind = event["type"]
            if kind == "websocket.send":
                self.bytes_out += len(event.get("text") or event.get("bytes") or b"")
            elif kind == "websocket.close":
                self.state = CLOSED
            elif kind == "websocket.accept" and self.kind == "websocket":
                raise RuntimeError("accept() was called twice: the connection is open already")
            elif kind == "http.response.start":
                self.started = True
            elif kind == "http.response.body":
                self.bytes_out += len(event.get("body", b""))
                if not event.get("more_body", False):
                    self.state = CLOSED
                    self.finished = True
        elif self.state == CLOSED:
            self.late += 1
            logger.debug("Dropped %s: the connection has ended", event.get("type"))
            return
        else:
            self._first(event)
        try:
            await self._send(event)
        except OSError as exc:
            # What servers raise when the client has gone (uvicorn: ClientDisconnected). The disconnect follows.
            self._dropped(event, exc)
        except RuntimeError as exc:
            # uvicorn forgets an accept whose client is just going, and takes what follows it for the first event.
            if self.state == CONNECTING or _EXPECTED not in str(exc) or event["type"] not in _ORDERLY:
                raise
            self._dropped(event, exc)

    def _dropped(self, event: Event, exc: Exception) -> None:
        self.end()
        self.late += 1
        logger.debug("Dropped %s: %r", event.get("type"), exc)

    def _first(self, event: Event) -> None:
        kind = event["type"]
        if kind == "websocket.accept":
            self.state = OPEN
        elif kind in ("websocket.close", "websocket.http.response.start"):
            self.state = CLOSED if kind == "websocket.close" else OPEN
        elif kind == "websocket.send" and not framework.compat:
            raise RuntimeError("send() before accept(): call accept() first, in connect()")

    def end(self) -> None:
        """Learn that the client has gone."""
        self.state = CLOSED

    async def close(self, reason: str) -> None:
        """Close a WebSocket for a reason of ``antiphon.wire.codes``; before accept, that denies it."""
        if self.state != CLOSED:
            await self.send(close_event(reason))


def close_event(reason: str) -> dict[str, Any]:
    """Return the ASGI event that closes a plain WebSocket for ``reason``."""
    return {"type": "websocket.close", "code": close_code(reason), "reason": reason}
