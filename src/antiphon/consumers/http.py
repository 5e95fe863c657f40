"""``AsyncHttpConsumer``: one HTTP request. Knows nothing of WebSockets.

Its ``handle`` runs beside the handlers, so that a stream hears of both the client's end and the layer's messages.
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Iterable, Mapping
from typing import Any

from ..exceptions import StopConsumer
from ..types import Event
from .base import AsyncConsumer

__all__ = ["AsyncHttpConsumer"]

logger = logging.getLogger("antiphon.consumer")


class AsyncHttpConsumer(AsyncConsumer):
    """Handles one HTTP request: override ``handle(body)`` and answer with ``send_response`` or a stream.

    While ``handle`` runs, messages from the layer call their handlers, and a client that goes calls ``disconnect``
    and cancels ``handle``.
    """

    _antiphon_handling: asyncio.Task[None] | None = None
    _antiphon_said_goodbye = False
    _antiphon_cancelled = False

    def __init__(self, *args: Any, **kwargs: Any) -> None:
        self.body: list[bytes] = []

    async def send_headers(self, *, status: int = 200, headers: Iterable[Any] | None = None) -> None:
        """Begin the response. ``headers``: [(name, value)] or a dict, in bytes.

        The server sends them with the first body.
        """
        pairs = list(headers.items()) if isinstance(headers, Mapping) else list(headers or ())
        await self.send({"type": "http.response.start", "status": status, "headers": pairs})

    async def send_body(self, body: bytes, *, more_body: bool = False) -> None:
        """Send (a part of) the body; without ``more_body`` the response ends."""
        if not isinstance(body, bytes):
            raise TypeError(f"Body is not bytes: got {type(body).__name__} {body!r:.60}")
        await self.send({"type": "http.response.body", "body": body, "more_body": more_body})

    async def send_response(self, status: int, body: bytes, **kwargs: Any) -> None:
        """Send a whole response; ``kwargs`` as of ``send_headers``."""
        await self.send_headers(status=status, **kwargs)
        await self.send_body(body)

    async def handle(self, body: bytes) -> None:
        """Answer the request. Override it."""
        raise NotImplementedError("Subclasses of AsyncHttpConsumer must provide a handle() method.")

    async def disconnect(self) -> None:
        """Learn that the request ended, answered or not. Override it; nothing can be sent any more."""

    async def http_request(self, message: Event) -> None:
        """Gather the body, then start ``handle``."""
        self.body.append(message.get("body") or b"")
        if message.get("more_body"):
            return
        body, self.body = b"".join(self.body), []
        connection = self._antiphon
        self._antiphon_handling = asyncio.get_running_loop().create_task(self.handle(body))
        # Its end comes to the main task as one more event: errors and clean-up take the way of all handlers.
        self._antiphon_handling.add_done_callback(lambda task: connection.put_event({"type": "http.handled"}))

    async def http_handled(self, message: Event) -> None:
        """End the request once ``handle`` is done; what it raised is raised here."""
        handling = self._antiphon_handling
        try:
            if handling is not None and not handling.cancelled():
                handling.result()
        finally:
            await self._antiphon_goodbye()
        raise StopConsumer

    async def http_disconnect(self, message: Event) -> None:
        """Cancel ``handle`` if it still runs, and call ``disconnect``."""
        if self._antiphon.outlet.finished and self._antiphon_handling is not None:
            return  # the answer is out, so the server says goodbye; what handle does after it may finish
        await self._antiphon_stop()
        await self._antiphon_goodbye()
        raise StopConsumer

    async def _antiphon_stop(self) -> None:
        handling = self._antiphon_handling
        if handling is None or handling.done() or self._antiphon_cancelled:
            return  # one that was told already has had its time
        self._antiphon_cancelled = True  # not cancelling(), which a time limit of its own raises too
        handling.cancel()
        # Not "await handling": a cancellation of this task could not be told from that one's end.
        await asyncio.wait({handling})
        exc = None if handling.cancelled() else handling.exception()
        if exc is not None and not isinstance(exc, StopConsumer):
            logger.error("%s.handle raised %r while it was cancelled", type(self).__qualname__, exc, exc_info=exc)

    async def _antiphon_goodbye(self) -> None:
        if not self._antiphon_said_goodbye:
            self._antiphon_said_goodbye = True
            await self.disconnect()
