"""Real sockets: uvicorn in a thread, and a client written by others."""

from __future__ import annotations

import asyncio
import json
import socket
import struct
import threading
from typing import Any

import pytest
from websockets.asyncio.client import connect
from websockets.exceptions import ConnectionClosed, InvalidStatus

import antiphon
from antiphon.generic.http import AsyncHttpConsumer
from antiphon.generic.websocket import AsyncWebsocketConsumer, WebsocketConsumer
from antiphon.layers import get_channel_layer
from antiphon.testing import LiveServer
from tests.consumers.client import until


def slam(websocket: Any) -> None:
    """End a client's TCP connection by a reset, without a close frame."""
    raw = websocket.transport.get_extra_info("socket")
    raw.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
    websocket.transport.abort()


async def test_messages_of_a_group_reach_every_socket_from_a_handler_and_from_another_thread() -> None:
    class App(AsyncWebsocketConsumer):
        groups = ["all"]

        async def receive(self, text_data: str | None = None, bytes_data: bytes | None = None) -> None:
            await self.channel_layer.group_send("all", {"type": "note", "text": text_data})

        async def note(self, message: dict[str, Any]) -> None:
            await self.send(text_data=message["text"])

    with LiveServer(App.as_asgi(), "127.0.0.1") as server:
        async with connect(server.ws_url) as one, connect(server.ws_url) as two:
            await one.send("hello")
            assert [await one.recv(), await two.recv()] == ["hello", "hello"]
            await asyncio.to_thread(antiphon.group_send, "all", {"type": "note", "text": "from a thread"})
            assert [await one.recv(), await two.recv()] == ["from a thread", "from a thread"]
            # This test's loop is another loop than the server's.
            await get_channel_layer().group_send("all", {"type": "note", "text": "from a loop"})
            assert [await one.recv(), await two.recv()] == ["from a loop", "from a loop"]


@pytest.mark.parametrize("base", [AsyncWebsocketConsumer, WebsocketConsumer])
async def test_an_abrupt_loss_is_1006_and_a_proper_close_has_its_code(base: Any) -> None:
    codes: list[int] = []

    if base is AsyncWebsocketConsumer:

        class AsyncApp(AsyncWebsocketConsumer):
            async def disconnect(self, code: int) -> None:
                codes.append(code)

        app = AsyncApp.as_asgi()
    else:

        class SyncApp(WebsocketConsumer):
            def disconnect(self, code: int) -> None:
                codes.append(code)

        app = SyncApp.as_asgi()
    with LiveServer(app, "127.0.0.1") as server:
        websocket = await connect(server.ws_url)
        slam(websocket)
        await until(lambda: codes == [1006])
        websocket = await connect(server.ws_url)
        websocket.transport.abort()
        await until(lambda: codes == [1006, 1006])
        websocket = await connect(server.ws_url)
        await websocket.close(4000, "bye")
        await until(lambda: codes == [1006, 1006, 4000])


async def test_a_loss_is_seen_while_a_handler_runs_and_its_late_sends_are_quiet(
    caplog: pytest.LogCaptureFixture,
) -> None:
    gate, gone = threading.Event(), threading.Event()
    late: list[int] = []

    class App(AsyncWebsocketConsumer):
        groups = ["all"]

        async def receive(self, text_data: str | None = None, bytes_data: bytes | None = None) -> None:
            await until(gate.is_set)
            for _ in range(5):
                await self.send(text_data="too late")
            late.append(self._antiphon.outlet.late)

        async def disconnect(self, code: int) -> None:
            gone.set()

    layer = get_channel_layer()
    with LiveServer(App.as_asgi(), "127.0.0.1") as server:
        websocket = await connect(server.ws_url)
        await websocket.send("x")
        await until(lambda: layer.groups)
        slam(websocket)
        await until(lambda: layer.groups == {})
        assert not gone.is_set()
        gate.set()
        await until(gone.is_set)
    assert late == [5]
    assert [record for record in caplog.records if record.levelname in ("ERROR", "CRITICAL")] == []


async def test_sends_to_lost_sockets_in_a_busy_group_leave_no_traceback(caplog: pytest.LogCaptureFixture) -> None:
    class App(AsyncWebsocketConsumer):
        groups = ["all"]

        async def note(self, message: dict[str, Any]) -> None:
            await self.send(text_data="x" * 1000)

    layer = get_channel_layer()
    with LiveServer(App.as_asgi(), "127.0.0.1") as server:
        sockets = [await connect(server.ws_url) for _ in range(10)]
        for n in range(50):
            await layer.group_send("all", {"type": "note"})
            if n % 5 == 0:
                slam(sockets.pop())
            await asyncio.sleep(0.001)
        await until(lambda: layer.groups == {})
    assert [record for record in caplog.records if record.levelname in ("ERROR", "CRITICAL")] == []


async def test_close_codes_and_reasons_reach_the_client(caplog: pytest.LogCaptureFixture) -> None:
    class App(AsyncWebsocketConsumer):
        groups = ["all"]
        max_message_bytes = 100
        rate_limit = "10/m"

        async def receive(self, text_data: str | None = None, bytes_data: bytes | None = None) -> None:
            if text_data == "fail":
                raise LookupError
            if text_data == "channel":
                await self.send(text_data=self.channel_name)
            elif text_data:
                await self.close(4321, text_data)

    async def ending(websocket: Any) -> tuple[int, str]:
        with pytest.raises(ConnectionClosed):
            await websocket.recv()
        return websocket.close_code, websocket.close_reason

    with LiveServer(App.as_asgi(), "127.0.0.1") as server:
        websocket = await connect(server.ws_url)
        await websocket.send("enough")
        assert await ending(websocket) == (4321, "enough")
        websocket = await connect(server.ws_url)
        await websocket.send("fail")
        assert await ending(websocket) == (1011, "error")
        websocket = await connect(server.ws_url)
        await websocket.send("x" * 101)
        assert await ending(websocket) == (1009, "too_big")
        websocket = await connect(server.ws_url)
        for _ in range(11):
            await websocket.send("")
        assert await ending(websocket) == (1008, "rate_limit")
        websocket = await connect(server.ws_url)
        await websocket.send("channel")
        channel = str(await websocket.recv())
        assert await asyncio.to_thread(antiphon.close_channel, channel, "revoked") is True
        assert await ending(websocket) == (4403, "revoked")
        await until(lambda: get_channel_layer().groups == {})


async def test_a_denial_is_a_403_and_subprotocol_and_headers_reach_the_client() -> None:
    class App(AsyncWebsocketConsumer):
        async def connect(self) -> None:
            if self.scope["path"] == "/no":
                await self.close()
            else:
                await self.accept("b", headers=[(b"x-made-by", b"hand")])

    with LiveServer(App.as_asgi(), "127.0.0.1") as server:
        with pytest.raises(InvalidStatus) as info:
            await connect(server.ws_url + "/no")
        assert info.value.response.status_code == 403
        async with connect(server.ws_url, subprotocols=["a", "b"]) as websocket:  # type: ignore[list-item]
            assert websocket.subprotocol == "b"
            assert websocket.response is not None
            assert websocket.response.headers["x-made-by"] == "hand"


async def test_a_connection_with_a_stuck_handler_is_closed_at_once() -> None:
    release = threading.Event()
    names: list[str] = []

    class App(AsyncWebsocketConsumer):
        async def connect(self) -> None:
            names.append(self.channel_name)
            await self.accept()

        async def receive(self, text_data: str | None = None, bytes_data: bytes | None = None) -> None:
            await until(release.is_set)

    with LiveServer(App.as_asgi(), "127.0.0.1") as server:
        websocket = await connect(server.ws_url)
        await websocket.send("x")
        await asyncio.to_thread(antiphon.close_channel, names[0])
        with pytest.raises(ConnectionClosed):
            await websocket.recv()
        assert websocket.close_code == 4403
        release.set()


async def test_a_full_inbox_pushes_back_on_the_client() -> None:
    release = threading.Event()
    handled: list[int] = []

    class App(AsyncWebsocketConsumer):
        receive_limit = (4, 1 << 20)

        async def receive(self, text_data: str | None = None, bytes_data: bytes | None = None) -> None:
            await until(release.is_set)
            handled.append(len(bytes_data or b""))

    with LiveServer(App.as_asgi(), "127.0.0.1") as server:
        websocket = await connect(server.ws_url, compression=None)
        sent = 0

        async def flood() -> None:
            nonlocal sent
            for _ in range(400):
                await websocket.send(bytes(100_000))
                sent += 1

        task = asyncio.create_task(flood())
        before = -1
        while sent != before:
            before = sent
            await asyncio.sleep(0.3)
        assert sent < 400, "40 MB went into a consumer that handles nothing"
        release.set()
        await asyncio.wait_for(task, 30)
        await until(lambda: len(handled) == 400)
        await websocket.close()


async def test_a_stream_over_http_hears_of_the_layer_and_of_its_client_s_end() -> None:
    log: list[str] = []

    class App(AsyncHttpConsumer):
        async def handle(self, body: bytes) -> None:
            await self.join("events")
            await self.send_headers(headers=[(b"content-type", b"text/event-stream")])
            await self.send_body(b": begin\n\n", more_body=True)
            try:
                await asyncio.sleep(3600)
            finally:
                log.append("cancelled")

        async def event(self, message: dict[str, Any]) -> None:
            await self.send_body(b"data: " + json.dumps(message["data"]).encode() + b"\n\n", more_body=True)

        async def disconnect(self) -> None:
            log.append("disconnect")

    layer = get_channel_layer()
    with LiveServer(App.as_asgi(), "127.0.0.1") as server:
        reader, writer = await asyncio.open_connection("127.0.0.1", server.port)
        writer.write(b"GET / HTTP/1.1\r\nHost: localhost\r\n\r\n")
        await asyncio.wait_for(reader.readuntil(b": begin\n\n"), 30)
        await layer.group_send("events", {"type": "event", "data": [1, 2]})
        assert (await asyncio.wait_for(reader.readuntil(b"[1, 2]\n\n"), 30)).endswith(b"data: [1, 2]\n\n")
        writer.transport.abort()
        await until(lambda: log == ["cancelled", "disconnect"])
        assert layer.groups == {}


async def test_a_server_that_stops_closes_its_sockets_with_1012_and_disconnect_runs() -> None:
    codes: list[int] = []

    class App(AsyncWebsocketConsumer):
        groups = ["all"]

        async def disconnect(self, code: int) -> None:
            codes.append(code)

    server = LiveServer(App.as_asgi(), "127.0.0.1")
    server.start()
    websocket = await connect(server.ws_url)
    stopping = asyncio.create_task(asyncio.to_thread(server.stop))
    with pytest.raises(ConnectionClosed):
        await websocket.recv()
    await stopping
    assert websocket.close_code == 1012
    assert codes == [1012]
    assert get_channel_layer().groups == {}


async def test_a_client_that_stops_reading_is_closed_as_slow_and_does_not_hold_its_consumer(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr("antiphon.consumers.ending.CLOSE_WAIT_S", 0.3)
    codes: list[int] = []

    class App(AsyncWebsocketConsumer):
        groups = ["all"]
        capacity = 5
        overflow = "close"
        disconnect_grace_s = 0.2

        async def note(self, message: dict[str, Any]) -> None:
            await self.send(bytes_data=message["data"])

        async def disconnect(self, code: int) -> None:
            codes.append(code)

    layer = get_channel_layer()
    with LiveServer(App.as_asgi(), "127.0.0.1") as server:
        stuck = await connect(server.ws_url, max_queue=1, compression=None)
        reads = await connect(server.ws_url, compression=None)
        for n in range(300):
            await layer.group_send("all", {"type": "note", "data": bytes(200_000)})
            assert len(await asyncio.wait_for(reads.recv(), 30)) == 200_000, n
            if codes:
                break
        await until(lambda: codes)
        assert codes == [1013]
        assert await layer.group_count("all") == 1, "the one who reads stays"
        assert layer.stats()["drops"]["slow"] == 1
        stuck.transport.abort()
        await reads.close()
