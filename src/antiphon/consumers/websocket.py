"""Consumers of WebSockets: synchronous and asynchronous, plain and JSON. Names and behaviour as in Channels."""

from __future__ import annotations

import json
from collections.abc import Coroutine, Iterable
from typing import Any, ClassVar, TypeVar

from ..exceptions import AcceptConnection, DenyConnection, StopConsumer
from ..types import Event
from .base import AsyncConsumer, SyncConsumer
from .encoders import EncodesJson

__all__ = ["AsyncJsonWebsocketConsumer", "AsyncWebsocketConsumer", "JsonWebsocketConsumer", "WebsocketConsumer"]


E = TypeVar("E", bound=BaseException)


def _accept_event(subprotocol: str | None, headers: Iterable[Any] | None) -> Event:
    event: Event = {"type": "websocket.accept", "subprotocol": subprotocol}
    if headers:
        event["headers"] = list(headers)
    return event


def _send_event(text_data: str | None, bytes_data: bytes | None) -> Event:
    if text_data is not None:
        return {"type": "websocket.send", "text": text_data}
    if bytes_data is not None:
        return {"type": "websocket.send", "bytes": bytes_data}
    raise ValueError("You must pass one of bytes_data or text_data")


def _no_text() -> ValueError:
    return _bad_frame(ValueError("No text section for incoming WebSocket frame!"))


def _bad_frame(exc: E) -> E:
    # The exception stays what applications expect to catch; this tells the connection whose mistake it was.
    exc.antiphon_bad_frame = True  # type: ignore[attr-defined]
    return exc


def _close_event(code: int | bool | None, reason: str | None) -> Event:
    event: Event = {"type": "websocket.close"}
    if code is not None and code is not True:
        event["code"] = code
    if reason:
        event["reason"] = reason
    return event


class WebsocketConsumer(SyncConsumer):
    """Handles one WebSocket with plain functions, which run on a thread."""

    groups: Any = None

    def __init__(self, *args: Any, **kwargs: Any) -> None:
        if self.groups is None:
            self.groups = []

    def websocket_connect(self, message: Event) -> None:
        """Join ``groups`` and call ``connect``."""
        try:
            for group in self.groups:
                super().join(group)  # not self.join: a class written for Channels may have one of its own
            self.connect()
        except AcceptConnection:
            self.accept()
        except DenyConnection:
            self.close()

    def connect(self) -> None:
        """Decide about a connection: ``accept()`` or ``close()`` it. Override it; by default it is accepted."""
        self.accept()

    def accept(self, subprotocol: str | None = None, headers: Iterable[Any] | None = None) -> None:
        """Accept the connection. ``subprotocol``: one of ``scope["subprotocols"]``; ``headers``: [(name, value)]."""
        super().send(_accept_event(subprotocol, headers))

    def websocket_receive(self, message: Event) -> None:
        """Call ``receive`` with what the client sent."""
        if message.get("text") is not None:
            self.receive(text_data=message["text"])
        else:
            self.receive(bytes_data=message["bytes"])

    def receive(self, text_data: str | None = None, bytes_data: bytes | None = None) -> None:
        """Handle a frame of the client: text or bytes. Override it."""

    def send(  # type: ignore[override]  # takes a frame, not an event
        self, text_data: str | None = None, bytes_data: bytes | None = None, close: bool | int = False
    ) -> None:
        """Send a frame, text or bytes; ``close`` (True or a code) closes afterwards."""
        super().send(_send_event(text_data, bytes_data))
        if close:
            self.close(close)

    def close(self, code: int | bool | None = None, reason: str | None = None) -> None:
        """Close the connection; before ``accept``, deny it."""
        super().send(_close_event(code, reason))

    def websocket_disconnect(self, message: Event) -> None:
        """Leave ``groups`` and call ``disconnect``."""
        try:
            for group in self.groups:
                super().leave(group)
        finally:
            self.disconnect(message["code"])
        raise StopConsumer

    def disconnect(self, code: int) -> None:
        """Learn that the connection ended, with its close code. Override it."""


class JsonWebsocketConsumer(EncodesJson, WebsocketConsumer):
    """Handles one WebSocket whose frames are JSON text; ``json_encoder`` says how they are encoded."""

    def receive(self, text_data: str | None = None, bytes_data: bytes | None = None, **kwargs: Any) -> None:
        """Decode a text frame for ``receive_json``; bytes are refused."""
        if not text_data:
            raise _no_text()
        try:
            content = self.decode_json(text_data)
        except (ValueError, RecursionError) as exc:
            raise _bad_frame(exc) from None
        self.receive_json(content, **kwargs)

    def receive_json(self, content: Any, **kwargs: Any) -> None:
        """Handle what the client sent, decoded. Override it."""

    def send_json(self, content: Any, close: bool | int = False) -> None:
        """Send ``content`` as JSON text."""
        super().send(text_data=self.encode_json(content), close=close)

    @classmethod
    def decode_json(cls, text_data: str) -> Any:
        """Decode JSON text."""
        return json.loads(text_data)

    @classmethod
    def encode_json(cls, content: Any) -> str:
        """Encode JSON text, as ``json_encoder`` says. Override it for an encoder of your own."""
        return cls._antiphon_encode(content)

    _antiphon_stock_json: ClassVar[Any] = encode_json


class AsyncWebsocketConsumer(AsyncConsumer):
    """Handles one WebSocket."""

    groups: Any = None

    def __init__(self, *args: Any, **kwargs: Any) -> None:
        if self.groups is None:
            self.groups = []

    async def websocket_connect(self, message: Event) -> None:
        """Join ``groups`` and call ``connect``."""
        try:
            for group in self.groups:
                await super().join(group)  # not self.join: a class written for Channels may have one of its own
            await self.connect()
        except AcceptConnection:
            await self.accept()
        except DenyConnection:
            await self.close()

    async def connect(self) -> None:
        """Decide about a connection: ``accept()`` or ``close()`` it. Override it; by default it is accepted."""
        await self.accept()

    async def accept(self, subprotocol: str | None = None, headers: Iterable[Any] | None = None) -> None:
        """Accept the connection. ``subprotocol``: one of ``scope["subprotocols"]``; ``headers``: [(name, value)]."""
        await super().send(_accept_event(subprotocol, headers))

    async def websocket_receive(self, message: Event) -> None:
        """Call ``receive`` with what the client sent."""
        if message.get("text") is not None:
            await self.receive(text_data=message["text"])
        else:
            await self.receive(bytes_data=message["bytes"])

    async def receive(self, text_data: str | None = None, bytes_data: bytes | None = None) -> None:
        """Handle a frame of the client: text or bytes. Override it."""

    def send(  # type: ignore[override]  # takes a frame, not an event
        self, text_data: str | None = None, bytes_data: bytes | None = None, close: bool | int = False
    ) -> Coroutine[Any, Any, None]:
        """Send a frame, text or bytes; ``close`` (True or a code) closes afterwards. Await it."""
        # Not "async def": it hands on the outlet's coroutine, where awaiting it in one of its own would cost a tenth
        # of a delivery.
        if close:
            return self._antiphon_send_and_close(_send_event(text_data, bytes_data), close)
        if text_data is not None:
            return self.base_send({"type": "websocket.send", "text": text_data})  # type: ignore[no-any-return]
        return self.base_send(_send_event(text_data, bytes_data))  # type: ignore[no-any-return]

    async def _antiphon_send_and_close(self, event: Event, close: bool | int) -> None:
        await self.base_send(event)
        await self.close(close)

    async def close(self, code: int | bool | None = None, reason: str | None = None) -> None:
        """Close the connection; before ``accept``, deny it."""
        await super().send(_close_event(code, reason))

    async def websocket_disconnect(self, message: Event) -> None:
        """Leave ``groups`` and call ``disconnect``."""
        try:
            for group in self.groups:
                await super().leave(group)
        finally:
            await self.disconnect(message["code"])
        raise StopConsumer

    async def disconnect(self, code: int) -> None:
        """Learn that the connection ended, with its close code. Override it."""


class AsyncJsonWebsocketConsumer(EncodesJson, AsyncWebsocketConsumer):
    """Handles one WebSocket whose frames are JSON text; ``json_encoder`` says how they are encoded."""

    async def receive(self, text_data: str | None = None, bytes_data: bytes | None = None, **kwargs: Any) -> None:
        """Decode a text frame for ``receive_json``; bytes are refused."""
        if not text_data:
            raise _no_text()
        try:
            content = await self.decode_json(text_data)
        except (ValueError, RecursionError) as exc:
            raise _bad_frame(exc) from None
        await self.receive_json(content, **kwargs)

    async def receive_json(self, content: Any, **kwargs: Any) -> None:
        """Handle what the client sent, decoded. Override it."""

    async def send_json(self, content: Any, close: bool | int = False) -> None:
        """Send ``content`` as JSON text."""
        await super().send(text_data=await self.encode_json(content), close=close)

    @classmethod
    async def decode_json(cls, text_data: str) -> Any:
        """Decode JSON text."""
        return json.loads(text_data)

    @classmethod
    async def encode_json(cls, content: Any) -> str:
        """Encode JSON text, as ``json_encoder`` says. Override it for an encoder of your own."""
        return cls._antiphon_encode(content)

    _antiphon_stock_json: ClassVar[Any] = encode_json
