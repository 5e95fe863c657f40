"""The same chat on python-socketio: one room, everybody joins it, what one says goes to all."""

from __future__ import annotations

from typing import Any

import socketio

__all__ = ["application"]


def application() -> Any:
    """Return the ASGI application."""
    # No pings while it is measured. A handler is awaited before the client's next message, as in a consumer.
    server = socketio.AsyncServer(async_mode="asgi", ping_interval=86400, async_handlers=False)

    @server.event
    async def connect(sid: str, environ: Any, auth: Any) -> None:
        await server.enter_room(sid, "room")

    @server.event
    async def chat(sid: str, data: Any) -> None:
        await server.emit("chat", data, room="room")

    return socketio.ASGIApp(server)
