"""``Desk``: one worker channel, as the readers of one node stand before it. Knows no other queue and no layer.

Readers of a node take turns. One of its tasks asks the server on behalf of all of them, and what it brings goes to the
first in line: a reader that is cancelled meanwhile takes nothing along, and what was meant for it goes to the next
reader, or back. When the queue is empty the node has itself woken; and because a wake-up may be lost with a
connection, it looks again every few seconds anyway.
"""

from __future__ import annotations

import asyncio
import logging
import random
from collections import deque
from collections.abc import Callable, Iterable, Sequence
from time import monotonic
from typing import Any, Protocol

from ...exceptions import EngineUnavailable
from ...names import DEAD
from ..base import Leased
from .keys import Keys
from .scripts import ACK, LEASE, NUDGE, PARTS, PUT, RELEASE, RENEW, Script

__all__ = ["Desk", "Rules", "ScriptRunner"]

logger = logging.getLogger("antiphon.engine")

# Messages that one call may bring, and the time to the next look at an empty queue.
BATCH = 32
POLL_S = (1.0, 2.0)
# After a failed call: the link knows best when to try again, this only keeps us from spinning.
RETRY_S = (0.1, 0.4)
# A reader that is cancelled while a call is under way waits so long for its end: what it brings would lie about else.
SETTLE_S = 0.3
# A desk without readers keeps its subscription so long; longer than the server takes it for a waiting node.
LINGER_S = 6.0
LOG_INTERVAL_S = 10.0


class ScriptRunner(Protocol):
    """What worker channels need of a node's engine."""

    node: str
    on_up: list[Callable[[], None]]

    async def script(self, script: Script, key: bytes, keys: Sequence[bytes], args: Sequence[bytes | str | int]) -> Any:
        """Run a script where ``key`` lives. Raises EngineUnavailable."""

    async def listen(self, channel: bytes, callback: Callable[[bytes], None]) -> None:
        """Subscribe to a raw channel, also across reconnections. Raises EngineUnavailable."""

    def unlisten(self, channel: bytes) -> None:
        """End that."""


class Rules(Protocol):
    """What all worker channels of a node share: see ``RedisQueues``."""

    engine: ScriptRunner
    keys: Keys
    publish: str
    lease_s: float
    max_deliveries: int
    dead_capacity: int
    dead_expiry_s: float

    def dropped(self, reason: str, queue: str, count: int) -> None:
        """Account for messages that nobody gets."""


class Desk:
    """``held``: what this node has leased and not settled, token -> delivery count."""

    def __init__(self, rules: Rules, name: str) -> None:
        self.rules = rules
        self.name = name
        base = rules.keys.queue(name)
        self.key = base + PARTS[0]
        self._keys = [base + part for part in PARTS]
        self._dead_keys = [rules.keys.queue(name + DEAD) + part for part in PARTS]
        self._most = 0 if name.endswith(DEAD) else rules.max_deliveries
        self.held: dict[int, int] = {}
        self._readers: deque[asyncio.Future[Leased]] = deque()
        self._task: asyncio.Task[None] | None = None
        self._others: set[asyncio.Task[Any]] = set()
        self._calling = False
        self._stirred = asyncio.Event()
        self._listening = False
        self._acks: dict[int, asyncio.Future[None]] = {}
        self._late_acks: set[int] = set()
        self._acking: asyncio.Task[None] | None = None
        self._idle_since_s = monotonic()
        self._logged_s = 0.0
        self._closed = False

    def __repr__(self) -> str:
        return f"<Desk {self.name!r} {len(self._readers)} readers, {len(self.held)} leased>"

    @property
    def idle(self) -> bool:
        """Whether it may be forgotten."""
        quiet = not (self._readers or self._task or self._others or self.held or self._acks or self._late_acks)
        return quiet and monotonic() - self._idle_since_s > LINGER_S

    # Reading

    async def lease(self) -> Leased:
        """Wait for the first message and take it. Cancelling loses nothing."""
        if self._closed:
            raise EngineUnavailable(f"worker channel {self.name!r}: the layer was closed")
        reader: asyncio.Future[Leased] = asyncio.get_running_loop().create_future()
        self._readers.append(reader)
        if self._task is None:
            self._task = asyncio.ensure_future(self._serve())
            self._task.add_done_callback(self._served)
        try:
            return await reader
        except asyncio.CancelledError:
            if reader.done() and not reader.cancelled() and reader.exception() is None:
                self._pass_on([reader.result()])
            elif reader in self._readers:
                self._readers.remove(reader)
            if not self._readers:
                self._stirred.set()  # whoever asked on our behalf may go home
                under_way = [*self._others, *([self._task] if self._task is not None and self._calling else [])]
                if under_way:
                    await asyncio.wait(under_way, timeout=SETTLE_S)
            raise

    def stir(self, _: bytes = b"") -> None:
        """Look whether there is something to read: somebody says so, or a link has come back."""
        if self._readers:
            self._stirred.set()
        elif not self._closed:
            # Woken for a reader that has left: the next node must not wait for its next look.
            self._do(self._script(NUDGE, self._keys, [self.rules.publish]))

    async def _serve(self) -> None:
        while True:
            while self._readers and self._readers[0].done():
                self._readers.popleft()
            if not self._readers or self._closed:
                return
            self._stirred.clear()
            wanted = min(len(self._readers), BATCH)
            try:
                found, again = await self._fetch(wanted)
            except EngineUnavailable as exc:
                self._log(exc)
                await self._pause(RETRY_S)
                continue
            except Exception as exc:
                self._fail_readers(exc)
                return
            if found or again:
                self._pass_on(found)
            elif not self._listening:
                await self._listen()  # and look again at once: something may have come in between
            else:
                await self._pause(POLL_S)

    def _served(self, task: asyncio.Task[None]) -> None:
        self._task = None
        self._idle_since_s = monotonic()
        if task.cancelled():
            return
        exc = task.exception()
        if exc is not None:
            self._fail_readers(exc)
        elif self._readers and not self._closed:
            self._task = asyncio.ensure_future(self._serve())
            self._task.add_done_callback(self._served)

    async def _fetch(self, wanted: int) -> tuple[list[Leased], bool]:
        rules = self.rules
        self._calling = True
        try:
            reply = await self._script(
                LEASE,
                self._keys + self._dead_keys,
                [
                    rules.publish,
                    rules.engine.node,
                    wanted,
                    round(rules.lease_s * 1000),
                    self._most,
                    rules.dead_capacity,
                    round(rules.dead_expiry_s * 1000),
                    int(self._listening),
                ],
            )
        finally:
            self._calling = False
        expired, dead, gone, again = map(int, reply[:4])
        self._count(expired, dead, gone)
        found = []
        for token, count, expiry_ms, blob in zip(reply[4::4], reply[5::4], reply[6::4], reply[7::4], strict=True):
            end = 2 + int.from_bytes(blob[:2], "big")
            leased = Leased(
                blob[end:], int(token), int(count), blob[2:end].decode(errors="replace"), int(expiry_ms) / 1000
            )
            self.held[leased.token] = leased.delivery_count
            found.append(leased)
        return found, bool(again)

    async def _listen(self) -> None:
        try:
            await self.rules.engine.listen(self.rules.keys.wake(self.name, self.rules.engine.node), self.stir)
        except EngineUnavailable as exc:
            self._log(exc)
            await self._pause(RETRY_S)
        else:
            self._listening = True

    async def _pause(self, span_s: tuple[float, float]) -> None:
        try:
            async with asyncio.timeout(random.uniform(*span_s)):  # noqa: S311  # jitter
                await self._stirred.wait()
        except TimeoutError:
            pass

    def _pass_on(self, found: Sequence[Leased]) -> None:
        """Give each message to the reader that has waited longest; what nobody waits for goes back."""
        left = []
        for leased in found:
            reader = self._next_reader()
            if reader is None:
                left.append(leased.token)
            else:
                reader.set_result(leased)
        if left:
            self._do(self._release(left, unread=True))

    def _next_reader(self) -> asyncio.Future[Leased] | None:
        while self._readers:
            reader = self._readers.popleft()
            if not reader.done():
                return reader
        return None

    def _fail_readers(self, exc: BaseException) -> None:
        while (reader := self._next_reader()) is not None:
            reader.set_exception(exc)

    # Settling

    async def put(self, blob: bytes, capacity: int, expiry_s: float, undo: Leased | None = None) -> bool:
        """Append; False when it is full. ``undo``: a message that was acknowledged, to take its place again."""
        args: list[bytes | str | int] = [self.rules.publish, capacity, round(expiry_s * 1000), blob]
        if undo is not None:
            self._late_acks.discard(undo.token)
            self.held.pop(undo.token, None)
            args += [undo.token, undo.delivery_count]
        done, expired = await self._script(PUT, self._keys, args)
        self._count(int(expired), 0, 0)
        return bool(done)

    async def ack(self, token: int) -> None:
        """Settle a message; those of one turn of the loop travel together."""
        self.held.pop(token, None)
        self._idle_since_s = monotonic()
        done = self._acks.get(token)
        if done is None:
            done = self._acks[token] = asyncio.get_running_loop().create_future()
        if self._acking is None:
            self._acking = asyncio.ensure_future(self._send_acks())
        await asyncio.shield(done)

    async def _send_acks(self) -> None:
        try:
            while self._acks:
                acks, self._acks = self._acks, {}
                tokens = {*acks, *self._late_acks}
                try:
                    await self._script(ACK, self._keys, sorted(tokens))
                except BaseException as exc:
                    # Tried again with the next ones, or at the next tick: till then nobody else gets these messages.
                    self._late_acks |= tokens
                    for done in acks.values():
                        if not done.done():
                            done.set_exception(exc if isinstance(exc, Exception) else EngineUnavailable(repr(exc)))
                            done.exception()  # whoever acknowledged it may have been cancelled
                    if not isinstance(exc, Exception):
                        raise
                else:
                    self._late_acks -= tokens
                    for done in acks.values():
                        if not done.done():
                            done.set_result(None)
        finally:
            self._acking = None

    async def release(self, token: int, *, unread: bool) -> None:
        """Give a message back, to its place."""
        if token in self.held:
            await self._release([token], unread=unread)

    async def _release(self, tokens: Iterable[int], *, unread: bool) -> None:
        rules = self.rules
        args: list[bytes | str | int] = [
            rules.publish,
            self._most,
            rules.dead_capacity,
            round(rules.dead_expiry_s * 1000),
        ]
        for token in tokens:
            args += [token, self.held.pop(token), int(unread)]
        self._idle_since_s = monotonic()
        # If this fails, the lease runs out: that is the same, later.
        dead, gone = await self._script(RELEASE, self._keys + self._dead_keys, args)
        self._count(0, int(dead), int(gone))

    async def tick(self) -> None:
        """Renew what is held, and send what could not be acknowledged. Raises EngineUnavailable."""
        if self._late_acks and self._acking is None:
            tokens = sorted(self._late_acks)
            await self._script(ACK, self._keys, tokens)
            self._late_acks.difference_update(tokens)
        held = dict(self.held)
        if not held:
            return
        args: list[bytes | str | int] = [round(self.rules.lease_s * 1000)]
        for token, count in held.items():
            args += [token, count]
        lapsed = [token for token in map(int, await self._script(RENEW, self._keys, args)) if token in self.held]
        for token in lapsed:
            if self.held.get(token) == held[token]:
                del self.held[token]
        if lapsed:
            logger.warning(
                "Worker channel %r: %d messages were not acknowledged within lease_s (%g s) while this process or its "
                "server stood still, and are given out again",
                self.name,
                len(lapsed),
                self.rules.lease_s,
            )

    # The end

    async def close(self, limit_s: float) -> None:
        """End the readers, send what is still to be acknowledged, and give back what nobody has seen."""
        self._closed = True
        self._fail_readers(EngineUnavailable(f"worker channel {self.name!r}: the layer was closed"))
        self._stirred.set()
        under_way = {task for task in (self._task, self._acking, *self._others) if task is not None}
        while under_way:  # what a call still brings goes back, by another call
            done, under_way = await asyncio.wait(under_way, timeout=limit_s)
            if under_way and not done:
                for task in under_way:
                    task.cancel()
                break
            under_way |= self._others
        self.unlisten()

    def unlisten(self) -> None:
        """End the subscription."""
        if self._listening:
            self._listening = False
            self.rules.engine.unlisten(self.rules.keys.wake(self.name, self.rules.engine.node))

    # Small things

    def _script(self, script: Script, keys: list[bytes], args: Sequence[bytes | str | int]) -> Any:
        return self.rules.engine.script(script, self.key, keys, args)

    def _do(self, call: Any) -> None:
        task = asyncio.ensure_future(self._quietly(call))
        self._others.add(task)
        task.add_done_callback(self._others.discard)

    async def _quietly(self, call: Any) -> None:
        try:
            await call
        except EngineUnavailable as exc:
            self._log(exc)

    def _count(self, expired: int, dead: int, gone: int) -> None:
        for reason, queue, count in (
            ("expired", self.name, expired),
            ("dead", self.name, dead),
            ("over_capacity", self.name + DEAD, gone),
        ):
            if count:
                self.rules.dropped(reason, queue, count)

    def _log(self, exc: Exception) -> None:
        now = monotonic()
        if now - self._logged_s > LOG_INTERVAL_S:
            self._logged_s = now
            logger.warning("Worker channel %r cannot be read now, and is tried again: %s", self.name, exc)
