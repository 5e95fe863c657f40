"""Probes of clients that read too little, send too much, or keep silent."""

from __future__ import annotations

import asyncio
import signal
import time
import zlib

from .client import BINARY, CONTINUATION, PING, PONG, TEXT, Client, code_and_reason
from .running import Server
from .verdict import Row, Verdict, rank

__all__ = ["ROWS"]

# More than any server of the table takes in one message.
TOO_BIG = 17 << 20
CHUNK = b"x" * (1 << 16)
BOMB_BYTES = 64 << 20
# What one hostile message may cost at most.
GROWTH_MB = 100.0
FRAGMENTS = 200_000
PINGS = 2_000


async def never_reads(server: Server, side: str) -> Verdict:
    who = server.name()
    async with server.client(f"/{side}/flood", who, reads=False) as client:
        client.send(TEXT, b"go")
        await server.told(who, "blocked_mb")
        blocked_mb = server.seen(who).get("blocked_mb")
        client.reset()
        told = await server.told(who, "disconnect")
    code = server.seen(who).get("disconnect")
    words = ["send() blocks" if blocked_mb is not None else "send() never blocks"]
    words.append(f"then {code}" if told else "application not told of the end")
    good = blocked_mb is not None and code == 1006
    return Verdict(rank(good=good, partial=blocked_mb is not None and told), ", ".join(words), blocked_mb)


async def no_pong(server: Server, side: str) -> Verdict:
    who = server.name()
    async with server.client(f"/{side}/echo", who) as client:
        text = await client.ending()
    return Verdict(rank(good=text.startswith("1011"), partial=text != "open"), text)


async def never_reads_nor_answers(server: Server, side: str) -> Verdict:
    who = server.name()
    async with server.client(f"/{side}/flood", who, reads=False) as client:
        client.send(TEXT, b"go")
        await server.told(who, "blocked_mb")
        freed = await server.told(who, "disconnect")
    return Verdict(
        rank(good=freed), f"cut off, application told {server.seen(who)['disconnect']}" if freed else "never freed"
    )


async def stopped_with_one_that_never_reads(server: Server, side: str) -> Verdict:
    who = server.name()
    async with server.client(f"/{side}/flood", who, reads=False) as client:
        client.send(TEXT, b"go")
        await server.told(who, "blocked_mb")
        began_s = time.monotonic()
        server.process.send_signal(signal.SIGTERM)
        exited = await server.exited()
        took_s = time.monotonic() - began_s
    told = server.seen(who).get("disconnect") is not None
    text = f"exits, application {'told' if told else 'not told'}" if exited else "hangs"
    return Verdict(rank(good=exited and told, partial=exited), text, round(took_s, 1) if exited else None, "s")


async def _outcome(client: Client) -> str:
    """Say what the server makes of a message: ends the connection, or passes it on."""
    try:
        found = await client.message()
    except TimeoutError:
        return "no answer"
    if found is None:
        return "cut"
    opcode, payload = found
    if opcode in (TEXT, CONTINUATION, BINARY):
        return "passed on"
    return code_and_reason(payload)


async def too_big(server: Server, side: str) -> Verdict:
    async with server.client(f"/{side}/echo") as client:
        # Read at once: a server that closes while it is written to resets the connection after its close frame.
        reading = asyncio.create_task(_outcome(client))
        client.writer.write(bytes((0x81, 0xFF)) + TOO_BIG.to_bytes(8, "big") + b"\0\0\0\0")
        for _ in range(TOO_BIG // len(CHUNK)):
            client.writer.write(CHUNK)
            if not await client.drain() or reading.done():
                break
        text = await reading
    return Verdict(rank(good=text.startswith("1009"), partial=text in ("cut", "1005")), text)


async def bomb(server: Server, side: str) -> Verdict:
    async with server.client(f"/{side}/echo", "", b"Sec-WebSocket-Extensions: permessage-deflate") as client:
        if b"permessage-deflate" not in client.head.lower():
            return Verdict(rank(good=True), "no compression")
        squeeze = zlib.compressobj(9, zlib.DEFLATED, -15)
        small = squeeze.compress(bytes(BOMB_BYTES)) + squeeze.flush(zlib.Z_SYNC_FLUSH)
        grown_mb = server.growth_mb()
        client.send(TEXT, small[:-4], compressed=True)
        text = await _outcome(client)
    figure = grown_mb()
    bounded = (figure or 0) < GROWTH_MB
    return Verdict(
        rank(good=text.startswith("1009") and bounded, partial=text != "no answer" and bounded), text, figure
    )


async def fragments(server: Server, side: str) -> Verdict:
    async with server.client(f"/{side}/echo") as client:
        grown_mb = server.growth_mb()
        reading = asyncio.create_task(_outcome(client))
        one = b"\x00\x81\0\0\0\0x"
        client.send(TEXT, b"x", fin=False)
        for _ in range(FRAGMENTS // 1000):
            client.writer.write(one * 1000)
            if not await client.drain() or reading.done():
                break
        client.send(CONTINUATION)
        text = await reading
    figure = grown_mb()
    answered = text == "passed on" or text.startswith(("1008", "1009"))
    return Verdict(rank(good=answered and (figure or 0) < 30, partial=answered), text, figure)


async def many_pings(server: Server, side: str) -> Verdict:
    async with server.client(f"/{side}/echo") as client:
        for number in range(PINGS):
            client.send(PING, b"%d" % number)
        client.send(TEXT, b"x")
        await client.drain()
        answered = 0
        while (found := await client.message()) is not None and found[0] == PONG:
            answered += found[1] == b"%d" % answered
    good = answered == PINGS and found == (TEXT, b"x")
    # https://www.rfc-editor.org/rfc/rfc6455#section-5.5.3 lets a server answer only the latest of several pings.
    return Verdict(rank(good=good, partial=found == (TEXT, b"x")), "all answered" if good else f"{answered} answered")


ROWS = (
    Row("client never reads: send() blocks after, and the end is told", never_reads),
    Row("client answers no ping", no_pong, hasty=True),
    Row("client neither reads nor answers a ping", never_reads_nor_answers, hasty=True),
    Row("SIGTERM with a client that never reads", stopped_with_one_that_never_reads, alone=True),
    Row("message of 17 MiB", too_big),
    Row("65 kB that inflate to 64 MiB, growth", bomb, alone=True),
    Row("message in 200,000 fragments, growth", fragments, alone=True),
    Row("2,000 pings at once", many_pings),
)
