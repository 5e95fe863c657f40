"""The room of the jitter test, on both sides, and the settings that its publisher shares with it.

Antiphon's clients say in ``?since=`` how far they have come; Channels' have nothing to say it with. Django is configured
here, alike for both.
"""

from __future__ import annotations

import time
from collections.abc import Mapping
from typing import TYPE_CHECKING, Any
from urllib.parse import parse_qs

__all__ = ["GROUP", "application", "configure"]

GROUP = "room"


def configure(side: str, server_socket: str) -> None:
    """Set up Django with a layer of a side, ``antiphon`` or ``channels``, over the server at a Unix socket."""
    import django
    from django.conf import settings

    config: dict[str, Any] = {"hosts": [{"address": f"unix://{server_socket}"}], "prefix": "jitter"}
    backend = "channels_redis.pubsub.RedisPubSubChannelLayer"
    if side == "antiphon":
        backend = "antiphon.layers.RedisChannelLayer"
        config |= {"publish_retry": 10, "groups": {GROUP: {"history_size": 1000, "history_ttl": 600}}}
    settings.configure(
        SECRET_KEY="benchmarks",
        ALLOWED_HOSTS=["127.0.0.1"],
        INSTALLED_APPS=[side],
        CHANNEL_LAYERS={"default": {"BACKEND": backend, "CONFIG": config}},
        LOGGING_CONFIG=None,
        USE_TZ=True,
    )
    django.setup()


def application(side: str, server_socket: str, kind: str = "handler") -> Any:
    """Return the ASGI application of a side. ``kind``: of Antiphon, "handler" or "relay"."""
    configure(side, server_socket)
    websocket = _ours(kind).as_asgi() if side == "antiphon" else _theirs().as_asgi()

    async def serve(scope: dict[str, Any], receive: Any, send: Any) -> None:
        if scope["type"] != "websocket":
            raise RuntimeError("no lifespan here")  # which tells a server that there is none
        await websocket(scope, receive, send)

    return serve


def _since(scope: Mapping[str, Any]) -> list[Any] | None:
    presented = parse_qs(scope["query_string"].decode()).get("since")
    if presented is None:
        return None
    epoch, _, offset = presented[0].rpartition(":")
    return [epoch, int(offset)]


def _ours(kind: str) -> Any:
    from antiphon import relay
    from antiphon.generic.websocket import AsyncJsonWebsocketConsumer

    class Room(AsyncJsonWebsocketConsumer):
        """Each message goes out with its position, and what could not be recovered is said."""

        async def connect(self) -> None:
            await self.accept()
            since, began = _since(self.scope), time.perf_counter()
            result = await self.join(GROUP, since=since)
            join_ms = (time.perf_counter() - began) * 1000
            found = {"recovered": result.recovered, "count": result.count, "join_ms": join_ms}
            await self.send_json({"joined": found, "position": self.position(GROUP)})

        async def room_message(self, event: dict[str, Any]) -> None:
            await self.send_json({"n": event["n"], "sent_s": event["sent_s"], "position": self.position(GROUP)})

        async def group_lost(self, event: dict[str, Any]) -> None:
            await self.send_json({"lost": event["reason"], "position": event["top"]})

    if kind == "handler":
        return Room

    class RelayedRoom(Room):
        """The same, encoded once for all members."""

        @relay
        def room_message(event: dict[str, Any], position: Any) -> dict[str, Any]:  # no self
            return {"n": event["n"], "sent_s": event["sent_s"], "position": position}

    return RelayedRoom


def _theirs() -> Any:
    if TYPE_CHECKING:
        from antiphon.generic.websocket import AsyncJsonWebsocketConsumer
    else:
        from channels.generic.websocket import AsyncJsonWebsocketConsumer

    class Room(AsyncJsonWebsocketConsumer):
        """As in the tutorial."""

        async def connect(self) -> None:
            await self.channel_layer.group_add(GROUP, self.channel_name)
            await self.accept()
            await self.send_json({"joined": {}, "position": None})

        async def disconnect(self, code: int) -> None:
            await self.channel_layer.group_discard(GROUP, self.channel_name)

        async def room_message(self, event: dict[str, Any]) -> None:
            await self.send_json({"n": event["n"], "sent_s": event["sent_s"], "position": None})

    return Room
