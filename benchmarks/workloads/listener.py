"""The member that synchronous code sends to: a process of its own, on the server's core, and how the sender asks it.

For a layer it is one stock chat consumer in the group, on uvloop as in a server; for redis-py alone a plain socket that has
subscribed and reads.
"""

from __future__ import annotations

import asyncio
import json
import os
import selectors
import socket
import subprocess
import sys
import time
from typing import Any

import sides
from fanout import ChatConsumer
from members import Crowd

__all__ = ["Listener"]

SETTLE_S = 20.0
_ENDLESS = 10**15


class Listener:
    """The member's process, seen from the sender. ``channel``: what a plain subscriber listens to; None: a consumer."""

    def __init__(self, channel: str | None = None) -> None:
        core = sides.PARAMETERS.get("server_core")
        self.process = subprocess.Popen(
            [
                sys.executable,
                __file__,
                sides.SIDE,
                json.dumps({**sides.PARAMETERS, "loop": "uvloop", "channel": channel}),
            ],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            text=True,
            preexec_fn=None if core is None else lambda: os.sched_setaffinity(0, {core}),  # noqa: PLW1509  # no threads yet
        )
        self.answer()

    def answer(self) -> tuple[int, int]:
        """Read (messages sent on to the client, messages dropped), both so far."""
        assert self.process.stdout is not None
        line = self.process.stdout.readline()
        if not line:
            raise AssertionError(f"the member's process ended with {self.process.wait()}")
        delivered, dropped = line.split()
        return int(delivered), int(dropped)

    def settle(self, sent: int, refused: int) -> int:
        """Wait until every message is accounted for, and return how many were dropped.

        ``sent``: all that was sent so far; ``refused``: of them, what the sender's layer says that it dropped itself.
        """
        assert self.process.stdin is not None
        deadline = time.monotonic() + SETTLE_S
        while True:
            self.process.stdin.write("?\n")
            self.process.stdin.flush()
            delivered, dropped = self.answer()
            if delivered + dropped + refused == sent:
                return dropped + refused
            if delivered + dropped + refused > sent or time.monotonic() > deadline:
                raise AssertionError(f"sent {sent}; delivered {delivered}, dropped {dropped}, refused {refused}")
            time.sleep(0.01)

    def end(self) -> None:
        """Let it end."""
        assert self.process.stdin is not None
        self.process.stdin.close()
        if self.process.wait():
            raise AssertionError("the member's process found something wrong")


def say(delivered: int, dropped: int) -> None:
    """Answer the sender."""
    sys.stdout.write(f"{delivered} {dropped}\n")
    sys.stdout.flush()


async def consumer() -> None:
    """Be one consumer of the group, and answer each line on stdin until it ends."""
    layer: Any = sides.get_channel_layer()
    crowd = Crowd(ChatConsumer.as_asgi())
    await crowd.open(1)
    done = crowd.begin(json.dumps({"message": sides.message(0)["message"]}), _ENDLESS)
    ended = asyncio.get_running_loop().create_future()

    def asked() -> None:
        if os.read(0, 4096):
            say(crowd.members[0].sent, sides.dropped(layer))
        elif not ended.done():
            ended.set_result(None)

    asyncio.get_running_loop().add_reader(0, asked)
    say(0, 0)
    await asyncio.wait((ended, done), return_when=asyncio.FIRST_COMPLETED)
    if done.done():
        done.result()  # an event that was none of ours
    await crowd.close()


def subscriber(server: str, channel: str) -> None:
    """Be a plain subscriber that reads what comes; all messages have the same length."""
    body = sides.encoded(sides.message(0))
    size = len(b"*3\r\n$7\r\nmessage\r\n" + bulk(channel.encode()) + bulk(body))
    confirmed = len(b"*3\r\n$9\r\nsubscribe\r\n" + bulk(channel.encode()) + b":1\r\n")
    read = -confirmed
    with socket.socket(socket.AF_UNIX) as link, selectors.DefaultSelector() as ready:
        link.connect(server)
        link.sendall(f"SUBSCRIBE {channel}\r\n".encode())
        while read < 0:
            read += len(link.recv(-read))
        ready.register(link, selectors.EVENT_READ)
        ready.register(0, selectors.EVENT_READ)
        say(0, 0)
        while True:
            for key, _ in ready.select():
                if key.fileobj == 0:
                    if not os.read(0, 4096):
                        return
                    say(read // size, 0)
                else:
                    received = len(link.recv(65536))
                    if not received:
                        raise AssertionError("the server hung up")
                    read += received


def bulk(value: bytes) -> bytes:
    """Return a string as the server writes it."""
    return b"$%d\r\n%s\r\n" % (len(value), value)


async def main(report: sides.Report, server: str, channel: str | None, **_: Any) -> None:
    """Be what the sender asked for."""
    if channel is None:
        await consumer()
    else:
        subscriber(server, channel)


if __name__ == "__main__":
    sides.main(main)
