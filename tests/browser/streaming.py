"""The server behind ``test_streams.py``: a process of its own, told over its line what to do (``StreamingSite``).

One page for each way to the same group, with the files of ``node_modules``. Others than the one that a page is connected to
send to it too, over the engine.
"""

from __future__ import annotations

import asyncio
import mimetypes
from collections.abc import Awaitable, Callable
from pathlib import Path
from typing import Any

import django
import uvicorn
from django.conf import settings

from antiphon.generic.events import EventStreamConsumer
from antiphon.generic.html import HtmlConsumer
from antiphon.layers import RedisChannelLayer, channel_layers
from antiphon.server import HTTPProtocol, WebSocketProtocol
from antiphon.testing.faults import ChildProcess, Peer
from antiphon.types import Message

__all__ = ["GROUP", "PAGES", "StreamingSite"]

GROUP = "board"
FILES = Path(__file__).parent / "node_modules"
TEMPLATES = {
    "line.html": "<li>{{ text }}</li>",
    "status.html": '<p id="status" hx-swap-oob="true">{{ text }}</p>',
}
STATE = b"<li>the state</li>"
BODY = '<p id="status">none</p><ul id="list"></ul>'
# How pages listen: what they load, and the element that connects them.
PAGES = {
    "htmx2-ws": (("htmx.org/dist/htmx.js", "htmx-ext-ws/ws.js"), '<div hx-ext="ws" ws-connect="/ws"></div>'),
    "htmx2-sse": (
        ("htmx.org/dist/htmx.js", "htmx-ext-sse/sse.js"),
        """<div hx-ext="sse" sse-connect="/events" sse-swap="message" hx-swap="none">
        <p hx-get="/state" hx-trigger="sse:reset" hx-target="#list" hx-swap="innerHTML"></p></div>""",
    ),
    "htmx4-ws": (("htmx4/dist/htmx.js", "htmx4/dist/ext/hx-ws.js"), '<div hx-ws:connect="/ws"></div>'),
    "htmx4-sse": (
        ("htmx4/dist/htmx.js", "htmx4/dist/ext/hx-sse.js"),
        """<div id="stream" hx-sse:connect="/events"></div>
        <p hx-get="/state" hx-trigger="reset from:#stream" hx-target="#list"></p>""",
    ),
    "plain": (
        (),
        """<script>
        window.seen = [];
        window.source = new EventSource("/events");
        for (const name of ["note", "reset"])
          source.addEventListener(name, (event) => seen.push([name, JSON.parse(event.data)]));
        </script>""",
    ),
}


class Events(EventStreamConsumer):
    """The group as a stream."""

    groups = (GROUP,)
    retry_s = (0.05, 0.1)
    heartbeat_s = 1000.0  # nothing is written that no test has sent

    async def opened(self) -> None:
        joined.add(self.channel_name)

    async def note(self, message: Message) -> None:
        await self.send_event({"n": message["n"]}, event="note")


class Fragments(HtmlConsumer):
    """The group over a WebSocket."""

    groups = (GROUP,)

    async def connect(self) -> None:
        joined.add(self.channel_name)
        await super().connect()


class Closed(EventStreamConsumer):
    """Lets nobody in."""

    groups = (GROUP,)

    async def authorize_join(self, group: str) -> bool:
        asked.append(group)
        return False


asked: list[str] = []
joined: set[str] = set()  # channels whose joining is over: what is sent from then on reaches them
PATHS: dict[tuple[str, str], Any] = {
    ("http", "events"): Events.as_asgi(),
    ("http", "closed"): Closed.as_asgi(),
    ("websocket", "ws"): Fragments.as_asgi(),
}


async def application(
    scope: Any, receive: Callable[[], Awaitable[Any]], send: Callable[[Any], Awaitable[None]]
) -> None:
    """Serve the consumers, the pages and their files."""
    path = scope["path"].strip("/")
    if (scope["type"], path) in PATHS:
        await PATHS[scope["type"], path](scope, receive, send)
    elif scope["type"] == "http":
        kind = mimetypes.guess_type(path)[0] or "text/html; charset=utf-8"
        body = STATE if path == "state" else page(path) if path in PAGES else b""
        body = body or await asyncio.to_thread((FILES / path).read_bytes)
        await send({"type": "http.response.start", "status": 200, "headers": [(b"content-type", kind.encode())]})
        await send({"type": "http.response.body", "body": body})


def page(name: str) -> bytes:
    """Return the page of one way."""
    files, element = PAGES[name]
    scripts = "".join(f'<script src="/{file}"></script>' for file in files)
    head = f'<!doctype html><meta charset="utf-8"><title>{name}</title><link rel="icon" href="data:,">{scripts}'
    return f"{head}<body>{BODY}{element}</body>".encode()


async def serve(peer: Peer, engine: str, prefix: str, port: int, ours: bool) -> None:
    """Serve until told to end, and do between what the test says. ``ours``: on our protocol classes."""
    loader = ("django.template.loaders.locmem.Loader", TEMPLATES)
    settings.TEMPLATES = [
        {"BACKEND": "django.template.backends.django.DjangoTemplates", "OPTIONS": {"loaders": [loader]}}
    ]
    django.setup()
    groups = {GROUP: {"history_size": 100}}
    channel_layers.set("default", RedisChannelLayer([engine], prefix=prefix, groups=groups))
    protocols: dict[str, Any] = {"ws": WebSocketProtocol, "http": HTTPProtocol} if ours else {"ws": "websockets-sansio"}
    server = uvicorn.Server(
        uvicorn.Config(
            application, port=port, lifespan="off", log_level="warning", timeout_graceful_shutdown=5, **protocols
        )
    )
    task = asyncio.create_task(server.serve())
    while not server.started:  # noqa: ASYNC110  # nothing tells
        await asyncio.sleep(0.005)
    peer.send(server.servers[0].sockets[0].getsockname()[1])
    while True:
        order = await peer.receive_async(None)
        what = order.pop("do")
        if what == "end":
            server.should_exit = True
            await task
            peer.send(None)
            return
        peer.send(await ORDERS[what](**order))


async def _members() -> int | None:
    """Count the members; None while one of them is still joining."""
    layer: Any = channel_layers["default"]
    members = [name for node in layer._alive() for name in node.hub.members.get(f"g:{GROUP}", ())]
    return len(members) if joined.issuperset(members) else None


async def _send(message: Message) -> None:
    await channel_layers["default"].group_send(GROUP, message)


async def _broadcast(template: str, text: str, **options: Any) -> None:
    from antiphon.html import broadcast_html

    await asyncio.to_thread(broadcast_html, GROUP, template, {"text": text}, **options)


async def _asked() -> int:
    return len(asked)


ORDERS: dict[str, Callable[..., Awaitable[Any]]] = {
    "members": _members,
    "send": _send,
    "broadcast": _broadcast,
    "asked": _asked,
}


class StreamingSite:
    """A server, from ``start()`` on; the next ``start()`` takes the same port."""

    def __init__(self, engine: str, prefix: str, *, ours: bool = True) -> None:
        self.port = 0
        self._engine, self._prefix, self._ours = engine, prefix, ours
        self._process: ChildProcess | None = None

    def start(self) -> None:
        """Start it, and return when it answers."""
        env = {"DJANGO_SETTINGS_MODULE": "tests.project.settings"}
        self._process = ChildProcess(serve, self._engine, self._prefix, self.port, self._ours, env=env)
        self._process.start()
        self.port = self._process.receive()

    def url(self, path: str) -> str:
        """Return an address of it."""
        return f"http://127.0.0.1:{self.port}/{path}"

    def order(self, what: str, **kwargs: Any) -> Any:
        """Have it do what ORDERS names, and return what came of it."""
        assert self._process is not None
        self._process.send({"do": what, **kwargs})
        return self._process.receive()

    def end(self) -> None:
        """End it as a deploy does."""
        self.order("end")
        self.kill()

    def kill(self) -> None:
        """Kill it."""
        if self._process is not None:
            self._process.close()
            self._process = None
