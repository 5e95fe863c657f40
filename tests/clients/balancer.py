"""A balancer without sticky sessions: each connection goes to the next server, whosever it is."""

from __future__ import annotations

import asyncio
import itertools

from antiphon.testing.faults import ChildProcess, Peer
from tests.clients.site import Site

__all__ = ["Balancer"]


async def balance(peer: Peer, ports: list[int]) -> None:
    """Send each connection to the next of some ports, until the line ends; tell what was asked for where."""
    turn = itertools.cycle(ports)
    asked: list[tuple[str, int]] = []

    async def forward(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        try:
            while data := await reader.read(65536):
                writer.write(data)
                await writer.drain()
        except OSError:
            pass
        finally:
            writer.close()

    async def accept(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        first = await reader.read(65536)
        for _ in ports:
            port = next(turn)
            try:
                behind = await asyncio.open_connection("127.0.0.1", port)
                break
            except OSError:  # it is down
                continue
        else:
            writer.close()
            return
        asked.append((first.partition(b" HTTP")[0].decode("latin-1").partition("?")[0], port))
        behind[1].write(first)
        await asyncio.gather(forward(reader, behind[1]), forward(behind[0], writer))

    server = await asyncio.start_server(accept, "127.0.0.1", 0)
    peer.send(server.sockets[0].getsockname()[1])
    while True:
        await peer.receive_async(None)
        peer.send(asked)
        asked.clear()


class Balancer:
    """Spreads connections over sites, with no regard for whose they are."""

    def __init__(self, *sites: Site) -> None:
        self.process = ChildProcess(balance, [site.port for site in sites])
        self.process.start()
        self.port: int = self.process.receive()

    def asked(self) -> list[tuple[str, int]]:
        """Return what was asked for since the last call: (method and path, port)."""
        self.process.send("asked")
        return [(line, port) for line, port in self.process.receive()]

    def close(self) -> None:
        """End it."""
        self.process.close()
