"""The least that Python can do: asyncio's protocols on uvloop, no application. One room, prebuilt frames.

What a client sends is framed once and given to each transport on its own. Speaks only as much of RFC 6455 as the load
generator does.
"""

from __future__ import annotations

import asyncio
import base64
import hashlib
import json
import sys
from typing import cast

import uvloop

MEMBERS: list[asyncio.Transport] = []
GUID = b"258EAFA5-E914-47DA-95CA-C5AB0DC85B11"


class Member(asyncio.Protocol):
    """One socket."""

    def __init__(self) -> None:
        self.data = b""
        self.joined = False

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        """Keep the transport."""
        self.transport = cast("asyncio.Transport", transport)

    def connection_lost(self, exc: Exception | None) -> None:
        """Leave the room."""
        if self.joined:
            MEMBERS.remove(self.transport)

    def data_received(self, data: bytes) -> None:
        """Answer the handshake; then pass each text on."""
        self.data += data
        if not self.joined:
            head, end, self.data = self.data.partition(b"\r\n\r\n")
            if not end:
                self.data = head
                return
            key = next(
                line[18:].strip() for line in head.split(b"\r\n") if line.lower().startswith(b"sec-websocket-key:")
            )
            accept = base64.b64encode(hashlib.sha1(key + GUID).digest())
            self.transport.write(
                b"HTTP/1.1 101 Switching Protocols\r\nUpgrade: websocket\r\nConnection: Upgrade\r\n"
                b"Sec-WebSocket-Accept: " + accept + b"\r\n\r\n"
            )
            self.joined = True
            MEMBERS.append(self.transport)
        while (used := self.take()) > 0:
            self.data = self.data[used:]

    def take(self) -> int:
        """Take one frame; return its length, 0 where more is needed."""
        data = self.data
        if len(data) < 6:
            return 0
        length, start = data[1] & 127, 2
        if length == 126:
            length, start = int.from_bytes(data[2:4], "big"), 4
        if len(data) < start + 4 + length:
            return 0
        key, payload = data[start : start + 4], data[start + 4 : start + 4 + length]
        mask = (key * (length // 4 + 1))[:length]
        text = (int.from_bytes(payload, "big") ^ int.from_bytes(mask, "big")).to_bytes(length, "big")
        if data[0] == 0x81:
            head = bytes((0x81, length)) if length < 126 else b"\x81\x7e" + length.to_bytes(2, "big")
            out = head + text
            for member in MEMBERS:
                member.write(out)
        elif data[0] == 0x88:
            self.transport.write(b"\x88" + bytes((length,)) + text)
            self.transport.close()
        return start + 4 + length


async def main() -> None:
    """Serve until stdin ends."""
    loop = asyncio.get_running_loop()
    server = await loop.create_server(Member, "127.0.0.1", 0, backlog=2048)
    print(json.dumps({"port": server.sockets[0].getsockname()[1]}), flush=True)
    ended = loop.create_future()
    loop.add_reader(sys.stdin.fileno(), ended.set_result, None)
    await ended


if __name__ == "__main__":
    asyncio.set_event_loop_policy(uvloop.EventLoopPolicy())
    asyncio.run(main())
