"""A group of N stock chat consumers in one process: memory of each while idle, then deliveries a second.

A delivery: the handler ran, encoded its own JSON, and ASGI ``send`` was called with the right text. The next message
leaves when the last member has sent the one before.
"""

from __future__ import annotations

import gc
import json
import time
from typing import Any

import sides
from members import Crowd

TEXT_BYTES = 80


class ChatConsumer(sides.AsyncWebsocketConsumer):
    """A chat room as in Channels' tutorial."""

    async def connect(self) -> None:
        """Join the room."""
        await self.channel_layer.group_add(sides.GROUP, self.channel_name)
        await self.accept()

    async def disconnect(self, code: int) -> None:
        """Leave the room."""
        await self.channel_layer.group_discard(sides.GROUP, self.channel_name)

    async def chat_message(self, event: dict[str, Any]) -> None:
        """Send a message of the room to the client."""
        await self.send(text_data=json.dumps({"message": event["message"]}))


def script(length: int) -> list[tuple[dict[str, str], str]]:
    """Return messages for the group, each different, with the JSON that every member must send.

    Made before the clock starts: preparing them is no part of a delivery.
    """
    texts = [f"{number:06d} ".ljust(TEXT_BYTES, "x") for number in range(length)]
    return [({"type": "chat.message", "message": text}, json.dumps({"message": text})) for text in texts]


async def fanout(report: sides.Report, members: int, seconds: float, sends_min: int) -> None:
    """Open the group, then run a block at each word: of ``seconds``, and of at least ``sends_min`` messages."""
    layer: Any = sides.get_channel_layer()
    crowd = Crowd(ChatConsumer.as_asgi())
    lines = script(64)

    # The first members fill what the imports left free in the heap, so that the others show in the process's size.
    await crowd.open(max(1, members // 4))
    gc.collect()
    rss, began = sides.rss_bytes(), time.perf_counter()
    await crowd.open(members - len(crowd.members))
    gc.collect()
    figures = {}
    if members >= 1000:
        counted = members - members // 4
        figures["idle_bytes_per_consumer"] = (sides.rss_bytes() - rss) / counted
        figures["connect_us"] = (time.perf_counter() - began) / counted * 1e6

    crowd.watch()
    await crowd.verify(lines[0][1], lambda: layer.group_send(sides.GROUP, lines[0][0]))
    total = 1
    while report(figures):
        sends, cpu, began = 0, time.process_time(), time.perf_counter()
        while True:
            message, expected = lines[sends % len(lines)]
            done = crowd.begin(expected)
            await layer.group_send(sides.GROUP, message)
            await done
            sends += 1
            spent = time.perf_counter() - began
            if spent >= seconds and sends >= sends_min:
                break
        cpu = time.process_time() - cpu
        total += sends
        figures = {
            "deliveries_per_s": sends * members / spent,
            "cpu_us_per_delivery": cpu / (sends * members) * 1e6,
            "busy": cpu / spent,
        }
    crowd.check([total] * members)
    await crowd.close()


if __name__ == "__main__":
    sides.main(fanout)
