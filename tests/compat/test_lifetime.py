"""A consumer class made for a while goes with its maker, as in Channels: signal receivers may hang on it."""

from __future__ import annotations

import asyncio
import gc
import weakref
from typing import Any

import pytest

from antiphon.generic.websocket import AsyncWebsocketConsumer, WebsocketConsumer
from antiphon.layers import get_channel_layer
from antiphon.testing import WebsocketCommunicator


async def served(base: Any) -> weakref.ref[Any]:
    """Make a consumer class, serve one connection with it, and return a weak reference to it."""

    async def answer(self: Any, event: dict[str, Any]) -> None:
        await self.send(text_data="heard")

    def answer_from_thread(self: Any, event: dict[str, Any]) -> None:
        self.send(text_data="heard")

    handler = answer if base is AsyncWebsocketConsumer else answer_from_thread
    brief: Any = type("Brief", (base,), {"groups": ("brief",), "chat_message": handler})
    communicator = WebsocketCommunicator(brief.as_asgi(), "/")
    assert (await communicator.connect())[0]
    await get_channel_layer().group_send("brief", {"type": "chat.message"})
    assert await communicator.receive_from() == "heard"
    await communicator.disconnect()
    return weakref.ref(brief)


@pytest.mark.parametrize("base", [AsyncWebsocketConsumer, WebsocketConsumer])
async def test_a_class_that_its_maker_dropped_is_freed(base: Any) -> None:
    brief = await served(base)
    for _ in range(50):  # the thread of a synchronous handler lets go of it a moment after the handler
        gc.collect()
        if brief() is None:
            return
        await asyncio.sleep(0.02)
    raise AssertionError(f"held by {gc.get_referrers(brief())}")
