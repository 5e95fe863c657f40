"""Clients that are cut and come back, while messages and logs are lost: nothing is missing or twice without a word."""

from __future__ import annotations

import json
import os
import random
import time
from typing import Any

import pytest

from antiphon.engines.memory.history import MemoryLogs
from antiphon.layer.hub import Hub
from antiphon.layers import InMemoryChannelLayer
from antiphon.types import Arrival, Page, Position
from tests.consumers.client import until
from tests.subscriptions.speaking import Speaker, speaker

LIVES = int(os.environ.get("SUBSCRIPTION_LIVES", "12"))


class Official:
    """What the official clients do with what they are told: remember the position, present it, resubscribe at 2500."""

    def __init__(self) -> None:
        self.epoch, self.offset, self.recover = "", 0, False
        self.seen: list[int] = []
        self.told: list[int] = []  # where in ``seen`` something may be missing
        self.speaker: Speaker | None = None
        self.on = False  # subscribed
        self.ids: dict[int, str] = {}

    def say(self, method: str, **fields: Any) -> str:
        assert self.speaker is not None
        text = self.speaker.command(method, **fields)
        self.ids[self.speaker.number] = method
        return text

    def subscribe(self) -> str:
        since = {"recover": True, "epoch": self.epoch, "offset": self.offset} if self.recover else {}
        return self.say("subscribe", channel="log", **since)

    def come(self) -> None:
        self.speaker = speaker()
        self.speaker.start()
        self.ids.clear()
        self.speaker.put({"type": "websocket.connect"})
        self.speaker.text(self.say("connect") + "\n" + self.subscribe())

    async def go(self) -> None:
        assert self.speaker is not None
        self.hear()
        self.speaker.vanish()
        await self.speaker.ended()
        self.speaker, self.on = None, False

    def again(self) -> None:
        assert self.speaker is not None
        if self.on:
            self.on = False
            self.speaker.text(self.say("unsubscribe", channel="log") + "\n" + self.subscribe())

    def hear(self) -> None:
        """Take what has come."""
        assert self.speaker is not None
        texts, self.speaker.events[1:] = self.speaker.texts, []
        for text in texts:
            for line in text.split("\n"):
                self.take(json.loads(line))

    def take(self, line: dict[str, Any]) -> None:
        assert "error" not in line, line
        if "id" in line:
            result = line.get("subscribe")
            if result is not None:
                self.subscribed(result)
            return
        push = line["push"]
        if "pub" in push:
            if self.on:  # else it was sent before the client had left
                self.publication(push["pub"])
        elif self.on:
            assert push["unsubscribe"]["code"] == 2500
            self.on = False
            assert self.speaker is not None
            self.speaker.text(self.subscribe())

    def subscribed(self, result: dict[str, Any]) -> None:
        assert not self.on
        self.on = True
        if not result.get("recovered"):  # or it is new here
            self.told.append(len(self.seen))
        self.epoch, self.offset, self.recover = result["epoch"], result["offset"], True
        for publication in result.get("publications", ()):
            self.publication(publication)

    def publication(self, publication: dict[str, Any]) -> None:
        self.offset = publication["offset"]
        self.seen.append(publication["data"])

    def check(self, sent: int) -> None:
        """See that what was seen has no gap but where it was told, ends with the last, and repeats nothing."""
        for at, (one, next_) in enumerate(zip(self.seen, self.seen[1:], strict=False), start=1):
            assert next_ > one, self.seen
            assert next_ == one + 1 or at in self.told, (self.seen, self.told)
        assert not self.seen or self.seen[-1] == sent or len(self.seen) in self.told


async def life(layer: InMemoryChannelLayer, rng: random.Random, faults: dict[str, Any]) -> None:
    clients, sent = [Official() for _ in range(3)], 0

    async def publish(count: int) -> None:
        nonlocal sent
        for _ in range(count):
            sent += 1
            await layer.group_send("log", {"type": "publication", "data": sent})

    for client in clients:
        client.come()
    for _ in range(60):
        client = rng.choice(clients)
        action = rng.random()
        if action < 0.4:
            await publish(rng.choice([1, 1, 2, 5, 60]))
        elif action < 0.6:
            if client.speaker is None:
                client.come()
            else:
                await client.go()
        elif action < 0.7 and client.speaker is not None:
            client.hear()
            client.again()
        elif action < 0.8 and client.speaker is not None:
            client.hear()
        elif action < 0.9:
            faults["loses"] = rng.randrange(3)
        elif action < 0.93:
            layer._bus.forget_logs()
            faults["earlier"].clear()
        elif action < 0.97 and "g:log" in layer._bus._logs._logs:
            log = layer._bus._logs._logs["g:log"]
            faults["earlier"][log.epoch] = log.top
            log.epoch = f"e{rng.randrange(1 << 30)}"
    faults["loses"] = 0
    for client in clients:
        if client.speaker is None:
            client.come()
    await publish(1)  # after a loss, what comes next shows it
    for client in clients:

        def level(client: Official = client) -> bool:
            client.hear()
            return client.on and (client.seen[-1:] == [sent] or len(client.seen) in client.told)

        await until(level)
        await client.go()
        client.check(sent)
    await until(lambda: layer.stats()["groups"] == 0)


async def test_every_publication_comes_once_and_in_order_or_its_loss_is_told(
    layer: InMemoryChannelLayer, monkeypatch: pytest.MonkeyPatch
) -> None:
    faults: dict[str, Any] = {"loses": 0, "earlier": {}}
    read, deliver = MemoryLogs.read, Hub.deliver

    def reading(logs: Any, topic: str, since: Position | None, limit: int, *, reverse: bool) -> Page:
        top = logs.top(topic)
        if since is not None and since.offset <= min(faults["earlier"].get(since.epoch, -1), top.offset):
            since = Position(top.epoch, since.offset)
        return read(logs, topic, since, limit, reverse=reverse)

    def delivering(hub: Hub, arrivals: tuple[Arrival, ...]) -> None:
        if faults["loses"] and arrivals[0].position is not None:
            faults["loses"] -= 1
        else:
            deliver(hub, arrivals)

    monkeypatch.setattr(MemoryLogs, "read", reading)
    monkeypatch.setattr(Hub, "deliver", delivering)
    seed = int(os.environ.get("FUZZ_SEED", time.time_ns()))
    for n in range(LIVES):
        print(f"FUZZ_SEED={seed + n}")
        await life(layer, random.Random(seed + n), faults)
        layer._bus.forget_logs()
        faults["earlier"].clear()
