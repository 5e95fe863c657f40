"""A WebSocket client of raw bytes, which answers nothing by itself: no ping, no close. Knows no library."""

from __future__ import annotations

import asyncio
import contextlib
import socket
import struct
from typing import Self

__all__ = ["BINARY", "CLOSE", "CONTINUATION", "PING", "PONG", "TEXT", "Client", "code_and_reason"]

CONTINUATION, TEXT, BINARY, CLOSE, PING, PONG = 0x0, 0x1, 0x2, 0x8, 0x9, 0xA
KEY = b"dGhlIHNhbXBsZSBub25jZQ=="
# The mask of all zeros: what is masked with it stays as it is, so long messages cost nothing to mask.
MASK = b"\0\0\0\0"


def code_and_reason(payload: bytes) -> str:
    """Return what a close frame says."""
    return f"{int.from_bytes(payload[:2], 'big')} {payload[2:].decode()}".strip() if payload else "1005"


class Client:
    """One TCP connection. ``patience_s``: how long it waits for anything, before it raises TimeoutError."""

    def __init__(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter, patience_s: float) -> None:
        self.reader = reader
        self.writer = writer
        self.patience_s = patience_s
        self.status = 0
        self.head = b""
        self.answered = "open"  # how a handshake ended: a status, or "cut"

    @classmethod
    async def connect(cls, port: int, patience_s: float, *, reads: bool = True) -> Client:
        """Open a TCP connection. ``reads=False``: with buffers so small that the server's are full soon."""
        sock = socket.socket()
        sock.setblocking(False)
        if not reads:
            sock.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 4096)
        try:
            async with asyncio.timeout(patience_s):
                await asyncio.get_running_loop().sock_connect(sock, ("127.0.0.1", port))
        except OSError:
            sock.close()
            raise
        return cls(*await asyncio.open_connection(sock=sock, limit=1 << 16 if reads else 1 << 12), patience_s)

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(self, *_: object) -> None:
        await self.close()

    async def close(self) -> None:
        """Close the TCP connection."""
        self.writer.close()
        with contextlib.suppress(OSError):
            await self.writer.wait_closed()

    def reset(self) -> None:
        """End the TCP connection with a reset."""
        sock = self.writer.get_extra_info("socket")
        sock.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
        self.writer.transport.abort()

    async def ask(self, target: str, *headers: bytes, key: bytes = KEY) -> int:
        """Send a handshake; return the status of the answer, 0 where there was none."""
        lines = [
            b"GET " + target.encode() + b" HTTP/1.1", b"Host: 127.0.0.1", b"Connection: Upgrade",
            b"Upgrade: websocket", b"Sec-WebSocket-Version: 13", b"Sec-WebSocket-Key: " + key, *headers,
        ]  # fmt: skip
        self.writer.write(b"\r\n".join(lines) + b"\r\n\r\n")
        return await self.answer()

    async def answer(self) -> int:
        """Read the head of an answer; return its status, 0 where none came."""
        try:
            async with asyncio.timeout(self.patience_s):
                self.head = await self.reader.readuntil(b"\r\n\r\n")
                self.status = int(self.head.split(maxsplit=2)[1])
        except TimeoutError:
            pass
        except (OSError, asyncio.IncompleteReadError):
            self.answered = "cut"
        else:
            self.answered = str(self.status)
        return self.status

    def send(
        self, opcode: int, payload: bytes = b"", *, fin: bool = True, masked: bool = True, compressed: bool = False
    ) -> None:
        """Send one frame."""
        size = len(payload)
        first = opcode | (0x80 if fin else 0) | (0x40 if compressed else 0)
        mask_bit = 0x80 if masked else 0
        if size < 126:
            head = bytes((first, mask_bit | size))
        elif size < 1 << 16:
            head = bytes((first, mask_bit | 126)) + size.to_bytes(2, "big")
        else:
            head = bytes((first, mask_bit | 127)) + size.to_bytes(8, "big")
        self.writer.write(head + (MASK if masked else b"") + payload)

    async def drain(self) -> bool:
        """Wait until what was sent is on its way; False: the server takes no more."""
        try:
            async with asyncio.timeout(self.patience_s):
                await self.writer.drain()
        except OSError:  # TimeoutError too
            return False
        return True

    async def frame(self) -> tuple[int, bytes] | None:
        """Read one frame of the server: opcode and payload; None: the connection has ended. Raises TimeoutError."""
        try:
            async with asyncio.timeout(self.patience_s):
                first, size = await self.reader.readexactly(2)
                if size == 126:
                    size = int.from_bytes(await self.reader.readexactly(2), "big")
                elif size == 127:
                    size = int.from_bytes(await self.reader.readexactly(8), "big")
                return first & 0x0F, await self.reader.readexactly(size)
        except TimeoutError:
            raise
        except (OSError, asyncio.IncompleteReadError):
            return None

    async def message(self) -> tuple[int, bytes] | None:
        """Read one frame that is no ping."""
        while (found := await self.frame()) is not None and found[0] == PING:
            pass
        return found

    async def ending(self) -> str:
        """Say how the server ends the connection: code and reason of its close frame, "cut" or "open"."""
        try:
            async with asyncio.timeout(self.patience_s):  # of all frames: pings come for ever
                while (found := await self.frame()) is not None:
                    if found[0] == CLOSE:
                        self.send(CLOSE, found[1][:2])
                        return code_and_reason(found[1])
        except TimeoutError:
            return "open"
        return "cut"

    async def ended(self) -> bool:
        """Wait for the end of the connection; False: it stays open."""
        try:
            async with asyncio.timeout(self.patience_s):
                while await self.reader.read(1 << 16):
                    pass
        except TimeoutError:
            return False
        except OSError:
            pass
        return True
