"""What the tests of a layer send again and again, and who receives it: members of groups, connections of users."""

from __future__ import annotations

import asyncio
from typing import Any

from antiphon.layers import InMemoryChannelLayer
from antiphon.names import user_topic

HELLO = {"type": "hello"}


def numbered(n: int) -> dict[str, Any]:
    return {"type": "t", "n": n}


async def waits(layer: InMemoryChannelLayer, channel: str) -> bool:
    """Say whether nothing is there to be received."""
    try:
        await asyncio.wait_for(layer.receive(channel), 0.02)
    except TimeoutError:
        return True
    return False


async def members(layer: InMemoryChannelLayer, group: str, count: int) -> list[str]:
    channels = [await layer.new_channel() for _ in range(count)]
    for channel in channels:
        await layer.group_add(group, channel)
    return channels


async def connection(layer: InMemoryChannelLayer, user: str | None, session: str | None) -> tuple[str, list[str]]:
    """Open the mailbox of a connection as a consumer with ``user_channel`` does; return its channel and closes."""
    node, mailbox = layer.open_mailbox("Chat", capacity=None, overflow=None)
    node.hub.identify(mailbox, user, session)
    closes: list[str] = []
    mailbox.on_close = closes.append
    if user is not None:
        await node.join(user_topic(user), mailbox)
    return mailbox.channel, closes
