"""What leaves for a socket: together at the turn's end, in order, and never more than the limit."""

from __future__ import annotations

import asyncio
import os
from typing import Any

import pytest

from antiphon.wire.frames import BINARY, TEXT, frame
from antiphon.wire.prebuilt import EXTENSION, FrameSocket, Prebuilt
from tests.server.uvicorns import serving
from tests.waiting import until


class Open:
    """An application that accepts and keeps the sockets of its connections."""

    def __init__(self) -> None:
        self.sockets: list[FrameSocket] = []
        self.sends: list[Any] = []
        self.seen: list[Any] = []

    async def __call__(self, scope: Any, receive: Any, send: Any) -> None:
        await receive()
        await send({"type": "websocket.accept"})
        self.sockets.append(scope["extensions"][EXTENSION])
        self.sends.append(send)
        while True:
            event = await receive()
            self.seen.append(event)
            if event["type"] == "websocket.disconnect":
                return


async def fill(socket: FrameSocket) -> None:
    """Send until no more is taken."""
    while socket.write(Prebuilt(b"x" * 1000)):  # noqa: ASYNC110  # the turns are what is written in
        await asyncio.sleep(0)


async def test_one_frame_goes_to_many_sockets_as_it_is() -> None:
    app = Open()
    async with serving(app) as server:
        clients = [await server.client() for _ in range(3)]
        await until(lambda: len(app.sockets) == 3)
        message = Prebuilt("häppy")
        assert [socket.write(message) for socket in app.sockets] == [True] * 3
        for client in clients:
            assert await client.frame() == (0x80 | TEXT, "häppy".encode())


async def test_messages_of_one_turn_leave_in_one_write_in_order(monkeypatch: pytest.MonkeyPatch) -> None:
    app = Open()
    async with serving(app) as server, await server.client() as client:
        await until(lambda: app.sockets)
        writes: list[bytes] = []
        real = os.write

        def counted(fd: int, data: Any) -> int:
            if fd == server.protocols[0]._fd:
                writes.append(bytes(data))
            return real(fd, data)

        monkeypatch.setattr(os, "write", counted)
        for number in range(10):
            app.sockets[0].write(Prebuilt(str(number)))
        await app.sends[0]({"type": "websocket.send", "bytes": b"last"})
        assert [(await client.frame())[1] for _ in range(11)] == [*(b"%d" % n for n in range(10)), b"last"]
        assert writes == [b"".join([*(frame(TEXT, b"%d" % n) for n in range(10)), frame(BINARY, b"last")])]


async def test_much_in_one_turn_is_not_kept_until_its_end() -> None:
    app = Open()
    async with serving(app) as server, await server.client() as client:
        await until(lambda: app.sockets)
        (protocol,) = server.protocols
        message = Prebuilt(b"x" * 1000)
        for _ in range(300):
            app.sockets[0].write(message)
        held = protocol._out or []
        assert len(held) < 100
        for _ in range(300):
            assert (await client.frame())[1] == b"x" * 1000


async def test_a_reader_that_stops_is_owed_no_more_than_the_limit_and_gets_all_that_was_taken() -> None:
    app = Open()
    async with serving(app, options={"send_buffer_limit": 10_000}) as server:
        client = await server.client(receive_buffer=4096)
        await until(lambda: app.sockets)
        (socket,), (protocol,) = app.sockets, server.protocols
        taken = 0
        while socket.write(Prebuilt(f"{taken:08}" * 100)):
            taken += 1
            await asyncio.sleep(0)
        assert protocol.transport.get_write_buffer_size() <= 10_000 + 804 + 65_536
        drained = asyncio.ensure_future(socket.drained())
        waiting = asyncio.create_task(app.sends[0]({"type": "websocket.send", "text": "after"}))
        await asyncio.sleep(0.01)
        assert not drained.done()
        assert not waiting.done()
        for number in range(taken):
            assert await client.frame() == (0x80 | TEXT, f"{number:08}".encode() * 100)
        await asyncio.wait_for(drained, 30)
        await asyncio.wait_for(waiting, 30)
        assert (await client.frame())[1] == b"after"


async def test_a_limit_of_its_own_holds_for_one_socket() -> None:
    app = Open()
    async with serving(app) as server:
        await server.client(receive_buffer=4096)
        await until(lambda: app.sockets)
        app.sockets[0].limit(1)
        await fill(app.sockets[0])
        assert server.protocols[0]._paused


async def test_after_the_end_messages_go_nowhere_and_send_says_so() -> None:
    app = Open()
    async with serving(app) as server:
        client = await server.client()
        await until(lambda: app.sockets)
        client.writer.transport.abort()
        await until(lambda: app.seen)
        assert app.seen == [{"type": "websocket.disconnect", "code": 1006, "reason": ""}]
        assert app.sockets[0].write(Prebuilt("late"))
        with pytest.raises(OSError):
            await app.sends[0]({"type": "websocket.send", "text": "late"})


async def test_one_who_waits_for_a_slow_reader_is_freed_when_it_goes() -> None:
    app = Open()
    async with serving(app, options={"send_buffer_limit": 1000}) as server:
        client = await server.client(receive_buffer=4096)
        await until(lambda: app.sockets)
        await fill(app.sockets[0])
        waiting = asyncio.create_task(app.sends[0]({"type": "websocket.send", "text": "never"}))
        await asyncio.sleep(0)
        client.writer.transport.abort()
        with pytest.raises(OSError):
            await asyncio.wait_for(waiting, 30)


async def test_a_reader_that_never_reads_is_cut_off_at_its_deadline() -> None:
    app = Open()
    async with serving(app, options={"send_buffer_limit": 1000, "send_timeout_s": 0.05}) as server:
        await server.client(receive_buffer=4096)
        await until(lambda: app.sockets)
        await fill(app.sockets[0])
        await until(lambda: app.seen)
        assert app.seen[0]["code"] == 1006
        await until(lambda: not server.protocols)
