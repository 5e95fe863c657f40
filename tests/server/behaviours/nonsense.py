"""Probes of handshakes and frames that break the rules."""

from __future__ import annotations

from .client import CLOSE, CONTINUATION, TEXT
from .running import Server
from .verdict import Row, Verdict, rank

__all__ = ["ROWS"]


async def half_handshake(server: Server, side: str) -> Verdict:
    async with await server.connect() as client:
        client.writer.write(f"GET /{side}/echo HTTP/1.1\r\nHost: 127.0.0.1\r\nUpgrade: websocket\r\n".encode())
        await client.answer()
    return Verdict(rank(good=client.answered != "open"), client.answered)


async def many_headers(server: Server, side: str) -> Verdict:
    async with await server.connect() as client:
        await client.ask(f"/{side}/echo", *(b"x-%d: y" % number for number in range(5000)))
        text = client.answered
    return Verdict(rank(good=text in ("400", "431"), partial=text != "open"), text)


async def long_header(server: Server, side: str) -> Verdict:
    async with await server.connect() as client:
        await client.ask(f"/{side}/echo", b"x-long: " + b"y" * (1 << 20))
        text = client.answered
    return Verdict(rank(good=text in ("400", "431"), partial=text != "open" and text != "101"), text)


async def bad_key(server: Server, side: str) -> Verdict:
    async with server.client(f"/{side}/echo", key=b"short") as client:
        text = client.answered
    return Verdict(rank(good=text == "400", partial=text == "101"), text)


async def bad_subprotocol(server: Server, side: str) -> Verdict:
    async with server.client(f"/{side}/echo", "", "Sec-WebSocket-Protocol: café".encode()) as client:
        text = client.answered
    return Verdict(rank(good=text == "400", partial=text == "101"), text)


async def no_mask(server: Server, side: str) -> Verdict:
    async with server.client(f"/{side}/echo") as client:
        client.send(TEXT, b"x", masked=False)
        text = await client.ending()
    return Verdict(rank(good=text.startswith("1002"), partial=text in ("cut", "1005")), text.split()[0])


async def no_text(server: Server, side: str) -> Verdict:
    async with server.client(f"/{side}/echo") as client:
        client.send(TEXT, b"\xff")
        text = await client.ending()
    return Verdict(rank(good=text.startswith("1007"), partial=text in ("cut", "1005")), text.split()[0])


async def close_inside_message(server: Server, side: str) -> Verdict:
    async with server.client(f"/{side}/echo") as client:
        client.send(TEXT, b"x", fin=False)
        client.send(CLOSE, (1000).to_bytes(2, "big"))
        text = await client.ending()
    return Verdict(rank(good=text == "1000", partial=text != "open"), text.split()[0])


async def stray_fragment(server: Server, side: str) -> Verdict:
    async with server.client(f"/{side}/echo") as client:
        client.send(CONTINUATION, b"x")
        text = await client.ending()
    return Verdict(rank(good=text.startswith("1002"), partial=text in ("cut", "1005")), text.split()[0])


ROWS = (
    Row("handshake that never ends", half_handshake, hasty=True),
    Row("5,000 headers", many_headers),
    Row("header of 1 MiB", long_header),
    Row("broken `Sec-WebSocket-Key`", bad_key),
    Row("subprotocol that is not ASCII", bad_subprotocol),
    Row("frame that is not masked", no_mask),
    Row("text that is not UTF-8", no_text),
    Row("close in the middle of a message", close_inside_message),
    Row("fragment of no message", stray_fragment),
)
