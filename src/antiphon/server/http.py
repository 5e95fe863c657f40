"""``HTTPProtocol``: uvicorn's HTTP, with a deadline for a request's head, and a straight way to our WebSockets.

A connection that asks for nothing, or for something without ever finishing, is nobody's to close in uvicorn: its
keep-alive time-out begins with the first answer.
"""

from __future__ import annotations

from typing import Any

from uvicorn.protocols.http.auto import AutoHTTPProtocol

from .clock import clock_of
from .protocol import WebSocketProtocol
from .settings import settings_of

__all__ = ["HTTPProtocol"]

# Which class it is depends on what is installed: httptools, else h11.
_Base: Any = AutoHTTPProtocol


class HTTPProtocol(_Base):  # type: ignore[misc]  # see above
    """HTTP on uvicorn: ``uvicorn --http antiphon.server:HTTPProtocol --ws antiphon.server:WebSocketProtocol``."""

    deadline_s = 0.0
    scope: Any

    def __init__(self, *args: Any, **kwargs: Any) -> None:  # uvicorn's own
        super().__init__(*args, **kwargs)
        self._settings = settings_of(self.config)
        self._clock = clock_of(self.loop)

    def connection_made(self, transport: Any) -> None:
        """Take over a transport, and wait for the head of its first request for so long."""
        super().connection_made(transport)
        self._clock.watch(self, self._settings.handshake_timeout_s)

    def data_received(self, data: bytes) -> None:
        """Take bytes of the client."""
        super().data_received(data)
        if self.deadline_s and (self.cycle is not None or self.transport.get_protocol() is not self):
            self._clock.forget(self)  # its head was read; or it has become a WebSocket

    def handle_websocket_upgrade(self, *args: Any) -> None:
        """Hand the connection over: to our own class as it was parsed, not as text to be parsed again."""
        if args or not (
            isinstance(self.ws_protocol_class, type) and issubclass(self.ws_protocol_class, WebSocketProtocol)
        ):
            super().handle_websocket_upgrade(*args)  # h11 has parsed it into an event of its own
        else:
            self.connections.discard(self)
            protocol = self.ws_protocol_class(
                config=self.config, server_state=self.server_state, app_state=self.app_state
            )
            protocol.connection_made(self.transport)
            protocol.take_request(self.url, self.scope)
            self.transport.set_protocol(protocol)
            self.parser = None  # it has this object, and this object has it
        # Or these would keep this object and its parser until the next sweep of the garbage collector.
        self.flow = self.scope = self.headers = None
        self.pipeline.clear()

    def connection_lost(self, exc: Exception | None) -> None:
        """Learn that the transport is gone."""
        self._clock.forget(self)
        super().connection_lost(exc)

    def shutdown(self) -> None:
        """Close for the server's end; a stream that would last ends with reason ``restart``, so that its client comes back.

        Many one after another, in random order, as WebSockets.
        """
        cycle = self.cycle
        super().shutdown()
        if cycle is None or cycle.response_complete:
            return
        connection = (cycle.scope.get("state") or {}).get("antiphon.connection")
        if connection is not None:
            after_s = self._settings.drained_after_s(len(self.server_state.connections))
            self.loop.call_later(after_s, connection.mailbox.ask_close, "restart")

    def overdue(self) -> None:
        """Learn that no whole head has come in time."""
        self.transport.close()
