"""A member of a group with history, that is told what is lost."""

from __future__ import annotations

import asyncio
from typing import Any

from antiphon.layer.redis import RedisChannelLayer

GROUPS = {"room*": {"history_size": 1000}, "few": {"history_size": 5}}


class Member:
    """Hears one group: numbers, and "lost" for the word that something is."""

    def __init__(self, layer: RedisChannelLayer) -> None:
        self.layer = layer
        self.heard: list[Any] = []
        self.lost: list[dict[str, Any]] = []
        self.node, self.mailbox = layer.open_mailbox("Member", capacity=100_000, overflow=None)
        self.mailbox.wants = frozenset({"group.lost"})

    async def join(self, group: str) -> Member:
        await self.layer.group_add(group, self.mailbox.channel)
        return self

    async def hears(self, last: int) -> list[Any]:
        """Wait for the message ``last``; return all that came."""
        async with asyncio.timeout(30):
            while self.heard[-1:] != [last]:
                message = await self.layer.receive(self.mailbox.channel)
                if message["type"] == "group.lost":
                    self.lost.append(message)
                    self.heard.append("lost")
                else:
                    self.heard.append(message["n"])
        return self.heard
