"""The application under test: the path says what it does, and what it saw goes to a file, a JSON line each.

One program for every server: bare ASGI functions below ``/raw/``, the same as consumers below ``/consumer/``. The query
string names the connection in the file.
"""

from __future__ import annotations

import asyncio
import json
import logging
import os
from collections.abc import Awaitable, Callable
from typing import Any

from antiphon import framework
from antiphon.consumers import AsyncWebsocketConsumer
from antiphon.consumers.servers import warn_of_gaps
from antiphon.exceptions import StopConsumer

BLOCK = "x" * (1 << 16)
# What a client that reads nothing is sent at most: a server that has taken so much would take anything.
FLOOD_BLOCKS = 1024
# A send that takes so long is blocked.
BLOCKED_S = 1.0
# How long a clean-up takes that the end of the server must not cut short.
CLEANUP_S = 0.3
SPLIT = (b"x-evil", b"a\r\nx-injected: yes")

framework.install(framework.Framework(**json.loads(os.environ.get("BEHAVIOURS_OPTIONS", "{}"))))


def saw(scope: dict[str, Any], **what: Any) -> None:
    """Note something about a connection."""
    line = json.dumps({"who": scope.get("query_string", b"").decode(), "pid": os.getpid(), **what})
    with open(os.environ["BEHAVIOURS_SEEN"], "a") as file:  # noqa: PTH123  # one short line: written in one piece
        file.write(line + "\n")


class Warned(logging.Handler):
    """Notes what is said of the server, as of a connection ``log``."""

    def emit(self, record: logging.LogRecord) -> None:
        saw({"query_string": b"log"}, warning=record.getMessage())


logging.getLogger("antiphon.server").addHandler(Warned())


async def cleaned(scope: dict[str, Any]) -> None:
    """Clean up, as an application does at the end of a connection."""
    try:
        await asyncio.sleep(CLEANUP_S)
    except asyncio.CancelledError:
        saw(scope, cleaned=False)
        raise
    saw(scope, cleaned=True)


def of_scope(scope: dict[str, Any]) -> dict[str, Any]:
    """Return what the server says of itself."""
    return {"spec_version": scope.get("asgi", {}).get("spec_version"), "state": "state" in scope}


async def flood(scope: dict[str, Any], send: Callable[[str], Awaitable[Any]]) -> None:
    """Send without end, and note after how much it blocked."""
    for sent in range(FLOOD_BLOCKS):
        sending = asyncio.ensure_future(send(BLOCK))
        done, _ = await asyncio.wait({sending}, timeout=BLOCKED_S)
        if not done:
            saw(scope, blocked_mb=round(sent * len(BLOCK) / 1e6, 1))
        await sending
    saw(scope, blocked_mb=None)


# Bare ASGI


async def _ended(scope: dict[str, Any], receive: Any, event: dict[str, Any] | None = None) -> None:
    while event is None or event["type"] != "websocket.disconnect":
        event = await receive()
    saw(scope, disconnect=event.get("code"), reason=event.get("reason"))


async def raw_echo(scope: dict[str, Any], receive: Any, send: Any) -> None:
    await send({"type": "websocket.accept"})
    saw(scope, server=of_scope(scope))
    while (event := await receive())["type"] == "websocket.receive":
        text = event.get("text")
        await send({"type": "websocket.send", **({"bytes": event["bytes"]} if text is None else {"text": text})})
    await _ended(scope, receive, event)
    await cleaned(scope)


async def raw_deny(scope: dict[str, Any], receive: Any, send: Any) -> None:
    if "websocket.http.response" not in (scope.get("extensions") or {}):
        await send({"type": "websocket.close"})
        return
    start = {"type": "websocket.http.response.start", "status": 401, "headers": [(b"x-why", b"asked")]}
    await send(start)
    await send({"type": "websocket.http.response.body", "body": b"not you"})


async def raw_close(scope: dict[str, Any], receive: Any, send: Any) -> None:
    await send({"type": "websocket.accept"})
    await send({"type": "websocket.close", "code": 4001, "reason": "bye"})


async def raw_raise(scope: dict[str, Any], receive: Any, send: Any) -> None:
    await send({"type": "websocket.accept"})
    await receive()
    raise RuntimeError("asked to raise")


async def raw_return(scope: dict[str, Any], receive: Any, send: Any) -> None:
    await send({"type": "websocket.accept"})
    await receive()


async def raw_late(scope: dict[str, Any], receive: Any, send: Any) -> None:
    await send({"type": "websocket.accept"})
    await _ended(scope, receive)
    try:
        await send({"type": "websocket.send", "text": "late"})
    except OSError:
        saw(scope, late="OSError")
    except Exception as exc:
        saw(scope, late=type(exc).__name__)
    else:
        saw(scope, late="")


async def raw_flood(scope: dict[str, Any], receive: Any, send: Any) -> None:
    await send({"type": "websocket.accept"})
    flooding = asyncio.create_task(flood(scope, lambda text: send({"type": "websocket.send", "text": text})))
    await _ended(scope, receive)
    flooding.cancel()
    await asyncio.wait({flooding})
    if not flooding.cancelled():
        flooding.exception()
    await cleaned(scope)


async def raw_never(scope: dict[str, Any], receive: Any, send: Any) -> None:
    await _ended(scope, receive)


async def raw_split(scope: dict[str, Any], receive: Any, send: Any) -> None:
    await send({"type": "websocket.accept", "headers": [SPLIT]})
    await _ended(scope, receive)


# Consumers


class Echo(AsyncWebsocketConsumer):
    async def connect(self) -> None:
        await self.accept()
        saw(self.scope, server=of_scope(self.scope))

    async def receive(self, text_data: str | None = None, bytes_data: bytes | None = None) -> None:
        await self.send(text_data, bytes_data)

    async def websocket_disconnect(self, message: dict[str, Any]) -> None:
        saw(self.scope, disconnect=message.get("code"), reason=message.get("reason"))
        await super().websocket_disconnect(message)

    async def disconnect(self, code: int) -> None:
        await cleaned(self.scope)


class Deny(Echo):
    async def connect(self) -> None:
        await self.close()


class Close(Echo):
    async def connect(self) -> None:
        await self.accept()
        await self.close(4001, "bye")


class Raise(Echo):
    async def receive(self, text_data: str | None = None, bytes_data: bytes | None = None) -> None:
        raise RuntimeError("asked to raise")


class Return(Echo):
    async def receive(self, text_data: str | None = None, bytes_data: bytes | None = None) -> None:
        raise StopConsumer


class Late(Echo):
    async def disconnect(self, code: int) -> None:
        await self.send("late")
        saw(self.scope, late="")


class Flood(Echo):
    async def receive(self, text_data: str | None = None, bytes_data: bytes | None = None) -> None:
        await flood(self.scope, self.send)


class Never(Echo):
    async def connect(self) -> None:
        await asyncio.Event().wait()


class Split(Echo):
    async def connect(self) -> None:
        await self.accept(headers=[SPLIT])


RAW: dict[str, Any] = {
    name.removeprefix("raw_"): function for name, function in dict(globals()).items() if name.startswith("raw_")
}
CONSUMERS: dict[str, Any] = {
    consumer.__name__.lower(): consumer.as_asgi()
    for consumer in (Echo, Deny, Close, Raise, Return, Late, Flood, Never, Split)
}


async def application(scope: dict[str, Any], receive: Any, send: Any) -> None:
    """Serve a connection as its path says."""
    if scope["type"] == "lifespan":
        for answer in ("startup", "shutdown"):
            await receive()
            await send({"type": f"lifespan.{answer}.complete"})
        return
    if scope["type"] == "http":
        await send({"type": "http.response.start", "status": 200, "headers": [(b"content-length", b"0")]})
        await send({"type": "http.response.body", "body": b""})
        return
    warn_of_gaps(scope, send)
    _, kind, name = scope["path"].split("/")
    if kind == "consumer":
        await CONSUMERS[name](scope, receive, send)
    else:
        await receive()
        await RAW[name](scope, receive, send)
