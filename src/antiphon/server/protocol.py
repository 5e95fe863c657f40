"""``WebSocketProtocol``: one socket of uvicorn's, from its handshake to its end. Knows ASGI, and nothing of consumers.

uvicorn parses the request and hands it over. From then on nothing stands between the application and the kernel but
this object: a frame is bytes that may have been built for many sockets, and is written as it is, together with what
else this socket is given in the same turn of the loop. Whatever waits waits for a time: the application's answer to a
handshake, a client that does not read, the answer to a ping, a peer that does not close.
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Mapping
from typing import Any, cast

from uvicorn.config import Config
from uvicorn.protocols.utils import ClientDisconnected, get_local_addr, get_remote_addr
from uvicorn.server import ServerState

from ..types import Event
from ..wire.codes import close_code
from ..wire.deflate import inflate
from ..wire.frames import BINARY, CLOSE, NORMAL, PING, PONG, TEXT, FrameError, FrameReader, close_frame, frame
from ..wire.prebuilt import Prebuilt, prebuilt_text
from .handshake import HEAD_BYTES_MAX, BadRequest, Request, checked, parse_request, refused, request_of
from .incoming import Incoming
from .opening import answer, scope_of
from .outgoing import ASKED, CLOSING, CONNECTING, DENYING, DONE, LOST, OPEN
from .settings import Settings, settings_of
from .unmask import unmask

__all__ = ["WebSocketProtocol"]

logger = logging.getLogger("uvicorn.error")

# At a shutdown, what a client may take to answer the close frame. It is told to come back, and loses nothing by it.
_LAST_S = 2.0

_PING = frame(PING, b"")


class WebSocketProtocol(Incoming):
    """A WebSocket on uvicorn: ``uvicorn --ws antiphon.server:WebSocketProtocol``."""

    __slots__ = (
        "_head",
        "_pinged",
        "_reader",
        "_request",
        "_server",
        "_task",
        "config",
        "deadline_s",
        "settings",
    )

    def __init__(
        self,
        config: Config,
        server_state: ServerState,
        app_state: dict[str, Any],
        _loop: asyncio.AbstractEventLoop | None = None,
    ) -> None:
        if not config.loaded:
            config.load()
        self.config = config
        self.settings: Settings = settings_of(config)
        super().__init__(_loop or asyncio.get_running_loop(), self.settings.send_buffer_bytes)
        self.deadline_s = 0.0
        self._server = server_state
        self._pinged = False
        # What there is only now and then.
        self._head: bytes | None = b""  # of the request; later what a hasty client sent behind it
        self._request: Any = app_state  # the Request once it is read, None once it is answered
        self._reader: FrameReader | None = None
        self._task: asyncio.Task[None] | None = None

    # From the transport

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        """Take over a transport."""
        super().connection_made(transport)
        self._server.connections.add(self)  # type: ignore[arg-type]  # uvicorn lists its own classes
        self._watch(self.settings.handshake_timeout_s)

    def data_received(self, data: bytes) -> None:
        """Take bytes of the client."""
        if self._state >= OPEN:
            if self._pinged:
                self._watch_client()  # whoever sends is alive
            if self._state < DONE:
                self._read(data)
        elif self._state == ASKED:
            head, end, rest = (self._head + data if self._head else data).partition(b"\r\n\r\n")
            if len(head) > HEAD_BYTES_MAX:
                self._refuse(431, "the request's head is too long")
            elif end:
                self._head = rest or None
                self._asked(head)
            else:
                self._head = head
        else:
            self._head = (self._head or b"") + data  # of a client that does not wait for the answer
            if len(self._head) > self.settings.max_bytes:
                self._abort()

    def eof_received(self) -> bool:
        """Learn that the client sends no more: a WebSocket ends with that."""
        return False

    def connection_lost(self, exc: Exception | None) -> None:
        """Learn that the transport is gone."""
        before = self._state
        super().connection_lost(exc)
        self._server.connections.discard(self)
        self._turn.clock.forget(self)
        if before in (CONNECTING, DENYING, OPEN):
            self.tell({"type": "websocket.disconnect", "code": 1006, "reason": ""})

    def pause_writing(self) -> None:
        """Learn that the client reads slower than it is written to."""
        super().pause_writing()
        if self._state == OPEN:
            self._watch(self.settings.send_timeout_s)

    def resume_writing(self) -> None:
        """Learn that it has caught up."""
        super().resume_writing()
        if self._state == OPEN:
            self._watch_client()

    # Deadlines

    def _watch(self, seconds: float | None) -> None:
        self._turn.clock.watch(self, seconds)

    def _watch_client(self) -> None:
        self._pinged = False
        self._watch(self.settings.ping_interval_s)

    def overdue(self) -> None:
        """Learn from the clock that what this socket waits for has taken too long."""
        if self._state == ASKED:
            self._refuse(408, "the request did not come in time")
        elif self._state in (CONNECTING, DENYING):
            logger.error("The application has not accepted a WebSocket within %g s", self.settings.accept_timeout_s)
            self.tell({"type": "websocket.disconnect", "code": 1006, "reason": ""})
            self._refuse(503, "the application did not answer in time")
        elif self._state == OPEN:
            if self._paused:
                self._abort()  # a close frame would wait behind what the client does not read
            elif self._pinged:
                self.close(1011, "keepalive ping timeout")
                self._finish()
            else:
                self._pinged = True
                self.hold_back(_PING)
                timeout_s = self.settings.ping_timeout_s
                if timeout_s is None:
                    self._pinged = False
                self._watch(timeout_s or self.settings.ping_interval_s)
        elif self._state != LOST:
            self._abort()

    def _abort(self) -> None:
        self._out = None
        self.transport.abort()

    def _finish(self) -> None:
        """Let the transport go once what it holds was written; a client that does not read it is cut off."""
        self._state = DONE
        self.aim()
        self.transport.close()
        self._watch(_LAST_S)

    # The handshake

    def _asked(self, head: bytes) -> None:
        try:
            request = parse_request(head, self.settings.max_headers)
        except BadRequest as exc:
            self._refuse(exc.status, str(exc), exc.headers)
            return
        transport = self.transport
        self._connect(request, get_local_addr(transport), get_remote_addr(transport))

    def take_request(self, target: bytes, asked: Mapping[str, Any]) -> None:
        """Take a request that was parsed already, with the scope that uvicorn's HTTP made of it."""
        method, version, headers = asked["method"].encode(), asked["http_version"].encode(), asked["headers"]
        try:
            request = request_of(method, target, b"HTTP/" + version, headers, self.settings.max_headers)
        except BadRequest as exc:
            self._refuse(exc.status, str(exc), exc.headers)
            return
        self._connect(request, asked["server"], asked["client"])

    def _connect(self, request: Request, server: Any, client: Any) -> None:
        """Ask the application."""
        scope = scope_of(request, self, self._request, server, client)
        self._request = request
        self._state = CONNECTING
        self._watch(self.settings.accept_timeout_s)
        self.tell({"type": "websocket.connect"})
        task = self._task = self.loop.create_task(self._run(scope))
        self._server.tasks.add(task)
        task.add_done_callback(self._server.tasks.discard)

    def _answer(self, event: Event) -> None:
        """Take the application's answer to the handshake."""
        kind, request = event["type"], cast("Request", self._request)
        if kind == "websocket.accept":
            offered = self.settings.deflate
            said, self._setting = answer(request, event, self._server.default_headers, deflate=offered)
            self._log(request, "[accepted]")
            self._request = None
            self._state = OPEN
            self.transport.write(said)
            self.aim()
            if not self._paused:
                self._watch_client()
            head, self._head = self._head, None
            if head:
                self._read(head)
        elif kind == "websocket.close":
            self.tell({"type": "websocket.disconnect", "code": 1006, "reason": ""})
            self._refuse(403, "")
        elif kind == "websocket.http.response.start":
            self._request = (request, event["status"], checked(event.get("headers") or (), accept=False), [])
            self._state = DENYING
        else:
            raise RuntimeError(
                "expected 'websocket.accept', 'websocket.close' or 'websocket.http.response.start' "
                f"as the answer to a handshake; got {kind!r}"
            )

    def _deny(self, event: Event) -> None:
        if event["type"] != "websocket.http.response.body":
            raise RuntimeError(f"expected 'websocket.http.response.body'; got {event['type']!r}")
        request, status, headers, body = self._request
        body.append(event.get("body", b""))
        if not event.get("more_body", False):
            self._request = request
            self.tell({"type": "websocket.disconnect", "code": 1006, "reason": ""})
            self._refuse(status, b"".join(body), headers)

    def _refuse(self, status: int, body: str | bytes, headers: Any = ()) -> None:
        """Answer with HTTP, and end."""
        if isinstance(self._request, Request):
            self._log(self._request, str(status))
        self._request = self._head = None
        if isinstance(body, str):
            body = f"{body}\n".encode() if body else b""
        self.transport.write(refused(status, [*self._server.default_headers, *headers], body))
        self._finish()

    def _log(self, request: Request, outcome: str) -> None:
        if logger.isEnabledFor(logging.INFO):
            client = self.transport.get_extra_info("peername")
            where = f"{client[0]}:{client[1]}" if isinstance(client, tuple) else ""
            logger.info('%s - "WebSocket %s" %s', where, request.target.decode("latin-1"), outcome)

    # The application

    async def _run(self, scope: dict[str, Any]) -> None:
        try:
            await self.config.loaded_app(scope, self.receive, self.send)
        except ClientDisconnected:
            self._end(NORMAL, "")
        except Exception:
            logger.exception("Exception in ASGI application\n")
            self._end(close_code("error"), "error")
        except BaseException:
            self._end(close_code("restart"), "restart")  # cancelled: the server ends
            raise
        else:
            if self._state in (CONNECTING, DENYING):
                logger.error("The application returned without an answer to the handshake of a WebSocket")
            self._end(NORMAL, "")
        finally:
            self._task = None
            self.detach()

    def _end(self, code: int, reason: str) -> None:
        """Close what the application has left open."""
        if self._state in (CONNECTING, DENYING):
            self._refuse(500, "Internal Server Error")
        elif self._state == OPEN:
            self.close(code, reason)

    async def send(self, event: Event) -> None:
        """As ASGI. Raises ClientDisconnected (an OSError) once the connection has ended, RuntimeError out of order."""
        kind = event["type"]
        if self._state == OPEN:
            if kind == "websocket.send":
                text = event.get("text")
                message = prebuilt_text(text) if text is not None else Prebuilt(bytes(event["bytes"]))
                while not self.write(message):
                    await self.drained()
                    if self._state != OPEN:
                        raise ClientDisconnected
            elif kind == "websocket.close":
                self.close(event.get("code", NORMAL), event.get("reason") or "")
            else:
                raise RuntimeError(f"Expected ASGI message 'websocket.send' or 'websocket.close'; got {kind!r}")
        elif self._state == CONNECTING:
            self._answer(event)
        elif self._state == DENYING:
            self._deny(event)
        else:
            raise ClientDisconnected

    def close(self, code: int, reason: str) -> None:
        """Send a close frame, and wait for the client's for a time."""
        self.hold_back(close_frame(code, reason))
        self.flush()
        self._state = CLOSING
        self.aim()
        self.go_on()  # or its answer would not be seen
        self._watch(self.settings.close_timeout_s)
        self.tell({"type": "websocket.disconnect", "code": code, "reason": reason})

    # Frames from the client

    def _read(self, data: bytes) -> None:
        reader = self._reader
        if reader is None:
            reader = self._reader = FrameReader(
                self.settings.max_bytes, self.settings.max_fragments, None if self._setting is None else inflate, unmask
            )
        found: list[tuple[int, Any]] = []
        error: FrameError | None = None
        try:
            reader.feed(data, found)
        except FrameError as exc:
            error = exc
        for opcode, payload in found:
            if opcode in (TEXT, BINARY):
                if self._state == OPEN:
                    key = "text" if opcode == TEXT else "bytes"
                    self.tell({"type": "websocket.receive", key: payload})
            elif opcode == CLOSE:
                self._closed_by_client(*payload)
            elif opcode == PING and self._state == OPEN and not self._paused:
                self.hold_back(frame(PONG, payload))
        if error is not None and self._state <= CLOSING:
            self._fail(error)

    def _closed_by_client(self, code: int, reason: str) -> None:
        if self._state == OPEN:
            self.hold_back(close_frame(code))
            self.flush()
            self.tell({"type": "websocket.disconnect", "code": code, "reason": reason})
        self._finish()

    def _fail(self, error: FrameError) -> None:
        """End a connection whose client breaks the rules: say so, and read nothing more of it."""
        if self._state == OPEN:
            self.close(error.code, error.reason)
        if self.transport.can_write_eof() and not self._paused:
            # Not closed yet: the kernel would answer what the client is still sending with a reset, and a client that
            # is reset may never see the close frame.
            self._state = DONE
            self.transport.write_eof()
            self._watch(_LAST_S)
        else:
            self._finish()

    # The end of the server

    def shutdown(self) -> None:
        """Close for the server's end, with reason ``restart``; many connections one after another, in random order."""
        if self._state == OPEN:
            self.loop.call_later(self.settings.drained_after_s(len(self._server.connections)), self._restart)
        elif self._state in (CONNECTING, DENYING):
            self.tell({"type": "websocket.disconnect", "code": close_code("restart"), "reason": "restart"})
            self._refuse(503, "the server restarts")
        elif self._state == CLOSING:
            self._watch(_LAST_S)
        elif self._state == ASKED:
            self._finish()

    def _restart(self) -> None:
        if self._state == OPEN:
            self.close(close_code("restart", self.close_protocol), "restart")
        if self._state == CLOSING:
            self._watch(_LAST_S)
