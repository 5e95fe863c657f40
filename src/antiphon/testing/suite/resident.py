"""The other process of the suite's tests: a layer that does what it is told over a line of JSON."""

from __future__ import annotations

import asyncio
import importlib
import time
from typing import Any

from ... import exceptions
from ...layer.layer import ChannelLayer
from ...layer.registry import channel_layers
from ...layer.sync import group_send
from ...layer.worker_channels import Lease
from ..faults.child import Peer

__all__ = ["ERRORS", "Home", "reside"]

# Errors that the asking process raises as they are.
ERRORS = {name: getattr(exceptions, name) for name in exceptions.__all__}


async def reside(peer: Peer) -> None:
    """Do what ``peer`` says until it is gone."""
    home: Home | None = None
    while True:
        try:
            what, *args = await peer.receive_async(None)
        except EOFError:
            return
        try:
            if what == "open":
                if home is not None:
                    await home.close()
                home = Home(*args)
                answer: dict[str, Any] = {"value": None}
            else:
                answer = {"value": await getattr(home, what)(*args)}
        except Exception as exc:
            answer = {"error": type(exc).__name__, "text": str(exc)}
        peer.send(answer)


class Home:
    """What the resident can do: each method is one order; arguments and values are what JSON can hold."""

    def __init__(self, backend: str, config: dict[str, Any]) -> None:
        module, _, name = backend.rpartition(".")
        self.layer: ChannelLayer = getattr(importlib.import_module(module), name)(**config)
        channel_layers.set("default", self.layer)
        self.tasks: list[asyncio.Task[None]] = []
        self.heard_by: dict[str, list[int]] = {}
        self.leases: list[Lease] = []
        self.closed_by: dict[str, list[str]] = {}

    async def close(self) -> None:
        """End the layer and what listens."""
        for task in self.tasks:
            task.cancel()
        await asyncio.gather(*self.tasks, return_exceptions=True)
        await self.layer.close()

    async def member(self, *groups: str) -> str:
        """Open a channel that is a member of ``groups`` and listens; return its name."""
        channel = await self.layer.new_channel()
        for group in groups:
            await self.layer.group_add(group, channel)
        await self.listen(channel)
        return channel

    async def crowd(self, group: str, count: int) -> None:
        """Open ``count`` channels that are members of a group."""
        for _ in range(count):
            _, mailbox = self.layer.open_mailbox("Resident", capacity=None, overflow=None)
            await self.layer.group_add(group, mailbox.channel)

    async def listen(self, channel: str) -> None:
        """Read a channel from now on."""
        heard = self.heard_by.setdefault(channel, [])

        async def read() -> None:
            while True:
                heard.append((await self.layer.receive(channel)).get("n", -1))

        self.tasks.append(asyncio.get_running_loop().create_task(read()))

    async def hold(self, channel: str) -> int:
        """Lease a message of a worker channel and keep it; return its number."""
        lease = await self.layer.lease(channel)
        self.leases.append(lease)
        number: int = lease.message["n"]
        return number

    async def heard(self, channel: str, count: int, limit_s: float = 20.0) -> list[int]:
        """Return the numbers that a channel heard, once they are ``count``, or after ``limit_s``."""
        until_s = time.monotonic() + limit_s
        while len(self.heard_by[channel]) < count and time.monotonic() < until_s:  # noqa: ASYNC110 -- many write, one looks
            await asyncio.sleep(0.005)
        return self.heard_by[channel]

    async def connection(self, user: str | None, session: str | None) -> str:
        """Open a channel as a connection of a user has it; return its name."""
        node, mailbox = self.layer.open_mailbox("Resident", capacity=None, overflow=None)
        node.hub.identify(mailbox, user, session)
        closes = self.closed_by[mailbox.channel] = []
        mailbox.on_close = closes.append
        return mailbox.channel

    async def closes(self, channel: str) -> list[str]:
        """Return the reasons for which a connection was asked to close."""
        return self.closed_by[channel]

    async def call(self, method: str, *args: Any) -> Any:
        """Call a method of the layer."""
        return await getattr(self.layer, method)(*args)

    async def send_numbered(self, group: str, start: int, stop: int) -> None:
        """Send numbered messages to a group."""
        for n in range(start, stop):
            await self.layer.group_send(group, {"type": "t", "n": n})

    async def send_from_thread(self, group: str, start: int, stop: int) -> None:
        """Send numbered messages to a group, from synchronous code."""

        def send() -> None:
            for n in range(start, stop):
                group_send(group, {"type": "t", "n": n})

        await asyncio.to_thread(send)

    async def losses(self) -> list[list[Any]]:
        """Return what may be lost: [[kind, name, since, until], …]."""
        recent = getattr(self.layer, "losses").recent  # noqa: B009  # layers over engines that can lose have it
        return [[loss.kind, loss.name, loss.since, loss.until] for loss in recent]

    async def stats(self) -> dict[str, Any]:
        """Return the layer's counters."""
        return self.layer.stats()
