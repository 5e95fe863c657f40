"""Hand-made connections: what a server would be, down to a scope, ``receive`` and ``send``. Knows no side.

Every event that a consumer sends is looked at. A ``Round`` is one message on its way to all members; it is over when
the last of them has sent the right text.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Sequence
from typing import Any

__all__ = ["Crowd", "Member"]

Event = dict[str, Any]
HEADERS = [(b"host", b"localhost"), (b"origin", b"http://localhost")]
# A round in which for so long nobody sent anything has lost what is missing.
STALLED_S = 30.0


class Crowd:
    """All members of a run, and the round they are in: ``expected`` text, ``left`` to send it, ``done``."""

    def __init__(self, app: Any) -> None:
        self.app = app
        self.loop = asyncio.get_running_loop()
        self.members: list[Member] = []
        self.expected = ""
        self.left = 0
        self.done: asyncio.Future[None] = self.loop.create_future()
        self.keep: list[str] | None = None

    async def open(self, count: int) -> None:
        """Connect ``count`` more members, 32 at a time, and wait until each was accepted and is idle."""
        for start in range(0, count, 32):
            newcomers = [Member(self) for _ in range(min(32, count - start))]
            self.members += newcomers
            await asyncio.gather(*(member.accepted for member in newcomers))
            for member in newcomers:
                del member.accepted
        for _ in range(10):  # whatever follows the acceptance, up to the wait for the next event
            await asyncio.sleep(0.001)

    def begin(self, expected: str, times: int = 1) -> asyncio.Future[None]:
        """Begin a round; the future is done when every member has sent ``expected``, so many times."""
        self.expected = expected
        self.left = len(self.members) * times
        done = self.done = self.loop.create_future()
        return done

    def watch(self) -> None:
        """From now on, stop the run when a round stalls: a lost message ends it and says who misses one."""
        self.look(self.done, 0)

    def look(self, done: asyncio.Future[None], left: int) -> None:
        """Compare with the look before. A timer of the crowd, not of the round: that would count as the consumers' cost."""
        if left and self.done is done and not done.done() and self.left == left:
            counts = [member.sent for member in self.members]
            behind = [number for number, count in enumerate(counts) if count < max(counts)] or range(len(counts))
            text = f"{left} messages lost: nothing in {STALLED_S:g} s; behind are members {list(behind)[:5]}"
            done.set_exception(AssertionError(text))
        else:
            self.loop.call_later(STALLED_S, self.look, self.done, self.left)

    async def verify(self, expected: str, send: Callable[[], Any]) -> None:
        """Run one round with every text kept: each must be an object of its own, encoded for that member alone."""
        before = [member.sent for member in self.members]
        kept = self.keep = []
        done = self.begin(expected)
        await send()
        await done
        self.keep = None
        if len({id(text) for text in kept}) != len(self.members):
            raise AssertionError(f"{len(self.members)} members sent {len({id(text) for text in kept})} encoded texts")
        self.check([count + 1 for count in before])

    def check(self, counts: Sequence[int]) -> None:
        """Raise unless each member has sent as many messages as ``counts`` says."""
        wrong = [(i, member.sent) for i, member in enumerate(self.members) if member.sent != counts[i]]
        if wrong:
            raise AssertionError(f"(member, messages sent) differ from what was sent to the group: {wrong[:5]}")

    async def close(self) -> None:
        """Disconnect every member and wait for the applications to end."""
        for member in self.members:
            member.gone.set_result(None)
        await asyncio.gather(*(member.task for member in self.members))


class Member:
    """One connection."""

    __slots__ = ("accepted", "connecting", "crowd", "gone", "sent", "task")

    def __init__(self, crowd: Crowd) -> None:
        self.crowd = crowd
        self.sent = 0
        self.connecting = True
        self.accepted: asyncio.Future[None] = crowd.loop.create_future()
        self.gone: asyncio.Future[None] = crowd.loop.create_future()
        scope = {"type": "websocket", "path": "/ws/chat/lobby/", "headers": HEADERS, "subprotocols": []}
        self.task = crowd.loop.create_task(crowd.app(scope, self.receive, self.send))
        self.task.add_done_callback(self.ended)

    def ended(self, task: asyncio.Task[None]) -> None:
        """Stop the run when an application ends before its client does."""
        if self.gone.done():
            return
        for waiting in (getattr(self, "accepted", self.crowd.done), self.crowd.done):
            if not waiting.done():
                waiting.set_exception(task.exception() or AssertionError("an application ended by itself"))

    async def receive(self) -> Event:
        """Return the next event of a client that connects, listens, and goes when it is told to."""
        if self.connecting:
            self.connecting = False
            return {"type": "websocket.connect"}
        await self.gone
        return {"type": "websocket.disconnect", "code": 1000}

    async def send(self, event: Event) -> None:
        """Take an event as a server does, and look at it."""
        # Kept short: what this costs counts as the consumer's, on both sides.
        crowd = self.crowd
        if event.get("text") == crowd.expected:
            self.sent += 1
            crowd.left -= 1
            if not crowd.left:
                crowd.done.set_result(None)
            if crowd.keep is not None:
                crowd.keep.append(event["text"])
        elif event["type"] == "websocket.accept":
            self.accepted.set_result(None)
        elif not self.gone.done():
            crowd.done.set_exception(AssertionError(f"expected {crowd.expected!r}; got {event!r}"))
