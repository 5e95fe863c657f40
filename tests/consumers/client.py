"""The server's end of one connection, made by hand: no test marker, so an application behaves as in production."""

from __future__ import annotations

import asyncio
import json
from types import SimpleNamespace, TracebackType
from typing import Any, Self

from antiphon import get_channel_layer
from antiphon.generic.websocket import AsyncWebsocketConsumer
from antiphon.types import Event
from tests.waiting import until

__all__ = ["HTTP", "Client", "Echo", "left", "members", "until", "user"]

LIMIT_S = 30.0
HTTP = {"type": "http", "method": "GET"}


class Echo(AsyncWebsocketConsumer):
    """Sends back what it receives."""

    async def receive(self, text_data: str | None = None, bytes_data: bytes | None = None) -> None:
        await self.send(text_data=text_data, bytes_data=bytes_data)


def user(pk: Any) -> Any:
    """Return somebody who is logged in."""
    return SimpleNamespace(pk=pk, is_authenticated=True)


def members(group: str) -> int:
    """Count the members of a group of the default layer, on whichever loops of this process."""
    layer: Any = get_channel_layer()
    return sum(len(node.hub.members.get(f"g:{group}", ())) for node in layer._alive())


class Client:
    """Runs an application as a server does, in a task of its own.

    ``reports_close``: answer the application's close with a disconnect, as servers do. ``raises_when_gone``: ``send``
    raises OSError once the client has gone, as uvicorn does.
    """

    def __init__(
        self,
        application: Any,
        scope: dict[str, Any] | None = None,
        *,
        reports_close: bool = True,
        raises_when_gone: bool = False,
    ) -> None:
        self.application = application
        self.scope: dict[str, Any] = {"type": "websocket", "path": "/", "headers": [], "subprotocols": []}
        self.scope.update(scope or {})
        self.reports_close = reports_close
        self.raises_when_gone = raises_when_gone
        self.gone = False
        self.events: list[Event] = []
        self.taken = 0  # events that the application has received
        self.incoming: asyncio.Queue[Event] = asyncio.Queue()
        self._seen = 0
        self._stirred = asyncio.Event()
        self.task: asyncio.Task[None]

    async def __aenter__(self) -> Self:
        self.start()
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, exc: BaseException | None, traceback: TracebackType | None
    ) -> None:
        if exc is None and not self.task.done() and self.scope["type"] != "channel":
            self.vanish(1000)
            await self.ended()
        elif not self.task.done():
            self.task.cancel()
            await asyncio.wait({self.task}, timeout=LIMIT_S)

    def start(self) -> None:
        """Begin the connection; the application has received nothing yet."""
        self.task = asyncio.create_task(self._run())
        self.task.add_done_callback(lambda _: self._stirred.set())

    async def _run(self) -> None:
        await self.application(self.scope, self._receive, self._send)

    async def _receive(self) -> Event:
        event = await self.incoming.get()
        self.taken += 1
        return event

    async def _send(self, event: Event) -> None:
        if self.gone and self.raises_when_gone:
            raise OSError("the client has gone")
        self.events.append(event)
        self._stirred.set()
        if event["type"] == "websocket.close" and self.reports_close:
            self.put({"type": "websocket.disconnect", "code": event.get("code", 1000), "reason": event.get("reason")})

    def put(self, event: Event) -> None:
        """Have the server report an event."""
        self.incoming.put_nowait(event)

    def text(self, *texts: str) -> None:
        """Send text frames."""
        for text in texts:
            self.put({"type": "websocket.receive", "text": text})

    def request(self, body: bytes = b"", *, more: bool = False) -> None:
        """Send a request, or a part of its body."""
        self.put({"type": "http.request", "body": body, "more_body": more})

    def vanish(self, code: int = 1006) -> None:
        """Have the server report that the client is gone."""
        self.gone = True
        kind = "http.disconnect" if self.scope["type"] == "http" else "websocket.disconnect"
        self.put({"type": kind} if kind == "http.disconnect" else {"type": kind, "code": code})

    async def next(self, limit_s: float = LIMIT_S) -> Event:
        """Return the next event that the application sent."""
        async with asyncio.timeout(limit_s):
            while self._seen == len(self.events):
                if self.task.done():
                    self.task.result()
                    raise AssertionError("the application ended")
                self._stirred.clear()
                await self._stirred.wait()
        self._seen += 1
        return self.events[self._seen - 1]

    async def connect(self) -> Event:
        """Ask for the connection and return the answer."""
        self.put({"type": "websocket.connect"})
        return await self.next()

    async def next_text(self) -> str:
        """Return the text of the next event, which must be a frame."""
        event = await self.next()
        assert event["type"] == "websocket.send", event
        return str(event["text"])

    async def next_json(self) -> Any:
        """Return the next text frame, decoded."""
        return json.loads(await self.next_text())

    async def closed(self) -> tuple[int | None, str | None]:
        """Return code and reason of the close, which must be the next event."""
        event = await self.next()
        assert event["type"] == "websocket.close", event
        return event.get("code"), event.get("reason")

    async def ended(self, limit_s: float = LIMIT_S) -> None:
        """Wait for the application to end; raise what it raised."""
        done, _ = await asyncio.wait({self.task}, timeout=limit_s)
        assert done, f"still running: {self.application}"
        self.task.result()

    @property
    def texts(self) -> list[str]:
        """All text frames so far."""
        return [event["text"] for event in self.events if event["type"] == "websocket.send"]


async def left(application: Any, *texts: str) -> None:
    """Connect, send text frames, be gone, and wait for the application's end."""
    async with Client(application) as client:
        await client.connect()
        client.text(*texts)
        client.vanish()
        await client.ended()
