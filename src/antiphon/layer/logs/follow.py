"""``Follower``: takes what arrives on topics that have a log, and hands on each entry that is the next one.

Lives on the node's loop. What is not the next entry it holds, and asks for the hole to be filled.
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Callable, Collection, Coroutine, Sequence
from time import monotonic, time
from typing import TYPE_CHECKING, Any

from ...engines.base import HistoryEngine
from ...envelope import CONTROL, HeadedEnvelope, unpack
from ...exceptions import AntiphonError
from ...types import Arrival, Keep, Position
from ..mailbox import Mailbox
from .log import Log

if TYPE_CHECKING:
    from ..hub import Hub

__all__ = ["TOPICS_MAX", "Follower"]

logger = logging.getLogger("antiphon.layer")

# Topics that are asked for in one call.
TOPICS_MAX = 1000


class Follower:
    """The logs of one node's topics: see :class:`~antiphon.layer.logs.Logs`."""

    def __init__(
        self,
        hub: Hub,
        engine: HistoryEngine,
        keep_of: Callable[[str], Keep | None],
        top_now: Callable[[str], Position] | None = None,
    ) -> None:
        self.hub = hub
        self.engine = engine
        self.holes = self.repeated = 0
        self.logs: dict[str, Log] = {}
        self.closed = False
        self._keep_of = keep_of
        self._top_now = top_now
        self._unknown: list[Log] = []
        self._working: set[asyncio.Task[None]] = set()

    def __repr__(self) -> str:
        filling = sum(log.filling for log in self.logs.values())
        return f"<{type(self).__name__} {len(self.logs)} topics, {filling} filling>"

    # Topics come and go

    def begin(self, topic: str) -> None:
        """Follow the log of a topic that has its first member now."""
        keep = self._keep_of(topic)
        if keep is None:
            return
        log = self.logs[topic] = Log(topic, keep)
        if self._top_now is not None:
            log.position = self._top_now(topic)

    def forget(self, topic: str) -> None:
        """Forget a topic that has no member left."""
        log = self.logs.pop(topic, None)
        if log is not None:
            log.settle()

    def position(self, topic: str) -> Position | None:
        """Return the position of the last entry that was delivered here, where it is known."""
        log = self.logs.get(topic)
        return log.position if log is not None else None

    def known(self, topic: str) -> asyncio.Future[None] | None:
        """Return a future for when the place of a topic's log is known; None: it is, or there is no log.

        To be called once the subscription is on its way: whatever comes after that place will arrive.
        """
        log = self.logs.get(topic)
        if log is None or log.position is not None:
            return None
        if log.known is None:
            log.known = self.hub.loop.create_future()
            self._unknown.append(log)
            if len(self._unknown) == 1:
                self.hub.loop.call_soon(self._ask)
        return log.known

    def _ask(self) -> None:
        logs, self._unknown = self._unknown, []
        for start in range(0, len(logs), TOPICS_MAX):
            self.work(self._learn(logs[start : start + TOPICS_MAX]))

    async def _learn(self, logs: Sequence[Log]) -> None:
        try:
            tops = await self.engine.tops([log.topic for log in logs])
        except Exception as exc:
            for log in logs:
                log.fail(exc)
            if not isinstance(exc, AntiphonError):
                raise
            return
        for log, top in zip(logs, tops, strict=True):
            if log.position is None:
                log.position = top
            if log.known is not None:
                log.known.set_result(None)
                log.known = None

    # What arrives

    def arrive(self, arrival: Arrival, position: Position) -> None:
        """Take an entry, if it is the next one. Never raises."""
        topic = arrival.topic
        log = self.logs.get(topic)
        if log is None:
            # Nobody here, or the sender keeps what this node does not: then it is a message like any other.
            if topic in self.hub.members:
                self.deliver(None, arrival.payload, topic, position)
            return
        last = log.position
        if log.filling:
            log.hold(arrival)
        elif last is None or (position.epoch == last.epoch and arrival.previous == last.offset):
            self.deliver(log, arrival.payload, topic, position)
        elif position.epoch == last.epoch and position.offset <= last.offset:
            self.repeated += 1
        else:
            self.holes += 1
            log.hold(arrival)
            self.fill(log, "messages did not arrive" if position.epoch == last.epoch else "the log was cut", time())

    def fill(self, log: Log, reason: str, good_until: float) -> None:
        """Have what is missing read from the engine's log."""
        raise NotImplementedError

    def read(self, payload: bytes, topic: str, position: Position) -> HeadedEnvelope | None:
        """Open an entry; None for one that is not ours, which is counted."""
        hub = self.hub
        try:
            envelope = unpack(payload, topic, monotonic(), position)
            if hub.gate is not None:
                hub.gate.open(envelope)
        except ValueError as exc:
            hub.refuse(topic, exc)
            return None
        return envelope

    def deliver(
        self, log: Log | None, payload: bytes, topic: str, position: Position, *, replayed: bool = False
    ) -> None:
        """Give an entry to the members. ``replayed``: it was read, so it competes for no room in a mailbox."""
        hub = self.hub
        envelope = self.read(payload, topic, position)
        if envelope is None:
            if log is not None:
                log.position = position
                log.close_ring()
            return
        hub.took_in(envelope, replayed=replayed)
        members = hub.members.get(topic)
        starts = log.starts if log is not None else None
        if log is not None:
            log.advance(envelope, position)  # first: a handler may send the next entry, which comes inside this call
        if not members or envelope.kind == CONTROL:
            return
        chosen: Collection[Mailbox]
        if starts or envelope.extra:
            at = position.offset
            wanting = {name: box for name, box in members.items() if starts.get(name, 0) < at} if starts else members
            chosen = hub.chosen(envelope, wanting)
        else:
            chosen = members.values()
        if replayed:
            hub.fan_over(envelope, chosen)
        elif chosen:
            hub.fan_out(envelope, chosen)

    # Work and its end

    def work(self, work: Coroutine[Any, Any, None]) -> None:
        """Run something beside what arrives, to its end or the node's."""
        task = self.hub.loop.create_task(work)
        self._working.add(task)
        task.add_done_callback(self._worked)

    def _worked(self, task: asyncio.Task[None]) -> None:
        self._working.discard(task)
        if not task.cancelled() and task.exception() is not None:
            logger.error("The logs of a node failed", exc_info=task.exception())

    def close(self) -> None:
        """End: nobody waits any more."""
        self.closed = True
        for task in tuple(self._working):
            task.cancel()
        for log in self.logs.values():
            log.settle()
