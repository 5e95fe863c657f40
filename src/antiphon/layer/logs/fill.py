"""``Filler``: reads what did not arrive from the engine's log, and puts it in its place before what came since.

What the log no longer has is lost: the members hear ``group.lost``, once, and the topic goes on at the top.
"""

from __future__ import annotations

import asyncio
import logging
import random
from collections.abc import Collection, Sequence
from time import monotonic, time
from typing import Any

from ...codec import encode
from ...envelope import Envelope
from ...exceptions import AntiphonError, EngineUnavailable
from ...types import Page, Position
from .follow import TOPICS_MAX, Follower
from .log import HELD_BACK, Log

__all__ = ["PAGE_MAX", "Filler"]

logger = logging.getLogger("antiphon.layer")

# How long a hole may take to be filled while the engine answers, before it is told as lost.
FILL_S = 2.0
# How often the top of each log is compared with what came, give or take a quarter.
CHECK_S = 10.0
# Entries that are read in one call, and logs that are read at the same time.
PAGE_MAX = 1000
READS_MAX = 32
_PAUSE_S = (0.02, 0.5)


class Filler(Follower):
    """The filling half of :class:`~antiphon.layer.logs.Logs`."""

    def __init__(self, *args: Any) -> None:
        super().__init__(*args)
        self.filled = 0
        self._due: list[Log] = []
        self._reads = asyncio.Semaphore(READS_MAX)
        self._checker: asyncio.TimerHandle | None = None

    def mend(self, topics: Collection[str], reason: str, good_until: float) -> list[str]:
        """Learn that messages may be missing on ``topics``; return those that have no log to mend them from."""
        rest = []
        for topic in topics:
            log = self.logs.get(topic)
            if log is None:
                rest.append(topic)
            elif log.position is not None:
                self.fill(log, reason, good_until)
        return rest

    def fill(self, log: Log, reason: str, good_until: float) -> None:
        """Hold what arrives until what is missing was read."""
        if log.filling:
            return
        log.filling, log.reason, log.good_until = True, reason, good_until
        log.live = self.hub.loop.create_future()
        self._fill_soon(log)

    def _fill_soon(self, log: Log) -> None:
        self._due.append(log)
        if len(self._due) == 1:
            self.hub.loop.call_soon(self._fill_due)

    def _fill_due(self) -> None:
        due, self._due = self._due, []
        for start in range(0, len(due), TOPICS_MAX):
            self.work(self._fill_some(due[start : start + TOPICS_MAX]))

    async def _fill_some(self, logs: Sequence[Log]) -> None:
        """Fill logs: the tops of all in one call, then those that have moved on, several at a time."""
        if len(logs) > 1:
            tops: Sequence[Position | None]
            try:
                tops = await self.engine.tops([log.topic for log in logs])
            except AntiphonError:
                tops = [None] * len(logs)  # nothing is known: each is read
            level = [
                log
                for log, top in zip(logs, tops, strict=True)
                if self._follows(log) and top == log.position and self._go_live(log)
            ]
            logs = [log for log in logs if log not in level]
        await asyncio.gather(*(self._fill_one(log) for log in logs))

    async def _fill_one(self, log: Log) -> None:
        async with self._reads:
            until_s, pause_s = self.hub.loop.time() + FILL_S, _PAUSE_S[0]
            while self._follows(log) and log.position is not None:
                last = log.position
                try:
                    page = await self.engine.read(log.topic, last, PAGE_MAX)
                except EngineUnavailable as exc:
                    # It is away again: what it keeps is still there when it is back. That is no reason to give up.
                    logger.debug("The log of %s cannot be read yet: %s", log.topic, exc)
                    pause_s = min(2 * pause_s, _PAUSE_S[1])
                    until_s = self.hub.loop.time() + FILL_S + pause_s
                except Exception as exc:
                    logger.exception("The log of %s cannot be read", log.topic)
                    if self._follows(log):
                        self._lose(log, f"its log cannot be read: {exc}", None)
                    return
                else:
                    if not self._follows(log) or self._merge(log, page):
                        return
                    if self.hub.loop.time() >= until_s:
                        self._lose(log, f"it could not be filled within {FILL_S:g} s", page.top)
                        return
                if log.position == last:
                    await asyncio.sleep(pause_s * random.uniform(0.5, 1.0))  # noqa: S311  # jitter

    def _follows(self, log: Log) -> bool:
        return log.filling and not self.closed and self.logs.get(log.topic) is log

    def _merge(self, log: Log, page: Page) -> bool:
        """Deliver what was read, then what was held; True when that is all there was to do."""
        assert log.position is not None  # noqa: S101  # for types
        if not page.complete:
            self._lose(log, "its log does not have them any more", page.top)
            return True
        if page.top.epoch != log.position.epoch:
            log.close_ring()
            log.position = Position(page.top.epoch, log.position.offset)
            # For members whose client must hear of it: what came before has positions of the earlier epoch.
            self._tell(log.topic, {"type": "group.epoch", "group": log.topic[2:], "epoch": page.top.epoch})
        for entry in page.entries:
            if entry.offset != log.position.offset + 1:
                return False
            self.filled += 1
            self.deliver(log, entry.payload, log.topic, Position(page.top.epoch, entry.offset), replayed=True)
        return log.position.offset >= page.top.offset and self._go_live(log)

    def _go_live(self, log: Log) -> bool:
        """Deliver what was held; False when something is missing in it: it is in the engine's log."""
        overrun, held = log.overrun, log.release()
        for arrival in held:
            position, last = arrival.position, log.position
            assert position is not None and last is not None  # noqa: S101, PT018  # for types
            if position.epoch == last.epoch and position.offset <= last.offset:
                continue
            if position.epoch != last.epoch or arrival.previous != last.offset:
                return False
            self.deliver(log, arrival.payload, log.topic, position, replayed=True)
        if overrun:
            return False
        log.filling = False
        log.settle()
        return True

    def _lose(self, log: Log, reason: str, top: Position | None) -> None:
        """Give up what is missing: go on with what has arrived since, or at the top, and tell every member once."""
        last, hub = log.position, self.hub
        reason = f"{log.reason}, and {reason}"
        log.close_ring()
        if top is not None:
            log.position = top = log.begin_again(top)
        log.starts = {channel: start for channel, start in log.starts.items() if start == HELD_BACK}
        if hub.on_lost is not None:
            hub.on_lost([log.topic], reason, log.good_until)
        self._tell(
            log.topic,
            {
                "type": "group.lost",
                "group": log.topic[2:],
                "reason": reason,
                "last": list(last) if last is not None else None,
                "top": list(top) if top is not None else None,
            },
        )
        if not self._go_live(log):
            self._fill_soon(log)  # what was held begins after the top: the rest is in the log

    def _tell(self, topic: str, message: dict[str, Any]) -> None:
        """Put what the layer itself has to say into the mailboxes that want it."""
        hub, kind = self.hub, message["type"]
        boxes = [box for box in hub.members.get(topic, {}).values() if kind in box.wants]
        if boxes:
            hub.fan_over(Envelope(topic, monotonic(), encode(message)), boxes)

    # Checking

    async def _learn(self, logs: Sequence[Log]) -> None:
        await super()._learn(logs)
        self._check_later()

    def _check_later(self) -> None:
        if self._checker is None and self.logs and not self.closed:
            pause_s = CHECK_S * random.uniform(0.75, 1.25)  # noqa: S311  # jitter
            self._checker = self.hub.loop.call_later(pause_s, self._check)

    def _check(self) -> None:
        self._checker = None
        logs = [log for log in self.logs.values() if log.position is not None and not log.filling]
        for log in logs:
            log.drop_idle_ring()
        for start in range(0, len(logs), TOPICS_MAX):
            self.work(self._compare(logs[start : start + TOPICS_MAX]))
        self._check_later()

    async def _compare(self, logs: Sequence[Log]) -> None:
        """Fill each log whose top is beyond what came: the last messages before a silence leave no hole behind them."""
        since = time()
        try:
            tops = await self.engine.tops([log.topic for log in logs])
        except EngineUnavailable:
            return  # its link is down, and will say what it missed
        for log, top in zip(logs, tops, strict=True):
            last = log.position
            moved = last is not None and (top.epoch != last.epoch or top.offset > last.offset)
            if moved and self.logs.get(log.topic) is log:
                self.fill(log, "messages did not arrive", since)

    def close(self) -> None:
        """End: nobody waits any more."""
        super().close()
        if self._checker is not None:
            self._checker.cancel()
