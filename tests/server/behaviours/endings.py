"""Probes of how a connection begins and ends, and of who hears of it."""

from __future__ import annotations

import asyncio
import contextlib
import signal
import time

from .client import CLOSE, TEXT, Client
from .running import Server
from .verdict import Row, Verdict, rank

__all__ = ["ROWS"]


async def _greeted(client: Client) -> bool:
    """Say whether the application is at work: it sends back what it is sent."""
    client.send(TEXT, b"hello")
    return await client.message() == (TEXT, b"hello")


def _code(seen: dict[str, object]) -> str:
    return str(seen["disconnect"]) if "disconnect" in seen else "not told"


async def scope(server: Server, side: str) -> Verdict:
    who = server.name()
    async with server.client(f"/{side}/echo", who):
        await server.told(who, "server")
    told = server.seen(who)["server"]
    version, state = told["spec_version"], told["state"]
    text = f"{version or 'none'}, {'with' if state else 'without'} state"
    # From 2.4 on, send() after the end raises: without, an application cannot tell that nobody listens.
    return Verdict(rank(good=(version or "") >= "2.4" and state, partial=bool(version)), text)


async def denial(server: Server, side: str) -> Verdict:
    async with server.client(f"/{side}/deny") as client:
        if side == "consumer":
            return Verdict(rank(good=client.status == 403, partial=client.status >= 400), str(client.status))
        body = b""
        if client.status == 401:
            with contextlib.suppress(OSError, asyncio.IncompleteReadError):
                async with asyncio.timeout(server.patience_s):
                    body = await client.reader.readexactly(7)
        whole = body == b"not you" and b"x-why: asked" in client.head.lower()
        text = f"{client.status}{' with header and body' if whole else ''}"
        return Verdict(rank(good=whole, partial=400 <= client.status < 500), text)


async def client_closes(server: Server, side: str) -> Verdict:
    who = server.name()
    async with server.client(f"/{side}/echo", who) as client:
        await _greeted(client)
        client.send(CLOSE, (4999).to_bytes(2, "big") + b"bye")
        await server.told(who, "disconnect")
    seen = server.seen(who)
    whole, code = seen.get("reason") == "bye", seen.get("disconnect")
    return Verdict(rank(good=code == 4999 and whole, partial=code == 4999), f"{_code(seen)}{' bye' if whole else ''}")


async def server_closes(server: Server, side: str) -> Verdict:
    async with server.client(f"/{side}/close") as client:
        text = await client.ending()
    return Verdict(rank(good=text == "4001 bye", partial=text == "4001"), text)


async def client_lost(server: Server, side: str) -> Verdict:
    codes = []
    for reset in (True, False):
        who = server.name()
        async with server.client(f"/{side}/echo", who) as client:
            await _greeted(client)
            if reset:
                client.reset()
            else:
                await client.close()
            await server.told(who, "disconnect")
        codes.append(_code(server.seen(who)))
    text = codes[0] if codes[0] == codes[1] else " / ".join(codes)
    return Verdict(rank(good=codes == ["1006", "1006"], partial="not told" not in codes), text)


async def application_raises(server: Server, side: str) -> Verdict:
    async with server.client(f"/{side}/raise") as client:
        client.send(TEXT, b"go")
        text = await client.ending()
    return Verdict(rank(good=text.startswith("1011"), partial=text != "open"), text)


async def application_returns(server: Server, side: str) -> Verdict:
    async with server.client(f"/{side}/return") as client:
        client.send(TEXT, b"go")
        text = await client.ending()
    return Verdict(rank(good=text.startswith(("1000", "1011")), partial=text != "open"), text)


async def sent_late(server: Server, side: str) -> Verdict:
    who = server.name()
    async with server.client(f"/{side}/late", who) as client:
        client.reset()
        await server.told(who, "late")
    late = server.seen(who).get("late", "blocks")
    if side == "consumer":
        return Verdict(rank(good=late == ""), late or "dropped")
    return Verdict(rank(good=late == "OSError", partial=late == ""), late or "nothing")


async def split_head(server: Server, side: str) -> Verdict:
    async with server.client(f"/{side}/split") as client:
        split = b"\nx-injected:" in client.head.lower()
    text = "split" if split else "taken out" if client.status == 101 else f"refused: {client.answered}"
    return Verdict(rank(good=not split and client.answered != "open", partial=not split), text)


async def never_accepted(server: Server, side: str) -> Verdict:
    who = server.name()
    async with server.client(f"/{side}/never", who) as client:
        text = client.answered
        # A consumer is told at the end of its grace, which is longer than a probe waits.
        told = text != "open" and side == "raw" and await server.told(who, "disconnect")
    if text != "open" and side == "raw":
        text += f", application told {_code(server.seen(who))}" if told else ", application not told"
    return Verdict(rank(good=text.startswith("503"), partial=text != "open"), text)


async def stopped(server: Server, side: str) -> Verdict:
    names = [server.name() for _ in range(3)]
    async with contextlib.AsyncExitStack() as stack:
        clients = [await stack.enter_async_context(server.client(f"/{side}/echo", who)) for who in names]
        for client in clients:
            await _greeted(client)
        began_s = time.monotonic()
        server.process.send_signal(signal.SIGTERM)
        endings = sorted({await client.ending() for client in clients})
        for client in clients:
            await client.close()
        exited = await server.exited()
        took_s = time.monotonic() - began_s
    seen = [server.seen(who) for who in names]
    told = all("disconnect" in one for one in seen)
    clean = all(one.get("cleaned") is True for one in seen)
    words = [" / ".join(endings), "told" if told else "not told", "clean-up finished" if clean else "clean-up cut"]
    good = all(ending.startswith("1012") for ending in endings) and told and clean and exited
    text = ", ".join(words) if exited else "hangs"
    return Verdict(rank(good=good, partial=exited and (told or clean)), text, round(took_s, 1), "s")


async def empty_message(server: Server, side: str) -> Verdict:
    async with server.client(f"/{side}/echo") as client:
        client.send(TEXT, b"")
        client.send(TEXT, b"x")
        came = await client.message() == (TEXT, b"")
    return Verdict(rank(good=came), "sent" if came else "lost")


ROWS = (
    Row("`spec_version` and lifespan state in the scope", scope),
    Row("connection denied by the application", denial),
    Row("client closes with 4999 `bye`: the application sees", client_closes),
    Row("application closes with 4001 `bye`: the client sees", server_closes),
    Row("client lost, by reset and without a close frame: the application sees", client_lost),
    Row("application raises: the client sees", application_raises),
    Row("application returns: the client sees", application_returns),
    Row("application sends after the client has gone", sent_late),
    Row("empty message of the application", empty_message),
    Row("line break in a header of the acceptance", split_head),
    Row("application never accepts", never_accepted, hasty=True),
    Row("SIGTERM with three open sockets", stopped, alone=True),
)
