"""Who may stay no longer: sessions checked again at intervals, connections closed by channel, user and session."""

from __future__ import annotations

import asyncio
from typing import Any

import pytest

from antiphon import framework
from antiphon.generic.websocket import AsyncWebsocketConsumer
from antiphon.layers import get_channel_layer
from tests.consumers.client import Client, Echo, until, user


class Checked(framework.Framework):
    """Answers each revalidation with the next of ``verdicts``, then with None."""

    def __init__(self, *verdicts: Any, **options: Any) -> None:
        super().__init__(**options)
        self.verdicts = list(verdicts)
        self.asked = 0

    async def revalidate(self, scope: Any) -> str | None:
        self.asked += 1
        await asyncio.sleep(0)
        verdict = self.verdicts.pop(0) if self.verdicts else None
        if isinstance(verdict, Exception):
            raise verdict
        return str(verdict) if verdict else None


@pytest.mark.parametrize(("reason", "code"), [("revoked", 4403), ("unauthenticated", 4401)])
async def test_a_session_that_is_no_longer_valid_closes_the_connection(reason: str, code: int) -> None:
    checked = Checked(None, None, reason)
    framework.install(checked)

    class App(Echo):
        revalidate_interval_s = 0.02

    async with Client(App.as_asgi()) as client:
        await client.connect()
        assert await client.closed() == (code, reason)
        await client.ended()
    assert checked.asked == 3


async def test_a_check_that_fails_is_logged_and_closes_nothing(caplog: pytest.LogCaptureFixture) -> None:
    checked = Checked(LookupError("no database"), None)
    framework.install(checked)

    class App(Echo):
        revalidate_interval_s = 0.02

    async with Client(App.as_asgi()) as client:
        await client.connect()
        await until(lambda: checked.asked >= 3)
        client.text("still here")
        assert await client.next_text() == "still here"
    assert len(caplog.records) == 1
    assert "Could not check session and user of a" in caplog.text


async def test_a_client_that_never_pauses_cannot_outrun_the_check() -> None:
    framework.install(Checked("revoked"))

    class App(AsyncWebsocketConsumer):
        revalidate_interval_s = 0.05

        async def receive(self, text_data: str | None = None, bytes_data: bytes | None = None) -> None:
            client.text("x")  # there is always a next one
            await asyncio.sleep(0.001)

    async with Client(App.as_asgi()) as client:
        await client.connect()
        client.text(*"x" * 5)
        assert await client.closed() == (4403, "revoked")


async def test_without_an_interval_nothing_is_checked() -> None:
    checked = Checked("revoked")
    framework.install(checked)
    async with Client(Echo.as_asgi()) as client:
        await client.connect()
        await asyncio.sleep(0.05)
    assert checked.asked == 0


async def test_close_channel_closes_at_once_although_a_handler_is_stuck() -> None:
    gate = asyncio.Event()
    log: list[str] = []

    class App(AsyncWebsocketConsumer):
        async def receive(self, text_data: str | None = None, bytes_data: bytes | None = None) -> None:
            log.append(f"begun {text_data}")
            await gate.wait()
            await self.send(text_data="too late")
            log.append("finished")

        async def disconnect(self, code: int) -> None:
            log.append(f"disconnect {code}")

    layer = get_channel_layer()
    async with Client(App.as_asgi()) as client:
        await client.connect()
        client.text("1", "2")
        await until(lambda: client.taken == 3)
        (channel,) = layer.channels
        assert await layer.close_channel(channel, "restart") is True
        assert await client.closed() == (1012, "restart")
        assert not client.task.done()
        gate.set()
        await client.ended()
    assert log == ["begun 1", "finished", "begun 2", "finished", "disconnect 1012"]
    assert client.texts == []
    assert await layer.close_channel(channel) is False


async def test_what_a_client_sent_before_it_was_revoked_is_not_handled_afterwards() -> None:
    gate = asyncio.Event()
    log: list[str | None] = []

    class App(AsyncWebsocketConsumer):
        async def receive(self, text_data: str | None = None, bytes_data: bytes | None = None) -> None:
            log.append(text_data)
            await gate.wait()

    layer = get_channel_layer()
    async with Client(App.as_asgi()) as client:
        await client.connect()
        client.text("1", "2", "3")
        await until(lambda: client.taken == 4)
        (channel,) = layer.channels
        await layer.close_channel(channel)
        assert await client.closed() == (4403, "revoked")
        gate.set()
        await client.ended()
    assert log == ["1"]


async def test_close_channel_before_accept_denies_and_a_later_accept_is_dropped() -> None:
    gate = asyncio.Event()

    class App(AsyncWebsocketConsumer):
        async def connect(self) -> None:
            await gate.wait()
            await self.accept()

    layer = get_channel_layer()
    async with Client(App.as_asgi()) as client:
        client.put({"type": "websocket.connect"})
        await until(lambda: client.taken == 1)
        (channel,) = layer.channels
        await layer.close_channel(channel)
        assert await client.closed() == (4403, "revoked")
        gate.set()
        await client.ended()
    assert len(client.events) == 1


async def test_a_server_that_never_reports_the_end_is_not_waited_for(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("antiphon.consumers.ending.CLOSE_WAIT_S", 0.05)
    codes: list[int] = []

    class App(AsyncWebsocketConsumer):
        async def disconnect(self, code: int) -> None:
            codes.append(code)

    layer = get_channel_layer()
    client = Client(App.as_asgi(), reports_close=False)
    async with client:
        await client.connect()
        (channel,) = layer.channels
        await layer.close_channel(channel)
        await client.ended()
    assert codes == [4403]
    assert not layer.channels


async def test_close_user_and_close_session_close_the_right_connections() -> None:
    class Sessions(framework.Framework):
        def identity(self, scope: Any) -> tuple[str | None, str | None]:
            return super().identity(scope)[0], scope.get("session")

    framework.install(Sessions())
    layer = get_channel_layer()
    scopes = [{"user": user(1), "session": "a"}, {"user": user(1), "session": "b"}, {"user": user(2), "session": "c"}]
    clients = [Client(Echo.as_asgi(), scope) for scope in scopes]
    for client in clients:
        client.start()
        await client.connect()
    assert await layer.close_session("a") == 1
    assert await clients[0].closed() == (4401, "unauthenticated")
    await clients[0].ended()
    assert await layer.close_user(user(1)) == 1
    assert await clients[1].closed() == (4403, "revoked")
    clients[2].text("x")
    assert await clients[2].next_text() == "x"
    clients[2].vanish()
    await clients[2].ended()
    assert await layer.close_user(1) == 0
