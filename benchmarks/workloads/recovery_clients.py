"""Clients of the jitter test: sockets that are cut again and again, and an account of every message.

A client remembers the newest position that it was told and presents it when it comes back. Speaks only as much of
RFC 6455 as it meets. Knows nothing of servers and engines.
"""

from __future__ import annotations

import asyncio
import json
import random
import socket
import struct
import time
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any, cast

__all__ = ["Client", "Line", "Record", "Weather"]

JOIN_S = 10.0
# Before another try: a client that was refused or closed does not come back at once, nor do all at the same time.
AGAIN_S = (0.1, 1.0)
RESET = struct.pack("ii", 1, 0)


@dataclass(slots=True)
class Weather:
    """How the clients' network behaves: cut about every ``every_s``, for about ``for_s``, until it is ``calm``."""

    port: int
    every_s: float
    for_s: float
    calm: bool = False

    def about(self, seconds: float) -> float:
        """Return a time that is a third longer or shorter at most."""
        return seconds * random.uniform(2 / 3, 4 / 3)  # no secret


@dataclass(slots=True)
class Record:
    """What all clients of a run have seen. Times in milliseconds."""

    messages: int
    latencies: list[float] = field(default_factory=list)
    joins: list[float] = field(default_factory=list)  # with a position, as the server timed them
    returns: list[float] = field(default_factory=list)  # from connecting to the last message missed
    cuts: int = 0
    recovered: int = 0  # messages that came with a join
    unrecovered: int = 0  # joins that were told that nothing comes with them
    interrupted: int = 0  # times that somebody was told of a loss while connected
    closed: int = 0  # connections that a server ended or refused
    heard_s: float = 0.0


class Client:
    """One client over all its connections."""

    __slots__ = ("duplicated", "last", "line", "out_of_order", "position", "record", "seen", "told", "weather")

    def __init__(self, weather: Weather, record: Record) -> None:
        self.weather = weather
        self.record = record
        self.line: Line | None = None
        self.position: list[Any] | None = None
        self.seen = bytearray(record.messages + 1)
        self.last = self.duplicated = self.out_of_order = 0
        # Each time it was told that messages are gone: (the last before, the first after, where it goes on).
        self.told: list[tuple[int, int | None, list[Any] | None]] = []

    def __repr__(self) -> str:
        return f"<Client {self.last}/{self.record.messages} at {self.position}>"

    # Its connections

    async def join(self) -> Line:
        """Connect until the server has said that this client is in."""
        while True:
            line = await self.connect()
            if line is not None:
                await asyncio.wait((line.joined, line.gone), timeout=JOIN_S, return_when=asyncio.FIRST_COMPLETED)
                if line.joined.done():
                    return line
                line.abort()
            self.record.closed += 1
            await asyncio.sleep(random.uniform(*AGAIN_S))  # jitter

    async def connect(self) -> Line | None:
        """Open a socket and ask for the room, with the position; None: nobody listens."""
        since = f"?since={self.position[0]}:{self.position[1]}" if self.position else ""
        line = self.line = Line(self, since)
        try:
            await asyncio.get_running_loop().create_connection(lambda: line, "127.0.0.1", self.weather.port)
        except OSError:
            return None
        return line

    async def live(self, line: Line) -> None:
        """Stay connected but for the cuts, until cancelled."""
        weather = self.weather
        cut_s = time.monotonic() + random.uniform(0, weather.every_s)  # spread over the time between two
        while True:
            await asyncio.wait((line.gone,), timeout=max(0.0, cut_s - time.monotonic()))
            if line.gone.done():
                self.record.closed += 1
                await asyncio.sleep(random.uniform(*AGAIN_S))  # jitter
            elif weather.calm:
                await line.gone
                continue
            else:
                self.record.cuts += 1
                self.line = None
                # Half of them the server is told of; of the others it only learns when the socket goes.
                if random.random() < 0.5:
                    line.abort()
                else:
                    line.stop()
                await asyncio.sleep(weather.about(weather.for_s))
                line.abort()
                cut_s = time.monotonic() + weather.about(weather.every_s)
            line = await self.join()

    @property
    def within(self) -> bool:
        """Whether it is in the room."""
        return self.line is not None and self.line.joined.done() and not self.line.gone.done()

    # What it hears

    def hear(self, line: Line, event: Mapping[str, Any]) -> None:
        """Take what a server sent."""
        self.record.heard_s = now = time.monotonic()
        if event["position"] is not None:
            self.position = event["position"]
        if "n" in event:
            self.record.latencies.append((now - event["sent_s"]) * 1000)
            self.count(event["n"])
            line.take()
        elif "joined" in event:
            joined = event["joined"]
            if joined.get("recovered") is not None:
                self.record.joins.append(joined["join_ms"])
                self.record.recovered += joined["count"]
            if joined.get("recovered") is False:
                self.record.unrecovered += 1
                self.told.append((self.last, None, self.position))
            line.join(joined.get("count", 0))
        else:
            self.record.interrupted += 1
            self.told.append((self.last, None, self.position))

    def count(self, number: int) -> None:
        """Take note of a message."""
        if self.seen[number]:
            self.duplicated += 1
        elif number < self.last:
            self.out_of_order += 1
        self.seen[number] = 1
        if number > self.last:
            self.told = [
                (before, number if after is None and before < number else after, position)
                for before, after, position in self.told
            ]
            self.last = number

    def missed(self) -> list[int]:
        """Return the messages that never came."""
        return [number for number in range(1, self.record.messages + 1) if not self.seen[number]]

    def unaccounted(self, positions: Mapping[int, list[Any] | None]) -> list[int]:
        """Return those that never came though nobody said so. ``positions``: of each message, in the log."""
        return [number for number in self.missed() if not self.was_told(number, positions[number])]

    def was_told(self, number: int, position: list[Any] | None) -> bool:
        """Say whether it was told of one: at that place in the order, and not after the point where it goes on."""
        if position is None:
            return False
        epoch, offset = position
        return any(
            before < number and (after is None or number < after) and (on is None or epoch != on[0] or offset <= on[1])
            for before, after, on in self.told
        )


class Line(asyncio.Protocol):
    """One connection of a client."""

    __slots__ = ("began_s", "client", "data", "gone", "joined", "left", "since", "transport", "upgraded")

    def __init__(self, client: Client, since: str) -> None:
        loop = asyncio.get_running_loop()
        self.client = client
        self.since = since
        self.data = b""
        self.upgraded = False
        self.transport: asyncio.Transport | None = None
        self.joined: asyncio.Future[None] = loop.create_future()
        self.gone: asyncio.Future[None] = loop.create_future()
        self.began_s = time.monotonic()
        self.left = 0  # messages that came with the join and are still on their way

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        """Ask for the room."""
        self.transport = cast("asyncio.Transport", transport)
        # What closes it resets it: no farewell.
        transport.get_extra_info("socket").setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, RESET)
        self.transport.write(
            f"GET /{self.since} HTTP/1.1\r\nHost: 127.0.0.1\r\nUpgrade: websocket\r\nConnection: Upgrade\r\n"
            "Sec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==\r\nSec-WebSocket-Version: 13\r\n\r\n".encode()
        )

    def connection_lost(self, exc: Exception | None) -> None:
        """Tell the client."""
        if not self.gone.done():
            self.gone.set_result(None)

    def abort(self) -> None:
        """Cut it."""
        if self.transport is not None:
            self.transport.abort()

    def stop(self) -> None:
        """Let nothing through any more, and tell nobody."""
        if self.transport is not None and not self.transport.is_closing():
            self.transport.pause_reading()

    def join(self, count: int) -> None:
        """Learn that the client is in, and how many messages are coming that it missed."""
        self.left = count + 1
        self.take()
        self.joined.set_result(None)

    def take(self) -> None:
        """Count down what it missed."""
        if self.left:
            self.left -= 1
            if not self.left and self.since:
                self.client.record.returns.append((time.monotonic() - self.began_s) * 1000)

    def data_received(self, data: bytes) -> None:
        """Take frames; what comes after the cut nobody hears."""
        self.data += data
        if not self.upgraded:
            head, end, rest = self.data.partition(b"\r\n\r\n")
            if not end:
                return
            if not head.startswith(b"HTTP/1.1 101 "):
                self.abort()
                return
            self.upgraded, self.data = True, rest
        while self.client.line is self and (frame := self.frame()) is not None:
            opcode, payload = frame
            if opcode == 1:
                self.client.hear(self, json.loads(payload))
            elif opcode == 8:
                self.abort()
            elif opcode == 9 and self.transport is not None:
                self.transport.write(bytes((0x8A, 0x80 | len(payload))) + bytes(4) + payload)

    def frame(self) -> tuple[int, bytes] | None:
        """Take one frame off the data; None where more is needed."""
        data = self.data
        if len(data) < 2:
            return None
        length, start = data[1], 2
        if length == 126:
            length, start = int.from_bytes(data[2:4], "big"), 4
        if len(data) < start + length:
            return None
        if not data[0] & 0x80 or length > 0xFFFF:
            raise AssertionError(f"a frame that nobody here sends: {data[:8]!r}")
        self.data = data[start + length :]
        return data[0] & 0x0F, data[start : start + length]
