"""A client of the Centrifuge protocol for tests: speaks it by hand, frame by frame."""

from __future__ import annotations

import json
from typing import Any

from antiphon.subscriptions import SubscriptionConsumer
from tests.consumers.client import Client

__all__ = ["Open", "Speaker", "speaker"]


class Open(SubscriptionConsumer):
    """Everybody may do everything, except in groups whose name begins with "secret"."""

    async def authorize_subscribe(self, group: str) -> Any:
        """Say who may subscribe."""
        return not group.startswith("secret")

    async def authorize_publish(self, group: str, data: Any) -> bool:
        """Say who may publish."""
        return not group.startswith("secret")


class Speaker(Client):
    """Sends commands, and takes replies and pushes one at a time, however they are framed."""

    def __init__(self, *args: Any, **kwargs: Any) -> None:
        super().__init__(*args, **kwargs)
        self.number = 0
        self.lines: list[str] = []

    def command(self, method: str, /, **fields: Any) -> str:
        """Return a command with the next id."""
        self.number += 1
        return json.dumps({"id": self.number, method: fields})

    async def line(self) -> Any:
        """Return the next reply or push; pings, too."""
        while not self.lines:
            text = await self.next_text()
            assert text
            assert "" not in text.split("\n")
            self.lines = text.split("\n")
        return json.loads(self.lines.pop(0))

    async def do(self, method: str, /, **fields: Any) -> Any:
        """Send a command; return what the next reply says, a result or {"code", …}. No push may come before it."""
        self.text(self.command(method, **fields))
        return await self.reply(method)

    async def reply(self, method: str) -> Any:
        """Return the result, or the error, of the next reply."""
        line = await self.line()
        assert "id" in line, line
        return line["error"] if "error" in line else line[method]

    async def push(self, kind: str = "pub") -> Any:
        """Return the next push: the channel, and what it says."""
        push = (await self.line())["push"]
        return push["channel"], push[kind]

    async def begin(self, **fields: Any) -> Any:
        """Open the socket and connect; return the result."""
        assert (await self.connect())["type"] == "websocket.accept"
        return await self.do("connect", **fields)

    async def quiet(self) -> None:
        """See that nothing has come before the answer to one more command."""
        assert (await self.do("rpc", method="no.such"))["code"] == 104


def speaker(cls: Any = Open, **scope: Any) -> Speaker:
    """Return a client of a consumer class; ``scope``: what its scope has."""
    return Speaker(cls.as_asgi(), scope)
