"""What an application's author writes, as it must type-check under ``mypy --strict``. Nothing here is run."""

from __future__ import annotations

from datetime import date
from typing import Any, assert_type

from django.contrib.auth.models import User
from django.core.asgi import get_asgi_application
from django.http import HttpRequest, HttpResponse
from django.urls import path, re_path

import antiphon
from antiphon import (
    Receipt,
    close_channel,
    close_user,
    configure,
    get_channel_layer,
    group_send,
    groups_send,
    relay,
    send,
    user_send,
)
from antiphon.auth import AuthMiddlewareStack, get_user, login, logout
from antiphon.consumer import AsyncConsumer, SyncConsumer
from antiphon.db import database_sync_to_async
from antiphon.exceptions import AntiphonError, ChannelFull, DenyConnection, JoinDenied, StopConsumer
from antiphon.generic.http import AsyncHttpConsumer
from antiphon.generic.websocket import (
    AsyncJsonWebsocketConsumer,
    AsyncWebsocketConsumer,
    JsonWebsocketConsumer,
    WebsocketConsumer,
)
from antiphon.layers import BaseChannelLayer, InMemoryChannelLayer, channel_layers
from antiphon.middleware import BaseMiddleware
from antiphon.routing import ChannelNameRouter, ProtocolTypeRouter, URLRouter, asgi_application
from antiphon.security.websocket import AllowedHostsOriginValidator, OriginValidator
from antiphon.testing import HttpCommunicator, WebsocketCommunicator, capture_messages
from antiphon.types import ASGIApplication, Receive, Scope, Send


class Chat(AsyncWebsocketConsumer):
    groups = ["everybody"]
    user_channel = True
    rate_limit = "20/s"
    capacity = 500
    overflow = "drop_old"
    receive_limit = (16, 65_536)
    layer_handlers = {"close": "close"}

    async def connect(self) -> None:
        room: str = self.scope["url_route"]["kwargs"]["room"]
        try:
            joined = await self.join(f"chat_{room}")
        except JoinDenied:
            raise DenyConnection from None
        assert_type(joined.group, str)
        assert_type(joined.recovered, bool | None)
        await self.accept(subprotocol="chat", headers=[(b"x-room", room.encode())])

    async def authorize_join(self, group: str) -> bool:
        return bool(self.scope["user"].is_authenticated)

    async def receive(self, text_data: str | None = None, bytes_data: bytes | None = None) -> None:
        if text_data is None:
            await self.close(code=4400, reason="text only")
            return
        await self.channel_layer.group_send("everybody", {"type": "chat.message", "text": text_data, "on": date.max})

    async def chat_message(self, event: dict[str, Any]) -> None:
        await self.send(text_data=event["text"])
        await self.send(bytes_data=b"\0", close=4000)

    async def disconnect(self, code: int) -> None:
        await self.leave("everybody")

    async def on_error(self, exc: Exception, handler: str) -> bool:
        return isinstance(exc, AntiphonError) and handler == "chat_message"


class JsonChat(AsyncJsonWebsocketConsumer):
    async def receive_json(self, content: Any, **kwargs: Any) -> None:
        await self.send_json({"echo": content})

    @classmethod
    async def encode_json(cls, content: Any) -> str:
        return repr(content)


class Plain(WebsocketConsumer):
    def connect(self) -> None:
        joined = self.join("everybody")
        assert_type(joined.group, str)
        self.accept()

    def receive(self, text_data: str | None = None, bytes_data: bytes | None = None) -> None:
        self.send(text_data=text_data)

    def disconnect(self, code: int) -> None:
        self.leave("everybody")


class PlainJson(JsonWebsocketConsumer):
    def receive_json(self, content: Any, **kwargs: Any) -> None:
        self.send_json(content, close=True)


class Stream(AsyncHttpConsumer):
    async def handle(self, body: bytes) -> None:
        await self.send_headers(status=200, headers=[(b"content-type", b"text/plain")])
        await self.send_body(body, more_body=True)
        await self.send_response(200, b"", headers={b"x": b"y"})


class Thumbnails(SyncConsumer):
    def make(self, message: dict[str, Any]) -> None:
        raise StopConsumer


class Tasks(AsyncConsumer):
    async def run(self, message: dict[str, Any]) -> None:
        await self.send({"type": "done"})


class Locale(BaseMiddleware):
    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> Any:
        return await super().__call__({**scope, "locale": "de"}, receive, send)


routes = [path("ws/chat/<slug:room>/", Chat.as_asgi()), re_path(r"^ws/json/$", JsonChat.as_asgi(token="x"))]
application = asgi_application(
    routes, channels={"thumbnails": Thumbnails.as_asgi()}, allowed_origins=["https://example.com"]
)
by_hand = ProtocolTypeRouter(
    {
        "http": get_asgi_application(),
        "websocket": AllowedHostsOriginValidator(AuthMiddlewareStack(Locale(URLRouter(routes)))),
        "channel": ChannelNameRouter({"tasks": Tasks.as_asgi()}),
    }
)
asgi: ASGIApplication = OriginValidator(by_hand, ["*"])


def view(request: HttpRequest, room: str) -> HttpResponse:
    receipt = group_send(f"chat_{room}", {"type": "chat.message", "text": "hi"}, exclude=["specific.a!1"])
    assert_type(receipt, Receipt)
    assert_type(receipt.state, str)
    assert_type(receipt.delivered, int | None)
    user_send(request.user, {"type": "paid"}, exclude=["specific.a!1"], database="default", on_commit=False)
    assert_type(groups_send(["staff", f"shop_{room}"], {"type": "paid"}, exclude=[], layer="default"), Receipt)
    assert_type(send("thumbnails", {"type": "make"}, layer="default", database="default", on_commit=True), Receipt)
    assert_type(close_channel("specific.a!1", "revoked"), bool)
    assert_type(close_user(request.user), int)
    return HttpResponse(status=204)


async def with_a_layer(layer: InMemoryChannelLayer, user: User, scope: Scope) -> None:
    base: BaseChannelLayer = layer
    channel = await layer.new_channel()
    await layer.group_add("room", channel)
    try:
        await layer.send(channel, {"type": "hello"})
    except ChannelFull:
        await layer.flush()
    message = await layer.receive(channel)
    assert_type(message, dict[str, Any])
    receipt = await layer.group_send("room", {"type": "hello"}, exclude=[channel])
    assert_type(receipt.nodes, int | None)
    await layer.groups_send(["room", "other"], {"type": "hello"})
    assert_type(await layer.send_many([("room", {"type": "a"}), ("room", {"type": "b"})]), list[Receipt])
    await layer.user_send(user, {"type": "hello"})
    members = await layer.group_channels("room")
    assert_type(members.complete, bool)
    count: int = await layer.group_count("room", scope="node")
    await layer.group_discard("room", channel)
    await layer.group_discard_all(channel)
    stats = layer.stats()
    print(base, count, stats["drops"], get_channel_layer("default"), channel_layers["default"])
    await login(scope, user)
    await get_user(scope)
    await logout(scope)


@database_sync_to_async
def load(pk: int) -> str:
    return str(pk)


class Prices(AsyncJsonWebsocketConsumer):
    json_encoder = "fast"
    send_buffer_limit = 100_000

    @relay
    def price_changed(event: dict[str, Any]) -> dict[str, Any]:
        return {"price": event["price"]}


assert_type(Prices.price_changed({"price": 1}), dict[str, Any])


async def test_a_consumer() -> None:
    assert_type(await load(1), str)
    async with WebsocketCommunicator(Chat.as_asgi(), "/ws/", headers=[(b"origin", b"https://example.com")]) as client:
        await client.send_json_to({"text": "hello"})
        assert_type(await client.receive_from(timeout=2), str | bytes)
        assert await client.receive_nothing()
    answer = await HttpCommunicator(Stream.as_asgi(), "GET", "/").get_response()
    print(answer)
    with capture_messages() as sent:
        group_send("room", {"type": "hello"})
        assert_type(sent.to("room"), list[dict[str, Any]])


antiphon.install_as_channels()
configure({"default": {"BACKEND": "antiphon.layers.InMemoryChannelLayer"}}, rate_limit="20/s")
