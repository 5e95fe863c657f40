"""``join(group, since=…)`` of a consumer that missed a hundred messages: how long it takes, one join at a time.

``beside``: somebody on this node is in each group already; else each join is the first, and subscribes. What is measured
is from the call to its result, in the consumer. Then each message must reach the handler, in order.
"""

from __future__ import annotations

import asyncio
import time
from typing import Any

import sides
from members import HEADERS

MISSED = 100
GROUPS = 100
# So often each group is joined in a block.
TURNS = 3


class Reader(sides.AsyncWebsocketConsumer):
    """Joins the group that it is told to, and leaves it when it has had everything that it missed."""

    async def receive(self, text_data: Any = None, bytes_data: Any = None) -> None:
        """Join."""
        group, epoch, offset = text_data.split()
        since: Any = (epoch, int(offset))
        self.got: list[str] = []
        began = time.perf_counter()
        result = await self.join(group, since=since)
        self.scope["took_ms"].append((time.perf_counter() - began) * 1000)
        if not result.recovered or result.count != MISSED:
            raise AssertionError(f"expected {MISSED} messages recovered; got {result}")
        self.group = group

    async def chat_message(self, event: Any) -> None:
        """Count one."""
        self.got.append(event["message"])
        if len(self.got) == MISSED:
            if self.got != [sides.message(number)["message"] for number in range(1, MISSED + 1)]:
                raise AssertionError(f"out of order: {self.got}")
            await self.leave(self.group)
            await self.send(text_data="done")


class Guest(sides.AsyncWebsocketConsumer):
    """Is in every group, so that this node follows it."""

    async def connect(self) -> None:
        """Join them all."""
        for number in range(GROUPS):
            await self.join(f"bench_{number}")
        await self.accept()

    async def chat_message(self, event: Any) -> None:
        """Take what comes."""


class Connection:
    """A hand-made connection of a consumer, without a server."""

    def __init__(self, consumer: Any) -> None:
        self.events: asyncio.Queue[Any] = asyncio.Queue()
        self.events.put_nowait({"type": "websocket.connect"})
        self.answer: asyncio.Future[None] = asyncio.get_running_loop().create_future()
        self.took_ms: list[float] = []
        scope = {"type": "websocket", "path": "/", "headers": HEADERS, "subprotocols": [], "took_ms": self.took_ms}
        self.task = asyncio.ensure_future(consumer.as_asgi()(scope, self.events.get, self.send))

    async def send(self, event: Any) -> None:
        """Take what a server is sent: the acceptance, and then one text for each question."""
        self.answer.set_result(None)

    async def answered(self) -> None:
        """Wait for it; what ends the consumer ends the run."""
        await asyncio.wait((self.answer, self.task), return_when=asyncio.FIRST_COMPLETED)
        if self.task.done():
            raise AssertionError("the consumer ended") from self.task.exception()
        self.answer = asyncio.get_running_loop().create_future()

    async def ask(self, text: str) -> None:
        """Send a text and wait until it is done."""
        self.events.put_nowait({"type": "websocket.receive", "text": text})
        await self.answered()


async def history_join(report: sides.Report, server: str, beside: bool) -> None:
    """Fill the groups; at each word, join each of them some times."""
    layer: Any = sides.get_channel_layer()
    asked = []
    for number in range(GROUPS):
        group = f"bench_{number}"
        first = (await layer.group_send(group, sides.message(0))).position
        await asyncio.gather(*(layer.group_send(group, sides.message(each)) for each in range(1, MISSED + 1)))
        asked.append(f"{group} {first.epoch} {first.offset}")
    if beside:
        guest = Connection(Guest)
        await guest.answered()
    reader = Connection(Reader)
    await reader.answered()
    figures: dict[str, float] = {}
    while report(figures):
        reader.took_ms.clear()
        for _ in range(TURNS):
            for text in asked:
                await reader.ask(text)
        took = sorted(reader.took_ms)
        figures = {
            "join_p50_ms": took[len(took) // 2],
            "join_p99_ms": took[len(took) * 99 // 100],
            "max_ms": took[-1],
        }


if __name__ == "__main__":
    sides.main(history_join)
