"""A memory engine behind a wire that loses, delays, repeats and breaks, and clients that keep the books."""

from __future__ import annotations

import asyncio
from collections.abc import Sequence
from typing import Any

from antiphon.codec import encode
from antiphon.engines.memory import MemoryBus, MemoryEngine
from antiphon.envelope import MESSAGE, pack
from antiphon.exceptions import EngineUnavailable
from antiphon.layer.drops import Drops
from antiphon.layer.logs import Logs
from antiphon.layer.mailbox import Mailbox
from antiphon.layer.node import Node
from antiphon.types import Arrival, Keep, Page, Position

TOPIC = "g:room"


class WireEngine(MemoryEngine):
    """``delays``: what is under way waits. ``loses``: so many of the next arrivals never come. ``fails``: so many calls."""

    def __init__(self, bus: MemoryBus) -> None:
        super().__init__(bus)
        self.delays = False
        self.loses = self.fails = 0
        self.under_way: list[Arrival] = []
        self.missed = False

    def _drain(self) -> None:
        self._scheduled = False
        while self._inbox:
            arrival = self._inbox.popleft()
            if self.loses:
                self.loses -= 1
                self.missed = True
            else:
                self.under_way.append(arrival)
        if not self.delays:
            self.let_through()

    def let_through(self, count: int = 1 << 30) -> None:
        """Deliver what is under way."""
        for _ in range(min(count, len(self.under_way))):
            assert self._sink is not None
            self._sink.deliver((self.under_way.pop(0),))

    def break_link(self) -> None:
        """Lose all that is under way, and say so, as a link does once it is back."""
        self.under_way.clear()
        assert self._sink is not None
        self._sink.lost((TOPIC,), "the link broke", 0.0)

    def repeat(self) -> None:
        """Deliver what is under way twice."""
        self.under_way = [arrival for arrival in self.under_way for _ in range(2)]

    async def _answer(self) -> None:
        await asyncio.sleep(0.001)
        if self.fails:
            self.fails -= 1
            raise EngineUnavailable("it is away")

    async def read(self, topic: str, since: Position | None, limit: int, *, reverse: bool = False) -> Page:
        await self._answer()
        page = await super().read(topic, since, min(limit, 3), reverse=reverse)  # small pages: several a read
        await self._late()
        return page

    async def tops(self, topics: Sequence[str]) -> list[Position]:
        await self._answer()
        tops = await super().tops(topics)
        await self._late()
        return tops

    async def _late(self) -> None:
        await asyncio.sleep(0.001)


class Room:
    """One node, one topic with a log, and what was sent to it."""

    def __init__(self, size: int) -> None:
        loop = asyncio.get_running_loop()
        self.keep = Keep(size, 1e9)
        self.bus = MemoryBus("test")
        self.engine = WireEngine(self.bus)
        self.node = Node(loop, self.engine, Drops(), 60.0)
        self.node.hub.logs = Logs(self.node.hub, self.engine, lambda topic: self.keep if topic == TOPIC else None)
        self.engine.attach(self.node.hub, loop)
        self.sent = 0
        self.clients: list[Client] = []

    @property
    def logs(self) -> Logs:
        assert self.node.hub.logs is not None
        return self.node.hub.logs

    def send(self, **extra: Any) -> None:
        """Append one message, numbered."""
        self.sent += 1
        payload = pack(MESSAGE, 1, self.sent, 0, encode({"type": "t", "n": self.sent}), extra or None)
        self.engine.append(TOPIC, payload, self.keep)


class Client:
    """Somebody in the room: ``told`` that something may be missing, or must have every message once, in order."""

    def __init__(self, room: Room) -> None:
        self.room = room
        self.position: Position | None = None
        self.mailbox: Mailbox | None = None
        self.last: int | None = None  # the number of the last message seen
        self.told = True
        self.seen: list[int] = []
        self.joining: asyncio.Task[None] | None = None
        room.clients.append(self)

    def connect(self) -> None:
        """Come, with the position that it has, if any."""
        if self.mailbox is None and self.joining is None:
            self.joining = asyncio.get_running_loop().create_task(self._join())
            self.joining.add_done_callback(self._joined)

    def _joined(self, task: asyncio.Task[None]) -> None:
        if self.joining is task:
            self.joining = None
        if not task.cancelled():
            task.result()

    async def _join(self) -> None:
        node = self.room.node
        mailbox = Mailbox(node.channel_name("test."), node.loop, capacity=1 << 20, owner="Client")
        mailbox.wants = frozenset(("group.lost",))
        node.open(mailbox)
        try:
            if self.position is None:
                await node.join(TOPIC, mailbox)
                self.told, self.position = True, node.position(TOPIC)
            else:
                found = await node.recover(TOPIC, mailbox, self.position)
                node.hub.replay(mailbox, found.envelopes)
                if not found.recovered:
                    assert not found.envelopes
                    self.told, self.position = True, found.position
                elif not found.envelopes:
                    self.position = found.position
            self.mailbox = mailbox
        except EngineUnavailable:
            node.close(mailbox)
        except asyncio.CancelledError:
            node.close(mailbox)
            raise

    def drop(self) -> None:
        """Go, without a word; what it was sent and has not read is lost on the way."""
        if self.joining is not None:
            self.joining.cancel()
            self.joining = None
        if self.mailbox is not None:
            self.room.node.close(self.mailbox)
            self.mailbox = None

    def read(self) -> None:
        """Read all that waits, and check it."""
        queue = self.mailbox.queue if self.mailbox is not None else []
        while queue:
            envelope = queue.pop(0)
            message = envelope.message()
            if message["type"] == "group.lost":
                self.told = True
                self.position = Position(*message["top"]) if message["top"] else self.position
                continue
            number = message["n"]
            assert number not in self.seen, f"{number} came twice: {self.seen}"
            assert not self.seen or number > self.seen[-1], f"{number} after {self.seen}"
            if not self.told:
                assert self.last is None or number == self.last + 1, f"{number} after {self.last}, and nobody was told"
            self.seen.append(number)
            self.told, self.last, self.position = False, number, envelope.position
