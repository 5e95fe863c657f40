"""The server that the official clients talk to: a process of its own, told over its line what to do (``Site``).

Each path is a consumer class with terms of its own. Users are Django's, in a database that the processes of a test share.
"""

from __future__ import annotations

import asyncio
import mimetypes
import os
import time
from collections.abc import Awaitable, Callable
from pathlib import Path
from typing import Any

import django
import uvicorn

from antiphon.exceptions import ReplyError, TokenExpired, TokenInvalid
from antiphon.layers import InMemoryChannelLayer, RedisChannelLayer, channel_layers
from antiphon.server import HTTPProtocol, WebSocketProtocol
from antiphon.subscriptions import Claims, Grant, SubscriptionConsumer
from antiphon.testing.faults import ChildProcess, Peer

__all__ = ["GROUPS", "Site"]

GROUPS = {
    "log*": {"history_size": 50, "history_ttl": 300},
    "brief*": {"history_size": 3, "history_ttl": 300},
    "last*": {"history_size": 5, "history_ttl": 300, "recovery": "cache"},
    "here*": {"presence": True, "presence_grace_s": 0.0},
}
MODULES = Path(__file__).parent / "node_modules"
PAGE = b"""<!doctype html><meta charset="utf-8"><title>A client</title><link rel="icon" href="data:,">
<script src="/files/node_modules/centrifuge/dist/centrifuge.js"></script>"""

# What the methods below are told to do once, by the name of the group: the test says it over the line.
tricks: dict[str, list[str]] = {}
# Tokens of a short life.
seen: set[str] = set()
# The codes with which connections have ended.
ends: list[int] = []


async def play(name: str) -> bool:
    """Do what a test has ordered for a group, once; False: it is to be refused."""
    trick = tricks[name].pop(0) if tricks.get(name) else ""
    if trick == "raise":
        raise RuntimeError("as the test wants it")
    if trick == "deny":
        return False
    if trick == "wait":
        await asyncio.sleep(1000)
    if trick.startswith("reply "):
        raise ReplyError(int(trick.removeprefix("reply ")), "as the test wants it")
    return True


def opened(token: str) -> tuple[str, float | None]:
    """Return whose a token of ``Brief`` is, and when it ends. Raises TokenExpired for one that was seen before."""
    word, user, *seconds = [*token.split(), ""]
    if word != "for":
        raise TokenInvalid("it is none")
    if not seconds[0]:
        return user, None
    if token in seen:
        raise TokenExpired("it was seen before")
    seen.add(token)
    return user, time.time() + 1.0


class Live(SubscriptionConsumer):
    """Everybody may do everything, except in groups whose name begins with "secret" or "token"."""

    async def authorize_connect(self, data: Any) -> bool | Grant:
        if isinstance(data, dict) and "trick" in data:
            await play(data["trick"])
        return Grant(data={"hello": data}) if data else True

    async def authorize_subscribe(self, group: str) -> bool | Grant:
        if not await play(group):
            return False
        if group.startswith("told"):
            return Grant(data={"topic": group})
        return not group.startswith(("secret", "token"))

    async def authorize_publish(self, group: str, data: Any) -> bool:
        return not group.startswith("secret")

    def group_for(self, channel: str) -> str | None:
        if channel == "nowhere":
            return None
        return channel.removeprefix("alias:")

    async def rpc_echo(self, data: Any) -> Any:
        return data

    async def rpc_who_am_i(self, data: Any) -> Any:
        return {"user": self.user_id, "client": self.client_id, "info": self.claims.info}

    async def rpc_refuse(self, data: Any) -> Any:
        raise ReplyError(data["code"], data["message"], temporary=data.get("temporary", False))

    async def rpc_crash(self, data: Any) -> Any:
        raise RuntimeError("as the test wants it")

    async def on_message(self, data: Any) -> None:
        await self.push({"heard": data})

    async def on_disconnect(self, code: int) -> None:
        ends.append(code)


class Quick(Live):
    """Pings each second, and asks for permissions again and again."""

    ping_interval_s = 1.0
    pong_timeout_s = 60.0
    reauth_interval_s = 0.5


class Stern(Live):
    """Ends connections that do not answer soon."""

    ping_interval_s = 1.0
    pong_timeout_s = 0.5


class Brief(Live):
    """Takes tokens "for ann 1": for a second from when it first saw them. Those "for ann" are for ever."""

    async def authenticate(self, token: str) -> Claims:
        user, expires_s = opened(token)
        return Claims(user, expires_s)

    async def authorize_token(self, group: str, token: str) -> Grant:
        user, expires_s = opened(token)
        if user != self.user_id:
            raise TokenInvalid("it is for another user")
        return Grant(expires_s)


class Strict(Brief):
    """Has no patience with those who come late with a new one."""

    expiry_grace_s = 0.1


class Tight(Live):
    """Allows little."""

    max_subscriptions = 2
    command_rate_limit = "5/1000s"
    max_message_bytes = 1000
    max_connections_per_user = 1


class Hasty(Live):
    """Answers a subscribe soon, whatever becomes of it."""

    subscribe_timeout_s = 0.2


class Members(Live):
    """Lets nobody in without a token."""

    async def authorize_connect(self, data: Any) -> bool:
        return self.user_id is not None


class Foreign(Live):
    """Reads tokens that another service has made."""

    async def authenticate(self, token: str) -> Claims:
        return Claims(token, info={"name": token.title()})


PATHS = {
    cls.__name__.lower(): cls.as_asgi() for cls in (Live, Quick, Stern, Brief, Strict, Tight, Hasty, Members, Foreign)
}


async def application(
    scope: Any, receive: Callable[[], Awaitable[Any]], send: Callable[[Any], Awaitable[None]]
) -> None:
    """Serve the consumers, and over HTTP the page and its files."""
    path = scope["path"].strip("/")

    async def closing(message: Any) -> None:
        # No connection is used twice, so that a balancer sends each request to another process.
        if message["type"] == "http.response.start":
            message = {**message, "headers": [*message["headers"], (b"connection", b"close")]}
        await send(message)

    if path in PATHS:
        await PATHS[path](scope, receive, send if scope["type"] == "websocket" else closing)
        return
    if scope["type"] != "http":
        return
    name = path.removeprefix("files/")
    kind = mimetypes.guess_type(name)[0] or "text/html"
    body = PAGE if path == "page" else (Path(__file__).parent / name).read_bytes()  # once a page
    await closing({"type": "http.response.start", "status": 200, "headers": [(b"content-type", kind.encode())]})
    await closing({"type": "http.response.body", "body": body})


async def serve(peer: Peer, engine: str | None, prefix: str) -> None:
    """Serve until told to end, and do between what the test says. ``engine``: a URL; None: the memory of this process."""
    django.setup()
    from django.core.management import call_command

    if not os.path.exists(os.environ["TESTS_DATABASE"]):  # noqa: ASYNC240, PTH110  # once, before anything else
        await asyncio.to_thread(call_command, "migrate", verbosity=0)
    layer: Any = RedisChannelLayer([engine], prefix=prefix, groups=GROUPS) if engine else None
    channel_layers.set("default", layer or InMemoryChannelLayer(groups=GROUPS))
    # One process; what ends it is the test.
    server = uvicorn.Server(
        uvicorn.Config(
            application, port=0, ws=WebSocketProtocol, http=HTTPProtocol, lifespan="off", log_level="warning",
            ws_ping_interval=None, timeout_graceful_shutdown=5,
        )
    )  # fmt: skip
    task = asyncio.create_task(server.serve())
    while not server.started:  # noqa: ASYNC110  # nothing tells
        await asyncio.sleep(0.005)
    peer.send(server.servers[0].sockets[0].getsockname()[1])
    while not task.done():
        order = await peer.receive_async(None)
        if order["do"] == "end":
            server.should_exit = True
            await task
            peer.send(["done", None])
            return
        try:
            peer.send(["done", await ORDERS[order.pop("do")](**order)])
        except Exception as exc:
            peer.send(["failed", repr(exc)])


# What a test may order


async def _send(group: str, message: Any, **options: Any) -> Any:
    await channel_layers["default"].group_send(group, message, **options)


async def _user(name: str) -> Any:
    from django.contrib.auth import get_user_model

    user = await get_user_model().objects.acreate(username=name)
    return user.pk


async def _token(user: int | None, group: str | None = None, **options: Any) -> str:
    from django.contrib.auth import get_user_model

    from antiphon.auth import connection_token, subscription_token

    owner = None if user is None else await get_user_model().objects.aget(pk=user)
    return subscription_token(owner, group, **options) if group else connection_token(owner, **options)


async def _revoke(user: int) -> None:
    from django.contrib.auth import get_user_model

    from antiphon.auth import arevoke_user

    await arevoke_user(await get_user_model().objects.aget(pk=user))


async def _change(user: int, **values: Any) -> None:
    from django.contrib.auth import get_user_model

    found = await get_user_model().objects.aget(pk=user)
    for name, value in values.items():
        if name == "password":
            found.set_password(value)
        else:
            setattr(found, name, value)
    await found.asave()


async def _call(method: str, args: list[Any]) -> Any:
    return await getattr(channel_layers["default"], method)(*args)


async def _top(group: str) -> Any:
    position = await channel_layers["default"].position(group)
    return [position.epoch, position.offset]


async def _forget_logs() -> None:
    layer: Any = channel_layers["default"]
    layer._bus.forget_logs()


async def _trick(group: str, what: list[str]) -> None:
    tricks[group] = what


async def _tricks(group: str) -> list[str]:
    return tricks[group]


async def _ends() -> list[int]:
    return ends


ORDERS: dict[str, Callable[..., Awaitable[Any]]] = {
    "send": _send,
    "user": _user,
    "token": _token,
    "revoke": _revoke,
    "change": _change,
    "call": _call,
    "top": _top,
    "forget_logs": _forget_logs,
    "trick": _trick,
    "tricks": _tricks,
    "ends": _ends,
}


class Site:
    """A server, from ``start()`` to ``close()``. ``database``: a file, shared by those that shall know the same users."""

    def __init__(self, database: Path, engine: str | None = None, prefix: str = "clients") -> None:
        env = {"TESTS_DATABASE": str(database), "DJANGO_SETTINGS_MODULE": "tests.project.settings"}
        self.process = ChildProcess(serve, engine, prefix, env=env)
        self.port = 0

    def start(self) -> None:
        """Start it, and return when it answers."""
        self.process.start()
        self.port = self.process.receive()

    def close(self) -> None:
        """Kill it."""
        self.process.close()

    def order(self, what: str, /, **kwargs: Any) -> Any:
        """Have it do what ORDERS names, and return what came of it."""
        self.process.send({"do": what, **kwargs})
        state, value = self.process.receive()
        if state != "done":
            raise AssertionError(f"{what}: {value}")
        return value

    def publish(self, group: str, *data: Any, **fields: Any) -> None:
        """Publish from outside, one after the other."""
        for each in data:
            self.order("send", group=group, message={"type": "publication", "data": each, **fields})
