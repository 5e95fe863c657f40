"""The publisher of the jitter test: numbered messages at a pace, each until the layer has taken it.

``python recovery_publisher.py <parameters as JSON>``: ``side``, ``server_socket``, ``messages``, ``per_s``. Begins when
stdin has a line; then one line of JSON on stdout for each message: its number and its position in the log.
"""

from __future__ import annotations

import asyncio
import json
import sys
import time
from typing import Any

import recovery_room

# Between two tries of one message, and for how long.
PAUSE_S = 0.05
PATIENCE_S = 30.0


async def publish(side: str, messages: int, per_s: float) -> None:
    """Send the messages, one after the other: what follows one that has to wait waits, too."""
    refused: type[Exception]
    if side == "antiphon":
        from antiphon.exceptions import EngineUnavailable
        from antiphon.layers import get_channel_layer

        refused = EngineUnavailable
    else:
        from channels.layers import get_channel_layer
        from redis.exceptions import ConnectionError as Disconnected

        refused = Disconnected
    layer: Any = get_channel_layer()
    began = time.monotonic()
    for number in range(1, messages + 1):
        due = began + (number - 1) / per_s
        await asyncio.sleep(max(0.0, due - time.monotonic()))
        message = {"type": "room.message", "n": number, "sent_s": time.monotonic()}
        key = {"idempotency_key": f"message {number}"} if side == "antiphon" else {}
        for _ in range(int(PATIENCE_S / PAUSE_S)):
            try:
                receipt = await layer.group_send(recovery_room.GROUP, message, **key)
            except (refused, OSError):
                await asyncio.sleep(PAUSE_S)
            else:
                break
        else:
            raise SystemExit(f"message {number} was not taken within {PATIENCE_S:g} s")
        position = list(receipt.position) if side == "antiphon" else None
        print(json.dumps([number, position]), flush=True)


def main() -> None:
    """Publish what the command line says, once told to."""
    parameters = json.loads(sys.argv[1])
    recovery_room.configure(parameters["side"], parameters.pop("server_socket"))
    sys.stdin.readline()
    asyncio.run(publish(**parameters))


if __name__ == "__main__":
    main()
