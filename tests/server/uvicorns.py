"""A uvicorn with our classes on the test's own loop, and a client of raw bytes."""

from __future__ import annotations

import asyncio
import contextlib
import socket
from collections.abc import AsyncIterator, Awaitable, Callable
from types import TracebackType
from typing import Any, Self

import uvicorn

from antiphon import framework
from antiphon.server import HTTPProtocol, WebSocketProtocol
from antiphon.wire.frames import CLOSE, frame, unmasked
from tests.waiting import until

__all__ = ["KEY", "Raw", "Uvicorn", "masked", "serving"]

KEY = b"dGhlIHNhbXBsZSBub25jZQ=="
LIMIT_S = 30.0
Application = Callable[[Any, Any, Any], Awaitable[None]]


def masked(opcode: int, payload: bytes = b"", *, fin: bool = True, rsv: int = 0) -> bytes:
    """Return a frame as a client sends it. ``rsv``: its reserved bits, 4 for the first."""
    mask = b"\x37\xfa\x21\x3d"
    whole = frame(opcode, payload)
    first, second, *length = whole[: len(whole) - len(payload)]
    return bytes(((first if fin else first & 0x7F) | rsv << 4, second | 0x80, *length)) + mask + unmasked(payload, mask)


class Raw:
    """A client that sees and sends bytes."""

    def __init__(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self.reader = reader
        self.writer = writer

    @classmethod
    async def connect(cls, port: int, *, receive_buffer: int | None = None) -> Raw:
        """Open a TCP connection. ``receive_buffer``: of the kernel, bytes; small, so that a reader is soon slow."""
        sock = socket.socket()
        sock.setblocking(False)
        if receive_buffer is not None:
            sock.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, receive_buffer)
        await asyncio.get_running_loop().sock_connect(sock, ("127.0.0.1", port))
        return cls(*await asyncio.open_connection(sock=sock, limit=1 << 12))

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, exc: BaseException | None, at: TracebackType | None
    ) -> None:
        await self.close()

    async def close(self) -> None:
        """Close the TCP connection."""
        self.writer.close()
        with contextlib.suppress(OSError):
            await self.writer.wait_closed()

    async def ask(self, *headers: bytes, target: bytes = b"/") -> bytes:
        """Send a handshake and return the head of the answer."""
        lines = [
            b"GET " + target + b" HTTP/1.1", b"Host: test", b"Connection: Upgrade", b"Upgrade: websocket",
            b"Sec-WebSocket-Version: 13", b"Sec-WebSocket-Key: " + KEY, *headers,
        ]  # fmt: skip
        self.writer.write(b"\r\n".join(lines) + b"\r\n\r\n")
        return await self.head()

    async def head(self) -> bytes:
        """Read an answer's head."""
        async with asyncio.timeout(LIMIT_S):
            return await self.reader.readuntil(b"\r\n\r\n")

    async def frame(self) -> tuple[int, bytes]:
        """Read one frame of the server: (opcode with its flags, payload)."""
        async with asyncio.timeout(LIMIT_S):
            first, size = await self.reader.readexactly(2)
            if size == 126:
                size = int.from_bytes(await self.reader.readexactly(2), "big")
            elif size == 127:
                size = int.from_bytes(await self.reader.readexactly(8), "big")
            return first, await self.reader.readexactly(size)

    async def closed(self) -> tuple[int, str]:
        """Read up to the close frame and return its code and reason."""
        while True:
            first, payload = await self.frame()
            if first & 0x0F == CLOSE:
                return int.from_bytes(payload[:2], "big"), payload[2:].decode()

    async def ended(self) -> bytes:
        """Wait until the server has closed the connection; return what came before that."""
        came = b""
        async with asyncio.timeout(LIMIT_S):
            with contextlib.suppress(ConnectionError):
                while data := await self.reader.read(1 << 16):
                    came += data
        return came


class Uvicorn:
    """A server that runs. ``stop()`` ends it as SIGTERM does."""

    def __init__(self, server: uvicorn.Server, task: asyncio.Task[None]) -> None:
        self.server = server
        self.task = task
        self.port: int = server.servers[0].sockets[0].getsockname()[1]
        self.clients: list[Raw] = []

    @property
    def protocols(self) -> list[WebSocketProtocol]:
        """The sockets that are there."""
        found: Any = self.server.server_state.connections
        return [protocol for protocol in found if isinstance(protocol, WebSocketProtocol)]

    async def client(self, *headers: bytes, receive_buffer: int | None = None) -> Raw:
        """Open a WebSocket."""
        raw = await self.connect(receive_buffer=receive_buffer)
        answer = await raw.ask(*headers)
        assert answer.startswith(b"HTTP/1.1 101 "), answer
        return raw

    async def connect(self, *, receive_buffer: int | None = None) -> Raw:
        """Open a TCP connection."""
        raw = await Raw.connect(self.port, receive_buffer=receive_buffer)
        self.clients.append(raw)
        return raw

    async def stop(self) -> None:
        """End the server, and wait until it has ended."""
        self.server.should_exit = True
        async with asyncio.timeout(LIMIT_S):
            await self.task


@contextlib.asynccontextmanager
async def serving(
    application: Application, *, options: dict[str, Any] | None = None, **config: Any
) -> AsyncIterator[Uvicorn]:
    """Serve an application with our classes. ``options``: of ``ANTIPHON``; the rest is uvicorn's."""
    before = framework.install(framework.Framework(**(options or {})))
    config = {"lifespan": "off", "log_config": None, "access_log": False, "ws_ping_interval": None, **config}
    server = uvicorn.Server(uvicorn.Config(application, port=0, ws=WebSocketProtocol, http=HTTPProtocol, **config))
    server.capture_signals = contextlib.nullcontext  # type: ignore[method-assign, assignment]  # pytest has its own
    task = asyncio.create_task(server.serve())
    try:
        await until(lambda: server.started)
        running = Uvicorn(server, task)
        yield running
        for client in running.clients:
            await client.close()
        for protocol in running.protocols:
            protocol.transport.abort()
        await running.stop()
    finally:
        framework.install(before)
        if not task.done():
            server.force_exit = True
            task.cancel()
