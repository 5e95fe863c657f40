"""Whose connection it is: after a log-in inside it, and when it was closed before it began."""

from __future__ import annotations

import time
from typing import Any

import pytest
from django.contrib.auth.models import AnonymousUser, User
from django.contrib.sessions.backends.db import SessionStore

from antiphon import get_channel_layer
from antiphon.auth import login
from antiphon.generic.websocket import AsyncWebsocketConsumer
from antiphon.testing import WebsocketCommunicator


class Account(AsyncWebsocketConsumer):
    user_channel = True

    async def receive(self, text_data: str | None = None, bytes_data: bytes | None = None) -> None:
        await login(self.scope, await User.objects.aget(username=text_data))
        await self.send(text_data=f"now {text_data}")

    async def note(self, message: dict[str, Any]) -> None:
        await self.send(text_data=message["text"])


@pytest.mark.django_db(transaction=True)
async def test_after_a_login_inside_the_connection_user_send_and_close_user_follow() -> None:
    ada = await User.objects.acreate_user("ada")
    grace = await User.objects.acreate_user("grace")
    socket = WebsocketCommunicator(Account.as_asgi(), "/")
    socket.scope.update(session=SessionStore(), user=AnonymousUser())
    await socket.connect()
    layer = get_channel_layer()

    await socket.send_to(text_data="ada")
    assert await socket.receive_from() == "now ada"
    await layer.user_send(ada, {"type": "note", "text": "for ada"})
    assert await socket.receive_from() == "for ada"

    await socket.send_to(text_data="grace")
    assert await socket.receive_from() == "now grace"
    await layer.user_send(ada, {"type": "note", "text": "not hers any more"})
    await layer.user_send(grace, {"type": "note", "text": "for grace"})
    assert await socket.receive_from() == "for grace"

    assert await layer.close_user(ada, "revoked") == 0
    assert await layer.close_user(grace, "revoked") == 1
    assert (await socket.receive_output())["code"] == 4403
    await socket.disconnect()


@pytest.mark.django_db(transaction=True)
@pytest.mark.parametrize("kind", ["user", "session"])
async def test_a_connection_let_in_before_a_log_out_does_not_outlive_it(kind: str) -> None:
    ada = await User.objects.acreate_user("ada")
    session = SessionStore()
    await session.asave()
    layer = get_channel_layer()

    def socket() -> WebsocketCommunicator:
        communicator = WebsocketCommunicator(Account.as_asgi(), "/")
        communicator.scope.update({"session": session, "user": ada, "antiphon.let_in_s": time.monotonic()})
        return communicator

    early = socket()  # authenticated, and its consumer has not begun
    if kind == "user":
        await layer.close_user(ada, "revoked")
    else:
        await layer.close_session(str(session.session_key), "revoked")
    connected, _ = await early.connect()
    assert not connected
    await early.disconnect()

    late = socket()
    connected, _ = await late.connect()
    assert connected
    await late.disconnect()
