"""The ways without a WebSocket: a stream of lines, or of events, down; single requests up. Of the JavaScript client alone.

A stream is a connection like any other, and the process that has it owns its session. What the client sends comes as
requests of its own, to whichever process: they name session and node, and go through the layer to that node's desk
(``desk.py``), in the order in which they came. So no balancer need know which client belongs where.

    GET  ?cf_connect=<command>          a stream of events (text/event-stream)
    POST <connect command>              a stream of lines
    POST {"session", "node", "data"}    commands for a stream, answered with 204; 404: its node is gone
    OPTIONS                             204
"""

from __future__ import annotations

import json
import secrets
from collections.abc import Mapping
from typing import TYPE_CHECKING, Any, NoReturn
from urllib.parse import parse_qs

from ..consumers.identity import over_user_limit
from ..exceptions import ChannelFull, CrossProcessError, EngineUnavailable, StopConsumer
from ..wire.centrifuge.session import Close
from ..wire.centrifuge.tables import Disconnect
from ..wire.centrifuge.writing import disconnect_push
from ..wire.codes import close_code
from .client import Client
from .desk import COMMANDS, channel_of, desk_of

if TYPE_CHECKING:
    from .consumer import SubscriptionConsumer

__all__ = ["StreamClient", "answer", "opening_of", "respond"]

# So many requests of one client may wait for their turn.
WAITING_MAX = 256

_STREAMED = [
    (b"x-accel-buffering", b"no"),
    (b"cache-control", b"private, no-cache, no-store, must-revalidate, max-age=0"),
    (b"x-content-type-options", b"nosniff"),
]
_EVENTS = (b"content-type", b"text/event-stream; charset=utf-8")
_LINES = (b"content-type", b"application/x-ndjson; charset=utf-8")


class _Part:
    """A piece of a stream, in place of a frame (``consumers.outlet``)."""

    __slots__ = ("event",)

    def __init__(self, body: bytes) -> None:
        self.event = {"type": "http.response.body", "body": body, "more_body": True}


class StreamClient(Client):
    """One client over a stream. ``events``: server-sent events; else lines."""

    def __init__(self, consumer: SubscriptionConsumer, *, events: bool) -> None:
        super().__init__(consumer)
        self._events = events
        # All that an outsider needs to speak for this client: nobody else hears of it.
        self._session = secrets.token_urlsafe(24)
        self._waiting = 0
        self._desk = desk_of(consumer)
        self._desk.sessions[self._session] = self

    def framed(self, text: str) -> Any:
        """Return text as a part of the stream."""
        lines = text.split("\n")
        if self._events:
            return _Part(("".join(f"data: {line}\n" for line in lines) + "\n").encode())
        return _Part((text + "\n").encode())

    async def say(self, text: str) -> None:
        """Send replies or pushes to the client."""
        await self.connection.outlet.send(self.framed(text).event)

    async def close(self, action: Close) -> None:
        """Say why the connection ends, and end the stream: there is no close frame."""
        await self.farewell(action.why)
        self.connection.client_gone({"type": "http.disconnect"})

    async def farewell(self, why: Disconnect) -> None:
        """Say why the connection ends, and end the response."""
        outlet = self.connection.outlet
        if outlet.started and not outlet.finished:
            await self.say(disconnect_push(why))
            await outlet.send({"type": "http.response.body", "body": b"", "more_body": False})

    async def open(self, frame: str) -> None:
        """Begin the stream with the client's first frame."""
        kind = _EVENTS if self._events else _LINES
        head = {"type": "http.response.start", "status": 200, "headers": [kind, *_STREAMED]}
        await self.connection.outlet.send(head)
        if over_user_limit(self.connection):
            code = close_code("too_many_connections", "centrifuge")
            await self.close(Close(Disconnect(code, "too_many_connections")))
            return
        await self.take(frame)

    def address(self) -> dict[str, str]:
        """Return what the client must send with its commands."""
        return {"session": self._session, "node": self._desk.name}

    def bring(self, frame: str) -> None:
        """Take commands that came by a request of their own: in line with the connection's other events."""
        self._waiting += 1
        if self._waiting > WAITING_MAX:
            self.connection.mailbox.ask_close("rate_limit")
        else:
            self.connection.put_event({"type": "subscription.frame", "text": frame})

    async def take(self, frame: object) -> None:
        """Handle a frame of the client."""
        self._waiting = max(0, self._waiting - 1)
        await super().take(frame)

    def end(self) -> bool:
        """End what runs beside the handlers; False: it has ended before."""
        self._desk.leave(self._session)
        return super().end()


def opening_of(scope: Mapping[str, Any], body: bytes) -> tuple[str, Any]:
    """Return what a request is: ("events", frame), ("lines", frame), ("commands", {…}) or ("status", number).

    A stream begins with one command, its connect. A page of another site can have a browser send such a request, with
    its cookies; further commands need what only the stream says, which that page cannot read.
    """
    method = scope.get("method")
    if method == "OPTIONS":
        return "status", 204
    if method == "GET":
        given = parse_qs(scope.get("query_string", b"").decode("latin-1")).get("cf_connect")
        return ("events", given[0]) if given and "\n" not in given[0] else ("status", 400)
    if method != "POST":
        return "status", 405
    try:
        text = body.decode()
        content = json.loads(text)
    except (ValueError, RecursionError):
        return "status", 400
    if isinstance(content, dict) and "data" in content and "session" in content:
        fits = all(isinstance(content.get(name), str) for name in ("session", "node", "data"))
        return ("commands", content) if fits else ("status", 400)
    text = text.strip()
    return ("lines", text) if "\n" not in text else ("status", 400)


async def answer(consumer: SubscriptionConsumer, content: Mapping[str, str]) -> int:
    """Bring commands to the stream that they are for; return the status of the answer."""
    channel = channel_of(content["node"])
    if channel is None:
        return 404
    try:
        receipt = await consumer.channel_layer.send(channel, {"type": COMMANDS, **content})
    except CrossProcessError:
        return 404
    except (ChannelFull, EngineUnavailable):
        return 503
    return 404 if receipt.nodes == 0 else 204


async def respond(consumer: SubscriptionConsumer, status: int) -> NoReturn:
    """Answer a request that is no stream, and end."""
    headers = [] if status == 204 else [(b"content-length", b"0")]
    await consumer.send({"type": "http.response.start", "status": status, "headers": headers})
    await consumer.send({"type": "http.response.body", "body": b"", "more_body": False})
    raise StopConsumer
