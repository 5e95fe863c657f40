"""Over real sockets of our server, where publications go straight to them: order, recovery, pings, the server's end."""

from __future__ import annotations

import asyncio
import json
from typing import Any

from antiphon.layers import InMemoryChannelLayer
from antiphon.wire.frames import TEXT
from tests.server.uvicorns import LIMIT_S, Raw, Uvicorn, masked, serving
from tests.subscriptions.speaking import Open


class Pinging(Open):
    """Pings often, and asks for no answer in time."""

    ping_interval_s = 0.02
    pong_timeout_s = 100.0


class Socket:
    """A client over a socket: sends lines, takes lines."""

    def __init__(self, raw: Raw) -> None:
        self.raw = raw
        self.lines: list[Any] = []

    def say(self, *commands: dict[str, Any]) -> None:
        self.raw.writer.write(masked(TEXT, "\n".join(map(json.dumps, commands)).encode()))

    async def line(self) -> Any:
        while not self.lines:
            first, payload = await self.raw.frame()
            assert first == 0x80 | TEXT, payload
            self.lines = [json.loads(line) for line in payload.decode().split("\n")]
        return self.lines.pop(0)


async def begun(server: Uvicorn, *commands: dict[str, Any]) -> Socket:
    socket = Socket(await server.client())
    socket.say({"id": 1, "connect": {}}, *commands)
    assert "client" in (await socket.line())["connect"]
    return socket


async def test_each_client_gets_everything_in_order_however_often_it_comes_back(layer: InMemoryChannelLayer) -> None:
    async with serving(Open.as_asgi()) as server:
        epoch, total = (await layer.position("log")).epoch, 120

        async def client(cuts: int) -> list[int]:
            seen: list[int] = []
            for cut in range(cuts + 1):
                wanted = total if cut == cuts else total * (cut + 1) // (cuts + 1)
                since = {"recover": True, "epoch": epoch, "offset": len(seen)}
                socket = await begun(server, {"id": 2, "subscribe": {"channel": "log", **since}})
                result = (await socket.line())["subscribe"]
                assert result["recovered"]
                seen += [pub["data"] for pub in result.get("publications", ())]
                while len(seen) < wanted:
                    line = await socket.line()
                    if "push" in line:
                        seen.append(line["push"]["pub"]["data"])
                await socket.raw.close()
            return seen

        async def publish() -> None:
            for n in range(total):
                await layer.group_send("log", {"type": "publication", "data": n})
                await asyncio.sleep(0 if n % 10 else 0.002)

        async with asyncio.timeout(LIMIT_S):
            *seen, _ = await asyncio.gather(*(client(cuts) for cuts in (0, 0, 1, 2, 5)), publish())
        assert seen == [list(range(total))] * 5


async def test_pings_go_straight_to_the_socket(layer: InMemoryChannelLayer) -> None:
    async with serving(Pinging.as_asgi()) as server:
        socket = await begun(server)
        assert [await socket.line() for _ in range(3)] == [{}] * 3


async def test_the_end_of_the_server_is_told_in_the_clients_own_code(layer: InMemoryChannelLayer) -> None:
    async with serving(Open.as_asgi()) as server:
        socket = await begun(server, {"id": 2, "subscribe": {"channel": "room"}})
        assert (await socket.line())["subscribe"] == {}
        server.server.should_exit = True
        assert await socket.raw.closed() == (3001, "restart")


async def test_the_end_of_the_server_ends_streams_with_a_word(layer: InMemoryChannelLayer) -> None:
    async with serving(Open.as_asgi()) as server:
        raw = await server.connect()
        body = b'{"id":1,"connect":{}}'
        raw.writer.write(b"POST / HTTP/1.1\r\nHost: test\r\nContent-Length: %d\r\n\r\n%b" % (len(body), body))
        assert b" 200 " in await raw.head()
        async with asyncio.timeout(LIMIT_S):
            assert b'"connect"' in await raw.reader.readuntil(b"}}\n")
        server.server.should_exit = True
        assert b'{"push":{"disconnect":{"code":3001,"reason":"restart"}}}' in await raw.ended()
