"""One message by every way that leads to a client: encrypted, compressed, plain, and none after the end."""

from __future__ import annotations

import asyncio
import datetime as dt
import ipaddress
import ssl
from pathlib import Path
from typing import Any

import pytest
from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.x509.oid import NameOID
from websockets.asyncio.client import connect

from antiphon import get_channel_layer, relay
from antiphon.generic.websocket import AsyncWebsocketConsumer
from antiphon.wire.deflate import compress
from antiphon.wire.frames import CLOSE, TEXT
from antiphon.wire.prebuilt import EXTENSION, FrameSocket, Prebuilt
from tests.consumers.client import members
from tests.server.uvicorns import masked, serving
from tests.waiting import until

TEXT_OF_ALL = "the same for everybody " * 20


class Room(AsyncWebsocketConsumer):
    groups = ["room"]

    @relay
    def said(message: Any) -> str:
        return str(message["text"])

    async def spoken(self, message: Any) -> None:
        await self.send(text_data=message["text"])


async def say(kind: str, text: str) -> None:
    await get_channel_layer().group_send("room", {"type": kind, "text": text})


@pytest.fixture(scope="session")
def certificate(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, Path]:
    """A certificate for 127.0.0.1, signed by itself, and its key."""
    folder = tmp_path_factory.mktemp("tls")
    key, now = ec.generate_private_key(ec.SECP256R1()), dt.datetime.now(dt.UTC)
    name = x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, "127.0.0.1")])
    made = (
        x509.CertificateBuilder()
        .subject_name(name)
        .issuer_name(name)
        .public_key(key.public_key())
        .serial_number(1)
        .not_valid_before(now - dt.timedelta(days=1))
        .not_valid_after(now + dt.timedelta(days=1))
        .add_extension(x509.SubjectAlternativeName([x509.IPAddress(ipaddress.ip_address("127.0.0.1"))]), critical=False)
        .sign(key, hashes.SHA256())
    )
    (folder / "cert.pem").write_bytes(made.public_bytes(serialization.Encoding.PEM))
    (folder / "key.pem").write_bytes(
        key.private_bytes(serialization.Encoding.PEM, serialization.PrivateFormat.PKCS8, serialization.NoEncryption())
    )
    return folder / "cert.pem", folder / "key.pem"


async def test_relays_and_handlers_reach_clients_over_tls_in_order(certificate: tuple[Path, Path]) -> None:
    cert, key = certificate
    trusting = ssl.create_default_context(cafile=cert)
    async with (
        serving(Room.as_asgi(), ssl_certfile=cert, ssl_keyfile=key) as server,
        connect(f"wss://127.0.0.1:{server.port}", ssl=trusting) as one,
        connect(f"wss://127.0.0.1:{server.port}", ssl=trusting, max_size=None) as two,
    ):
        await until(lambda: members("room") == 2)
        large = "x" * 300_000  # more than the limit of what may wait, and than the kernel takes at once
        expected = []
        for number in range(20):
            for kind, text in (("said", f"relayed {number}"), ("spoken", f"handled {number} {large}")):
                await say(kind, text)
                expected.append(text)

        async def read(client: Any) -> list[str]:
            return [await client.recv() for _ in expected]

        got = await asyncio.wait_for(asyncio.gather(read(one), read(two)), 60)
        assert list(got) == [expected, expected]


async def test_a_relayed_message_is_compressed_once_for_all_who_want_it_so(monkeypatch: pytest.MonkeyPatch) -> None:
    compressed = []

    def counted(payload: bytes, setting: Any) -> bytes:
        compressed.append(payload)
        return compress(payload, setting)

    monkeypatch.setattr("antiphon.wire.prebuilt.compress", counted)
    async with serving(Room.as_asgi(), options={"deflate": True}) as server:
        plain = await server.client()
        async with (
            connect(f"ws://127.0.0.1:{server.port}") as one,
            connect(f"ws://127.0.0.1:{server.port}") as two,
        ):
            assert [each.__class__.__name__ for each in one.protocol.extensions] == ["PerMessageDeflate"]
            await until(lambda: members("room") == 3)
            await say("said", TEXT_OF_ALL)
            assert [await one.recv(), await two.recv()] == [TEXT_OF_ALL] * 2
            assert await plain.frame() == (0x80 | TEXT, TEXT_OF_ALL.encode())
            await say("spoken", TEXT_OF_ALL + "!")
            assert [await one.recv(), await two.recv()] == [TEXT_OF_ALL + "!"] * 2
            assert compressed == [TEXT_OF_ALL.encode(), (TEXT_OF_ALL + "!").encode()]


async def test_nothing_follows_the_close_frame_however_many_are_written_to() -> None:
    sockets: list[FrameSocket] = []
    ends = asyncio.Event()

    async def app(scope: Any, receive: Any, send: Any) -> None:
        await receive()
        await send({"type": "websocket.accept"})
        sockets.append(scope["extensions"][EXTENSION])
        await ends.wait()  # it does not learn of its client's end

    async with serving(app) as server:
        leaving, staying = await server.client(), await server.client()
        await until(lambda: len(sockets) == 2)
        first = next(each for each in server.protocols if each.transport.get_extra_info("peername")
                     == leaving.writer.get_extra_info("sockname"))  # fmt: skip
        first.data_received(masked(CLOSE, b"\x03\xe8"))
        for text in ("one", "two"):
            sockets[0].write_all(Prebuilt(text), sockets)
            await asyncio.sleep(0)
        assert await leaving.frame() == (0x80 | CLOSE, b"\x03\xe8")
        assert await leaving.ended() == b""
        assert [await staying.frame() for _ in range(2)] == [(0x81, b"one"), (0x81, b"two")]
        ends.set()
