"""The chat that both frameworks serve: the stock consumer of Channels' tutorial, and what Antiphon adds to it.

``application(side, kind, stack=…, layer=…)`` makes the ASGI application. Django is configured here, alike for both.
"""

from __future__ import annotations

import gc
import json
import os
import sys
from pathlib import Path
from typing import TYPE_CHECKING, Any

__all__ = ["application"]

# Room for what a benchmark keeps on its way: nothing is dropped for want of it on either side.
CAPACITY = 100_000
# What the load generator's cookie says.
SESSION = "an1dle2ses3sion4of5the6benchmark"


def application(
    side: str,
    kind: str,
    *,
    stack: bool = False,
    layer: str | None = None,
    home: str | None = None,
    capacity: int = CAPACITY,
) -> Any:
    """Return the application of a side: ``antiphon`` or ``channels``.

    ``kind``: "stock"; of Antiphon also "shares" (``shares_messages``) and "relay". ``stack``: with session and user from
    a database in the folder ``home``, and whatever a project has around; else the bare routes. ``layer``: the socket of
    a Redis server; else the layer in memory. ``capacity``: of each channel.
    """
    _configure(side, stack, layer, home, capacity)
    if stack:
        _fill_database()
    from django.urls import path

    consumer = _consumer(side, kind)
    routes = [path("ws/<slug:room>/", consumer.as_asgi())]
    websocket: Any
    if side == "antiphon":
        from antiphon.routing import URLRouter, asgi_application

        websocket = asgi_application(routes) if stack else URLRouter(routes)
    else:
        from channels.auth import AuthMiddlewareStack
        from channels.routing import URLRouter as Router
        from channels.security.websocket import AllowedHostsOriginValidator

        websocket = Router(routes)
        if stack:
            websocket = AllowedHostsOriginValidator(AuthMiddlewareStack(websocket))

    async def serve(scope: dict[str, Any], receive: Any, send: Any) -> None:
        if scope["type"] == "websocket":
            await websocket(scope, receive, send)
        elif scope["type"] == "http":
            await _tell(side, scope, send)
        else:
            raise RuntimeError("no lifespan here")  # which tells a server that there is none

    return serve


def _configure(side: str, stack: bool, server: str | None, home: str | None, capacity: int) -> None:
    import django
    from django.conf import settings

    config: dict[str, Any] = {"capacity": capacity}
    backend = f"{side}.layers.InMemoryChannelLayer"
    if server is not None:
        config = {"hosts": [{"address": f"unix://{server}"}], "prefix": f"bench-{os.getpid()}"}
        backend = "channels_redis.pubsub.RedisPubSubChannelLayer"
        if side == "antiphon":
            backend, config["capacity"] = "antiphon.layers.RedisChannelLayer", capacity
    framework = ["django.contrib.contenttypes", "django.contrib.auth", "django.contrib.sessions"] if stack else []
    settings.configure(
        SECRET_KEY="benchmarks",
        ALLOWED_HOSTS=["127.0.0.1"],
        INSTALLED_APPS=[*framework, side],
        DATABASES={
            "default": {"ENGINE": "django.db.backends.sqlite3", "NAME": f"{home}/db.sqlite3" if home else ":memory:"}
        },
        CHANNEL_LAYERS={"default": {"BACKEND": backend, "CONFIG": config}},
        ROOT_URLCONF=__name__,
        LOGGING_CONFIG=None,
        USE_TZ=True,
    )
    django.setup()


def _fill_database() -> None:
    """Make the tables, and the session of a user who has logged in."""
    from django.contrib.auth import BACKEND_SESSION_KEY, HASH_SESSION_KEY, SESSION_KEY
    from django.contrib.auth.models import User
    from django.contrib.sessions.backends.db import SessionStore
    from django.core.management import call_command

    call_command("migrate", run_syncdb=True, verbosity=0)
    user = User.objects.create_user("ada")
    session = SessionStore(SESSION)
    session[SESSION_KEY] = str(user.pk)
    session[BACKEND_SESSION_KEY] = "django.contrib.auth.backends.ModelBackend"
    session[HASH_SESSION_KEY] = user.get_session_auth_hash()
    session.save(must_create=True)


urlpatterns: list[Any] = []  # this module is the ROOT_URLCONF


def _consumer(side: str, kind: str) -> Any:
    if TYPE_CHECKING or side == "antiphon":
        from antiphon.generic.websocket import AsyncWebsocketConsumer
    else:
        from channels.generic.websocket import AsyncWebsocketConsumer

    class ChatConsumer(AsyncWebsocketConsumer):
        """As in the tutorial."""

        async def connect(self) -> None:
            self.room = self.scope["url_route"]["kwargs"]["room"]
            await self.channel_layer.group_add(self.room, self.channel_name)
            await self.accept()

        async def disconnect(self, code: int) -> None:
            await self.channel_layer.group_discard(self.room, self.channel_name)

        async def receive(self, text_data: Any = None, bytes_data: Any = None) -> None:
            message = json.loads(text_data)["message"]
            await self.channel_layer.group_send(self.room, {"type": "chat.message", "message": message})

        async def chat_message(self, event: dict[str, Any]) -> None:
            await self.send(text_data=json.dumps({"message": event["message"]}))

    if kind == "stock":
        return ChatConsumer
    if side != "antiphon":
        raise SystemExit(f"{kind}: only Antiphon has it")
    if kind == "shares":
        return type("SharingConsumer", (ChatConsumer,), {"shares_messages": True})

    from antiphon import relay

    class RelayConsumer(ChatConsumer):
        """The same text, made once a message."""

        @relay
        def chat_message(event: dict[str, Any]) -> Any:  # no self
            return {"message": event["message"]}

    return RelayConsumer


def _rss_bytes() -> int:
    return int(Path("/proc/self/statm").read_text().split()[1]) * os.sysconf("SC_PAGE_SIZE")


async def _tell(side: str, scope: dict[str, Any], send: Any) -> None:
    """Answer any HTTP request with what the process holds and what its layer has dropped."""
    gc.collect()
    if side == "antiphon":
        from antiphon import get_channel_layer
    else:
        from channels.layers import get_channel_layer
    layer: Any = get_channel_layer()
    found: dict[str, Any] = {
        "rss_bytes": _rss_bytes(),
        # Channels' layer in memory drops without a word.
        "dropped": sum(layer.stats()["drops"].values()) if hasattr(layer, "stats") else 0,
        "other": ("channels" if side == "antiphon" else "antiphon") in sys.modules,
    }
    body = json.dumps(found).encode()
    await send({"type": "http.response.start", "status": 200, "headers": [(b"content-length", b"%d" % len(body))]})
    await send({"type": "http.response.body", "body": body})
