from __future__ import annotations

import asyncio
import logging
import threading
from typing import Any

import pytest

from antiphon.generic.websocket import AsyncWebsocketConsumer, WebsocketConsumer
from antiphon.layers import get_channel_layer
from tests.consumers.client import Client, left, until


async def test_an_error_is_one_log_record_with_consumer_and_handler_and_the_close_is_1011(
    caplog: pytest.LogCaptureFixture,
) -> None:
    codes: list[int] = []

    class App(AsyncWebsocketConsumer):
        async def receive(self, text_data: str | None = None, bytes_data: bytes | None = None) -> None:
            raise LookupError("nothing here")

        async def disconnect(self, code: int) -> None:
            codes.append(code)

    async with Client(App.as_asgi()) as client:
        await client.connect()
        client.text("x")
        assert await client.closed() == (1011, "error")
        await client.ended()
    (record,) = caplog.records
    assert (record.name, record.levelno) == ("antiphon.consumer", logging.ERROR)
    assert record.__dict__["consumer"] == App.__qualname__
    assert record.__dict__["handler"] == "websocket.receive"
    assert record.getMessage() == f"{App.__qualname__}.websocket_receive raised LookupError('nothing here')"
    assert record.exc_info is not None
    assert codes == [1011]


async def test_an_error_in_a_layer_handler_names_that_handler(caplog: pytest.LogCaptureFixture) -> None:
    class App(AsyncWebsocketConsumer):
        groups = ["all"]

        async def chat_message(self, message: dict[str, Any]) -> None:
            raise LookupError(message["text"])

    async with Client(App.as_asgi()) as client:
        await client.connect()
        await get_channel_layer().group_send("all", {"type": "chat.message", "text": "oh"})
        assert await client.closed() == (1011, "error")
    (record,) = caplog.records
    assert record.__dict__["handler"] == "chat_message"


async def test_an_error_in_one_connection_leaves_the_others_alone(caplog: pytest.LogCaptureFixture) -> None:
    class App(AsyncWebsocketConsumer):
        groups = ["all"]

        async def chat_message(self, message: dict[str, Any]) -> None:
            if self.scope["path"] == "/bad":
                raise LookupError
            await self.send(text_data=message["text"])

    async with Client(App.as_asgi(), {"path": "/bad"}) as bad, Client(App.as_asgi()) as good:
        await bad.connect()
        await good.connect()
        await get_channel_layer().group_send("all", {"type": "chat.message", "text": "1"})
        assert await bad.closed() == (1011, "error")
        assert await good.next_text() == "1"


async def test_an_error_in_connect_denies_the_connection(caplog: pytest.LogCaptureFixture) -> None:
    class App(AsyncWebsocketConsumer):
        async def connect(self) -> None:
            raise LookupError

    async with Client(App.as_asgi()) as client:
        assert (await client.connect())["type"] == "websocket.close"
        await client.ended()
    assert len(caplog.records) == 1


async def test_an_error_in_disconnect_is_logged_and_the_application_ends_cleanly(
    caplog: pytest.LogCaptureFixture,
) -> None:
    class App(AsyncWebsocketConsumer):
        async def disconnect(self, code: int) -> None:
            raise LookupError("late")

    await left(App.as_asgi())
    assert [record.__dict__["handler"] for record in caplog.records] == ["websocket.disconnect"]


async def test_on_error_may_keep_the_connection_open(caplog: pytest.LogCaptureFixture) -> None:
    seen: list[Any] = []

    class App(AsyncWebsocketConsumer):
        async def receive(self, text_data: str | None = None, bytes_data: bytes | None = None) -> None:
            if text_data == "bad":
                raise LookupError("x")
            await self.send(text_data="fine")

        def on_error(self, exc: Exception, handler: str) -> bool:
            seen.append((repr(exc), handler))
            return True

    async with Client(App.as_asgi()) as client:
        await client.connect()
        client.text("bad", "good")
        assert await client.next_text() == "fine"
    assert seen == [("LookupError('x')", "websocket.receive")]
    assert caplog.records == []


async def test_on_error_may_be_async_and_answer_the_client() -> None:
    class App(AsyncWebsocketConsumer):
        async def receive(self, text_data: str | None = None, bytes_data: bytes | None = None) -> None:
            raise LookupError("x")

        async def on_error(self, exc: Exception, handler: str) -> None:
            await asyncio.sleep(0)
            await self.send(text_data="sorry")

    async with Client(App.as_asgi()) as client:
        await client.connect()
        client.text("x")
        assert await client.next_text() == "sorry"
        assert await client.closed() == (1011, "error")


@pytest.mark.parametrize("asynchronous", [True, False])
async def test_an_on_error_that_raises_is_logged_and_the_connection_is_closed(
    asynchronous: bool, caplog: pytest.LogCaptureFixture
) -> None:
    class App(AsyncWebsocketConsumer):
        async def receive(self, text_data: str | None = None, bytes_data: bytes | None = None) -> None:
            raise LookupError("first")

        def on_error(self, exc: Exception, handler: str) -> Any:
            if asynchronous:
                return self.fail_later()
            raise ArithmeticError("second")

        async def fail_later(self) -> None:
            raise ArithmeticError("second")

    async with Client(App.as_asgi()) as client:
        await client.connect()
        client.text("x")
        assert await client.closed() == (1011, "error")
    (record,) = caplog.records
    assert "on_error() raised" in record.getMessage()
    assert record.exc_info is not None
    assert isinstance(record.exc_info[1], ArithmeticError)


async def test_an_on_error_that_hangs_is_cancelled_after_the_grace_and_disconnect_runs() -> None:
    log: list[str] = []

    class App(AsyncWebsocketConsumer):
        disconnect_grace_s = 0.05

        async def receive(self, text_data: str | None = None, bytes_data: bytes | None = None) -> None:
            raise LookupError

        async def on_error(self, exc: Exception, handler: str) -> None:
            await asyncio.sleep(3600)

        async def disconnect(self, code: int) -> None:
            log.append("disconnect")

    await left(App.as_asgi(), "x")
    assert log == ["disconnect"]


async def test_the_on_error_of_a_sync_consumer_runs_as_its_handlers_do_and_may_send() -> None:
    threads: list[str] = []

    class App(WebsocketConsumer):
        def receive(self, text_data: str | None = None, bytes_data: bytes | None = None) -> None:
            raise LookupError("x")

        def on_error(self, exc: Exception, handler: str) -> bool:
            threads.append(threading.current_thread().name)
            self.send(text_data=f"{handler}: {exc}")
            return True

    async with Client(App.as_asgi()) as client:
        await client.connect()
        client.text("x")
        assert await client.next_text() == "websocket.receive: x"
    assert threads[0].startswith("antiphon-sync")


async def test_the_frames_that_wait_behind_an_error_are_not_handled(caplog: pytest.LogCaptureFixture) -> None:
    class App(AsyncWebsocketConsumer):
        async def receive(self, text_data: str | None = None, bytes_data: bytes | None = None) -> None:
            await asyncio.sleep(0.01)
            raise LookupError(text_data)

    async with Client(App.as_asgi()) as client:
        await client.connect()
        client.text("1", "2", "3")
        assert await client.closed() == (1011, "error")
        await client.ended()
    assert [str(record.args) for record in caplog.records if "LookupError('1')" in str(record.args)]
    assert len(caplog.records) == 1


async def test_a_base_exception_ends_the_application_and_is_raised() -> None:
    class Panic(BaseException):
        pass

    class App(AsyncWebsocketConsumer):
        groups = ["all"]

        async def receive(self, text_data: str | None = None, bytes_data: bytes | None = None) -> None:
            raise Panic

    client = Client(App.as_asgi())
    client.start()
    await client.connect()
    client.text("x")
    with pytest.raises(Panic):
        await client.ended()
    assert get_channel_layer().groups == {}


async def test_a_server_that_cannot_send_for_another_reason_is_an_error_of_the_handler(
    caplog: pytest.LogCaptureFixture,
) -> None:
    class App(AsyncWebsocketConsumer):
        async def receive(self, text_data: str | None = None, bytes_data: bytes | None = None) -> None:
            await self.base_send({"type": "nonsense"})

    class Picky(Client):
        async def _send(self, event: dict[str, Any]) -> None:
            if event["type"] == "nonsense":
                raise RuntimeError("Unexpected ASGI message")
            await super()._send(event)

    async with Picky(App.as_asgi()) as client:
        await client.connect()
        client.text("x")
        assert await client.closed() == (1011, "error")
    assert "Unexpected ASGI message" in caplog.text


async def test_a_plain_function_as_async_handler_says_what_is_wrong(caplog: pytest.LogCaptureFixture) -> None:
    class App(AsyncWebsocketConsumer):
        groups = ["all"]

        def chat_message(self, message: dict[str, Any]) -> None:
            pass

    async with Client(App.as_asgi()) as client:
        await client.connect()
        await get_channel_layer().group_send("all", {"type": "chat.message"})
        assert await client.closed() == (1011, "error")
    await until(lambda: caplog.records)
    assert "chat_message" in caplog.text
