"""Log-outs and changed users against open sockets: signals, revalidation and the layer together."""

from __future__ import annotations

from typing import Any

import pytest
from django.contrib.auth import get_user_model
from django.contrib.sessions.backends.db import SessionStore
from django.test import AsyncClient

from antiphon.auth import TokenMiddlewareStack, logout, make_ticket, make_token
from antiphon.generic.websocket import AsyncWebsocketConsumer
from antiphon.routing import asgi_application
from antiphon.testing import WebsocketCommunicator
from tests.django.asgi import path

pytestmark = pytest.mark.django_db(transaction=True)


class Echo(AsyncWebsocketConsumer):
    revalidate_interval_s = 0.1

    async def receive(self, text_data: str | None = None, bytes_data: bytes | None = None) -> None:
        if text_data == "log me out":
            await logout(self.scope)
        await self.send(text_data=str(self.scope["user"]))


@pytest.fixture
def bob() -> Any:
    return get_user_model().objects.create_user("bob", password="secret")


@pytest.fixture
async def client(bob: Any) -> AsyncClient:
    client = AsyncClient()
    await client.aforce_login(bob)
    return client


async def opened(client: AsyncClient | None, query: str = "", **kwargs: Any) -> WebsocketCommunicator:
    application = asgi_application(
        [path("ws/", Echo.as_asgi())], allowed_origins=["*"], middleware=TokenMiddlewareStack
    )
    headers = [(b"cookie", f"sessionid={client.cookies['sessionid'].value}".encode())] if client else []
    communicator = WebsocketCommunicator(application, f"/ws/{query}", headers=headers, **kwargs)
    connected, _ = await communicator.connect(timeout=30)
    assert connected
    await communicator.send_to(text_data="who am I?")
    assert await communicator.receive_from(timeout=30) == "bob"
    return communicator


async def closed(communicator: WebsocketCommunicator) -> int:
    message = await communicator.receive_output(timeout=30)
    assert message["type"] == "websocket.close"
    return int(message["code"])


@pytest.mark.parametrize("view", ["/logout/", "/alogout/"])
async def test_a_logout_closes_the_sockets_of_the_session_and_no_others(
    client: AsyncClient, bob: Any, view: str
) -> None:
    other = AsyncClient()
    await other.aforce_login(bob)
    mine, too, elsewhere = await opened(client), await opened(client), await opened(other)
    await client.get(view)
    assert [await closed(mine), await closed(too)] == [4401, 4401]
    assert await elsewhere.receive_nothing(0.3)
    await elsewhere.disconnect()


async def test_a_consumer_that_logs_its_user_out_is_closed_with_the_others(client: AsyncClient) -> None:
    socket, other = await opened(client), await opened(client)
    await socket.send_to(text_data="log me out")
    assert [await closed(socket), await closed(other)] == [4401, 4401]


@pytest.mark.parametrize("change", ["password", "inactive", "deleted"])
async def test_a_change_of_the_user_closes_all_sockets_of_the_user(client: AsyncClient, bob: Any, change: str) -> None:
    socket, by_token = await opened(client), await opened(None, "?ticket=" + make_ticket(bob))
    if change == "password":
        bob.set_password("another")
        await bob.asave()
    elif change == "inactive":
        bob.is_active = False
        await bob.asave()
    else:
        await bob.adelete()
    assert [await closed(socket), await closed(by_token)] == [4403, 4403]


async def test_what_no_signal_tells_is_found_by_asking_again(client: AsyncClient, bob: Any) -> None:
    socket, by_token = (
        await opened(client),
        await opened(None, subprotocols=["chat", "antiphon.token." + make_token(bob)]),
    )
    await get_user_model().objects.filter(pk=bob.pk).aupdate(is_active=False)
    assert [await closed(socket), await closed(by_token)] == [4403, 4403]


async def test_a_session_that_went_away_is_found_by_asking_again(client: AsyncClient) -> None:
    socket = await opened(client)
    await SessionStore(client.cookies["sessionid"].value).aflush()
    assert await closed(socket) == 4401


async def test_a_token_that_ends_ends_its_socket(bob: Any) -> None:
    socket = await opened(None, subprotocols=["chat", "antiphon.token." + make_token(bob, max_age_s=4)])
    assert await closed(socket) == 4401
