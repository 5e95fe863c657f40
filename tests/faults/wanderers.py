"""Clients that come and go with their positions while things break, and the account of what each was told.

A client is cut again and again: half of the time its server is told at once, half of the time only later, and what was
sent to it meanwhile went nowhere. It comes back with the newest position that it knows, to any of the servers.
"""

from __future__ import annotations

import asyncio
import json
import random
from collections.abc import AsyncIterator, Sequence
from contextlib import asynccontextmanager, suppress
from typing import Any

from antiphon import relay
from antiphon.exceptions import EngineUnavailable
from antiphon.generic.websocket import AsyncJsonWebsocketConsumer
from antiphon.layer.redis import RedisChannelLayer
from antiphon.layers import channel_layers
from antiphon.types import Position
from tests.consumers.client import Client, until
from tests.waiting import FOR_EVER_S

__all__ = [
    "GROUP",
    "GROUPS",
    "LOST",
    "Publisher",
    "Room",
    "Wanderer",
    "account",
    "all_heard",
    "replace_server",
    "rooms",
    "wandering",
]

GROUP = "room"
GROUPS = {GROUP: {"history_size": 100_000, "history_ttl": 600}}
# Where a client was told that something is gone, in what it heard.
LOST = 0


class Room(AsyncJsonWebsocketConsumer):
    """Each message goes out with its position; what could not be recovered is said."""

    capacity = 100_000

    async def connect(self) -> None:
        await self.accept()
        since = self.scope["since"]
        try:
            result = await self.join(GROUP, since=since)
        except EngineUnavailable:
            await self.close(code=1013)
            return
        await self.send_json({"recovered": result.recovered, "position": self.position(GROUP)})

    async def note(self, message: dict[str, Any]) -> None:
        await self.send_json({"n": message["n"], "position": self.position(GROUP)})

    async def group_lost(self, message: dict[str, Any]) -> None:
        await self.send_json({"recovered": False, "position": message["top"]})


class RelayedRoom(Room):
    @relay
    def note(message: dict[str, Any], position: Position) -> Any:
        return {"n": message["n"], "position": position}


def rooms(*aliases: str) -> list[Any]:
    """Return a room for the layer of each alias, as on so many servers: one with a handler, the next with a relay."""
    kinds: list[type[Room]] = [Room, RelayedRoom]
    return [
        type(f"RoomOf{alias.title()}", (kinds[n % 2],), {"channel_layer_alias": alias})
        for n, alias in enumerate(aliases)
    ]


class Wanderer:
    """One client over all its connections. ``heard``: numbers in the order they came, and LOST where it was told so."""

    def __init__(self, servers: Sequence[Any], chance: random.Random, stays_s: float, away_s: float) -> None:
        self.servers = servers
        self.chance = chance
        self.stays_s = stays_s
        self.away_s = away_s
        self.calm = False
        self.heard: list[int] = []
        self.position: Position | None = None
        self.comebacks = 0
        self.last = 0
        self.client: Client | None = None

    def __repr__(self) -> str:
        return f"<Wanderer at {self.position}, {self.comebacks} comebacks>"

    async def wander(self) -> None:
        """Be a client, until cancelled."""
        while True:
            room = self.chance.choice(self.servers)
            client = Client(room.as_asgi(), {"since": self.position, "room": room}, raises_when_gone=True)
            client.start()
            self.client = client
            try:
                told = await self.listen(client) and self.chance.random() < 0.5
                if not told:
                    await self.pause()
                client.vanish()
                with suppress(EngineUnavailable):  # its layer was closed
                    await client.ended()
            finally:
                client.task.cancel()
            if told:
                await self.pause()

    async def lose_server(self, alias: str) -> None:
        """Lose the connection where it is to that server, which goes."""
        client = self.client
        if client is not None and not client.gone and client.scope["room"].channel_layer_alias == alias:
            await client._send({"type": "websocket.close", "code": 1012})

    async def pause(self) -> None:
        """Be away."""
        await asyncio.sleep(self.away_s * self.chance.uniform(0.5, 1.5))

    async def listen(self, client: Client) -> bool:
        """Take what comes until the network goes, or for ever when it is calm; False: the server has closed."""
        client.put({"type": "websocket.connect"})
        until_s = asyncio.get_running_loop().time() + self.stays_s * self.chance.uniform(0.2, 1.8)
        while True:
            try:
                async with asyncio.timeout_at(None if self.calm else until_s):
                    event = await client.next(FOR_EVER_S)
            except TimeoutError:
                if not self.calm:
                    return True
                continue
            if event["type"] == "websocket.close":
                return False
            if event["type"] == "websocket.send":
                self.hear(json.loads(event["text"]))

    def hear(self, event: dict[str, Any]) -> None:
        """Take one event."""
        if event["position"] is not None:
            self.position = Position(*event["position"])
        if "n" in event:
            self.heard.append(event["n"])
            self.last = max(self.last, event["n"])
        elif event["recovered"] is False:
            self.heard.append(LOST)
        elif event["recovered"]:
            self.comebacks += 1


def account(heard: Sequence[int], count: int) -> list[str]:
    """Return what is wrong with what a client heard of the numbers 1 to ``count``, one sentence for each place."""
    complaints, last, told = [], 0, False
    for n in [*heard, count + 1]:
        if n == LOST:
            told = True
            continue
        if n <= last:
            complaints.append(f"{n} came after {last}")
        elif n > last + 1 and not told:
            complaints.append(f"{last + 1} to {n - 1} are missing, and nobody said so")
        last, told = max(n, last), False
    return complaints


class Publisher:
    """Sends numbers at a pace, each until the layer has taken it: under one key, however often that takes."""

    def __init__(self, layer: RedisChannelLayer, pause_s: float) -> None:
        self.layer = layer
        self.pause_s = pause_s
        self.sent = 0
        self.resent = 0
        self.ends = False

    async def send(self, count: int | None = None) -> None:
        """Send so many, or until it is told to end."""
        while not self.ends and self.sent != count:
            await self.send_one()
            await asyncio.sleep(self.pause_s)

    async def send_one(self) -> None:
        """Send the next."""
        n = self.sent + 1
        while True:
            try:
                await self.layer.group_send(GROUP, {"type": "note", "n": n}, idempotency_key=f"note {n}")
            except EngineUnavailable:
                self.resent += 1
                await asyncio.sleep(0.05)
            else:
                self.sent = n
                return


@asynccontextmanager
async def wandering(wanderers: Sequence[Wanderer]) -> AsyncIterator[None]:
    """Have clients come and go for a while; begins when all are in."""
    tasks = [asyncio.create_task(wanderer.wander()) for wanderer in wanderers]
    try:
        await until(lambda: all(wanderer.position for wanderer in wanderers))
        yield
    finally:
        for task in tasks:
            task.cancel()
        for ended in await asyncio.gather(*tasks, return_exceptions=True):
            if isinstance(ended, Exception):
                raise ended


async def replace_server(alias: str, layer: RedisChannelLayer, wanderers: Sequence[Wanderer]) -> None:
    """Let the server process with the layer of an alias go, and another take its place."""
    leaving = channel_layers.set(alias, layer)
    for wanderer in wanderers:
        await wanderer.lose_server(alias)
    await leaving.close()


async def all_heard(wanderers: Sequence[Wanderer], last: int, limit_s: float = 60.0) -> None:
    """Wait until the network is calm and all have heard the last number, or that it is gone; or say who has not."""
    for wanderer in wanderers:
        wanderer.calm = True

    def waiting() -> list[Wanderer]:
        return [each for each in wanderers if each.last < last and each.heard[-1:] != [LOST]]

    try:
        await until(lambda: not waiting(), limit_s)
    except TimeoutError:
        raise AssertionError(f"{len(waiting())} never heard {last}: {waiting()[:5]}") from None
