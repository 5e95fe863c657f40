"""The communicators under the name ``channels.testing``: a time-out cancels the application."""

from __future__ import annotations

import asyncio

import pytest

from antiphon.compat import testing
from antiphon.types import Receive, Scope, Send


async def silent(scope: Scope, receive: Receive, send: Send) -> None:
    await receive()
    await send({"type": "websocket.accept"})
    while True:
        await receive()


async def test_a_timeout_cancels_the_application_and_later_calls_say_so() -> None:
    communicator = testing.WebsocketCommunicator(silent, "/")
    assert await communicator.connect() == (True, None)
    with pytest.raises(asyncio.TimeoutError):
        await communicator.receive_from(timeout=0.01)
    assert communicator.future.cancelled()
    with pytest.raises(asyncio.CancelledError):
        await communicator.receive_from()
    with pytest.raises(asyncio.CancelledError):
        await communicator.receive_nothing()
    with pytest.raises(asyncio.CancelledError):
        await communicator.disconnect()
    with pytest.raises(asyncio.CancelledError):
        communicator.stop()


async def test_an_application_that_does_not_end_is_cancelled_without_a_word() -> None:
    communicator = testing.WebsocketCommunicator(silent, "/")
    await communicator.connect()
    await communicator.disconnect(timeout=0.01)
    assert communicator.future.cancelled()


async def test_what_the_application_raises_when_it_is_cancelled_is_raised() -> None:
    async def fails(scope: Scope, receive: Receive, send: Send) -> None:
        try:
            await receive()
        except asyncio.CancelledError:
            raise LookupError("while it was cancelled") from None

    with pytest.raises(LookupError):
        await testing.ApplicationCommunicator(fails, {"type": "test"}).receive_output(timeout=0.01)


async def test_a_request_times_out() -> None:
    communicator = testing.HttpCommunicator(silent, "GET", "/")
    with pytest.raises(AssertionError, match="Expected type"):
        await communicator.get_response()
    with pytest.raises(asyncio.TimeoutError):
        await communicator.receive_output(timeout=0.01)
    assert communicator.future.cancelled()


def test_a_communicator_that_never_started_stops_without_a_loop() -> None:
    testing.WebsocketCommunicator(silent, "/").stop()
