"""``WebsocketCommunicator``: the client's end of a WebSocket to an ASGI application. Needs no server, no framework."""

from __future__ import annotations

import asyncio
import json
from collections.abc import Callable, Iterable, Mapping
from types import TracebackType
from typing import Any, Self

from ..types import Event
from .address import scope_of
from .application import ApplicationCommunicator

__all__ = ["WebsocketCommunicator"]


class WebsocketCommunicator(ApplicationCommunicator):
    """Connects to an application as a WebSocket client does.

    ``path``: with query, or a whole URL. ``headers``: (name, value) pairs of bytes, names in lower case.
    ``extensions``: what the server of the scope offers, as ``{"websocket.http.response": {}}`` (denials with a body).

    As an asynchronous context manager it connects, and at the end disconnects and raises what the application raised.
    """

    def __init__(
        self,
        application: Any,
        path: str,
        headers: Iterable[tuple[bytes, bytes]] | None = None,
        subprotocols: Iterable[str] | None = None,
        spec_version: Any = None,
        *,
        extensions: Mapping[str, Mapping[str, Any]] | None = None,
    ) -> None:
        scope = scope_of("websocket", path, headers, ("ws", "wss"))
        scope["subprotocols"] = list(subprotocols or ())
        if spec_version:
            scope["spec_version"] = spec_version
            scope["asgi"]["spec_version"] = str(spec_version)
        if extensions is not None:
            scope["extensions"] = {name: dict(value) for name, value in extensions.items()}
        super().__init__(application, scope)
        self.subprotocol: str | None = None
        self.response_headers: Any = None
        self.denial_response: dict[str, Any] | None = None

    async def __aenter__(self) -> Self:
        connected, code = await self.connect()
        if not connected:
            await self._end()
            raise AssertionError(f"Expected the connection to be accepted, but it was denied with {code}")
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, exc: BaseException | None, traceback: TracebackType | None
    ) -> None:
        if exc is not None:
            await self._end()  # what it raises must not hide what the test raised
        elif not (self.future.done() and self._told):
            await self.disconnect()

    async def connect(self, timeout: float | None = 1) -> tuple[bool, Any]:
        """Ask for the connection.

        Returns (True, chosen subprotocol or None) and sets ``response_headers``, or (False, close code). A denial with
        a response of its own returns (False, HTTP status) and sets ``denial_response``: status, headers, body.
        """
        await self.send_input({"type": "websocket.connect"})
        response = await self.receive_output(timeout)
        if response["type"] == "websocket.close":
            return False, response.get("code", 1000)
        if response["type"] == "websocket.http.response.start":
            self.denial_response = await self._denial(response, timeout)
            return False, self.denial_response["status"]
        if response["type"] != "websocket.accept":
            raise AssertionError(f"Expected type 'websocket.accept', but was '{response['type']}'")
        self.response_headers = response.get("headers", [])
        self.subprotocol = response.get("subprotocol")
        return True, self.subprotocol

    async def _denial(self, start: Event, timeout: float | None) -> dict[str, Any]:
        body = b""
        more = True
        while more:
            chunk = await self.receive_output(timeout)
            if chunk["type"] != "websocket.http.response.body":
                raise AssertionError(f"Expected type 'websocket.http.response.body', but was '{chunk['type']}'")
            body += chunk.get("body", b"")
            more = chunk.get("more_body", False)
        return {"status": start["status"], "headers": start.get("headers", []), "body": body}

    async def send_to(self, text_data: str | None = None, bytes_data: bytes | None = None) -> None:
        """Send a frame to the application: text or bytes, an empty one included."""
        if (text_data is None) == (bytes_data is None):
            raise AssertionError("You must supply exactly one of text_data or bytes_data")
        if text_data is not None:
            if not isinstance(text_data, str):
                raise AssertionError("The text_data argument must be a str")
            await self.send_input({"type": "websocket.receive", "text": text_data})
        else:
            if not isinstance(bytes_data, bytes):
                raise AssertionError("The bytes_data argument must be bytes")
            await self.send_input({"type": "websocket.receive", "bytes": bytes_data})

    async def send_json_to(self, data: Any) -> None:
        """Send ``data`` as a text frame of JSON."""
        await self.send_to(text_data=json.dumps(data))

    async def receive_from(self, timeout: float | None = 1) -> str | bytes:
        """Return the next frame from the application; AssertionError when it closes the connection instead."""
        event = await self.receive_output(timeout)
        if event["type"] != "websocket.send":
            raise AssertionError(f"Expected type 'websocket.send', but was '{event['type']}'")
        return _payload(event)

    async def receive_json_from(self, timeout: float | None = 1) -> Any:
        """Return the value of the next frame, which must be text and JSON."""
        payload = await self.receive_from(timeout)
        if not isinstance(payload, str):
            raise AssertionError(f"JSON data is not a text frame, it is {type(payload)}")
        return json.loads(payload)

    async def receive_until(self, predicate: Callable[[Any], object], timeout: float | None = 1) -> str | bytes:
        """Return the first frame for which ``predicate`` is true; those before it are dropped.

        ``timeout``: seconds for all of it. The TimeoutError says what came instead.
        """
        seen: list[str | bytes] = []
        loop = asyncio.get_running_loop()
        end = None if timeout is None else loop.time() + timeout
        while True:
            try:
                frame = await self.receive_from(None if end is None else max(end - loop.time(), 0))
            except TimeoutError as exc:
                last = f", the last one {seen[-1]!r:.200}" if seen else ""
                raise TimeoutError(f"{exc}; {len(seen)} frames came that were not wanted{last}") from None
            if predicate(frame):
                return frame
            seen.append(frame)

    async def expect_close(self, timeout: float | None = 1) -> tuple[int, str]:
        """Return (code, reason) of the application's close, which must be its next event."""
        event = await self.receive_output(timeout)
        if event["type"] != "websocket.close":
            raise AssertionError(f"Expected type 'websocket.close', but was '{event['type']}'")
        return event.get("code", 1000), event.get("reason") or ""

    async def disconnect(self, code: int = 1000, timeout: float | None = 1) -> None:
        """Close from the client's end, and wait for the application to end.

        Raises what it raised; TimeoutError when it has not ended after ``timeout`` seconds.
        """
        await self.send_input({"type": "websocket.disconnect", "code": code})
        await self.wait(timeout)

    async def _end(self) -> None:
        if not self.future.done():
            await self.input_queue.put({"type": "websocket.disconnect", "code": 1000})
            await asyncio.wait({self.future}, timeout=1)
        self.stop(exceptions=False)
        if self.future.done() and not self.future.cancelled():
            self.future.exception()  # looked at, so that asyncio does not report it a second time


def _payload(event: Event) -> str | bytes:
    # Servers and applications alike write {"text": …, "bytes": None}: the specification allows it.
    found = {key: event[key] for key in ("text", "bytes") if event.get(key) is not None}
    if len(found) != 1:
        raise AssertionError("The response needs exactly one of 'text' or 'bytes'")
    if "text" in found:
        if not isinstance(found["text"], str):
            raise AssertionError(f"Text frame payload is not str, it is {type(found['text'])}")
        return found["text"]
    if not isinstance(found["bytes"], bytes):
        raise AssertionError(f"Binary frame payload is not bytes, it is {type(found['bytes'])}")
    return found["bytes"]
