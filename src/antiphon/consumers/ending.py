"""Ends a connection from this side: the close frame at once, and an end to the waiting for the server's word."""

from __future__ import annotations

import asyncio
from typing import TYPE_CHECKING

from ..exceptions import StopConsumer
from ..wire.codes import close_code

if TYPE_CHECKING:
    from .connection import Connection

__all__ = ["Ending"]

# How long a server may take to report the end of a connection that we closed.
CLOSE_WAIT_S = 10.0


class Ending:
    """The close that somebody asked for, with ``reason``."""

    __slots__ = ("_connection", "_reason", "_timer", "task")

    def __init__(self, connection: Connection, reason: str) -> None:
        self._connection = connection
        self._reason = reason
        self._timer = connection.mailbox.loop.call_later(CLOSE_WAIT_S, self._assume_gone)
        # Kept: a loop holds its tasks weakly, and this one may wait long for a client that does not read.
        self.task: asyncio.Task[None] = connection.mailbox.loop.create_task(self._close())

    def __repr__(self) -> str:
        return f"<Ending {self._reason}>"

    async def _close(self) -> None:
        connection = self._connection
        if connection.kind == "websocket":
            await connection.outlet.close(self._reason)
        elif connection.kind == "http":
            await connection.consumer._antiphon_farewell(self._reason)
            connection.client_gone({"type": "http.disconnect"})
        else:
            connection.broken(StopConsumer())

    def _assume_gone(self) -> None:
        code = close_code(self._reason, self._connection.outlet.protocol)
        self._connection.client_gone({"type": "websocket.disconnect", "code": code, "reason": self._reason})

    def stop(self) -> asyncio.Task[None]:
        """Wait for the server no more; return the task that may still run."""
        self._timer.cancel()
        return self.task
