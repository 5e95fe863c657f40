"""Keeps one connection to one server up: finds it, greets it, restores what was subscribed, says what may be lost.

On one connection TCP delivers or breaks, so nothing is counted to find a loss: a connection that broke, or was
silent too long, or led to a server that is primary no more, may have lost what was published between the last sign of
life and the confirmed resubscription, or, where the primary has moved, until the last sender has heard of it. What is
subscribed is in ``subscriptions.py``, what waits to be published in ``outbox.py``, how a silent server is found out in
``heartbeat.py``.
"""

from __future__ import annotations

import asyncio
import contextlib
import logging
import random
import time
from collections.abc import Awaitable, Callable, Collection, Iterable
from dataclasses import replace
from math import inf
from time import monotonic
from typing import Any

from ...exceptions import EngineUnavailable
from ...types import Receipt
from .advice import advised
from .append import Append, Publication
from .connection import Connection, ReplyError, look, until_ended
from .greeting import greet
from .heartbeat import Heartbeat
from .hosts import Address
from .outbox import Outbox, Waiting, command_of
from .owner import LinkOwner
from .scriptless import Scriptless
from .settings import LinkSettings
from .subscriptions import Subscriptions

__all__ = ["Link"]

logger = logging.getLogger("antiphon.engine")

# First pause after a failed attempt, and the longest, seconds; each is drawn from between half of it and all of it.
BACKOFF_S = (0.05, 0.4)
# How long publishes wait for the other nodes when a server has come back: the longest pause, and a little.
SETTLE_S = 0.5
# When the primary has changed, some senders hear of it later than we, those without a loop by a second at most: what
# they publish on the old one meanwhile is confirmed there and reaches nobody here, so the loss is told when that is over.
LAGGARDS_S = 1.2
TICK_S = 0.25  # how often deadlines are looked at


class Link:
    """A connection to one server that comes back. Lives on one loop.

    ``find()`` returns the server's address, and is asked anew at every attempt; with ``moves`` at every sign of life,
    too: an old primary may be the last to hear that it is none.
    """

    def __init__(
        self,
        name: str,
        find: Callable[[], Awaitable[Address]],
        owner: LinkOwner,
        settings: LinkSettings,
        *,
        moves: bool = False,
    ) -> None:
        self.name = name
        self.owner = owner
        self.settings = settings
        self.loop = asyncio.get_running_loop()
        self.connection: Connection | None = None  # set while up
        self.address: Address | None = None
        self.since_s = time.time()
        self.reason = "never connected yet"
        self.attempts = 0
        self.subscriptions = Subscriptions(self, settings)
        self.outbox = Outbox(settings, self.error)
        self.scriptless = Scriptless()
        self.heartbeat = Heartbeat(find, settings, moves=moves)
        self._broke = ""  # why the last connection ended
        self._complained = False  # an operator was told that it is down, and is to hear of the end of that
        self._find = find
        self._publishing: Connection | None = None  # the connection, once the others have had time to come back
        self._run_id = ""  # of the server
        self._all_gone = False
        self._moved_s = -inf  # when it came up at another address than before
        self._up_waiters: list[asyncio.Future[Connection]] = []
        self._ticked_s = monotonic()
        self._ticker = self.loop.call_later(TICK_S, self._tick)
        self._task = self.loop.create_task(self._run(), name=f"antiphon link {name}")

    def __repr__(self) -> str:
        state = "up" if self.up else f"down: {self.reason}"
        return f"<Link {self.name!r} {state}, {len(self.channels)} channels>"

    @property
    def up(self) -> bool:
        """Whether it is connected, and has restored what was subscribed."""
        return self.connection is not None

    # Publishing and calling

    def publish(self, channel: bytes, payload: bytes, wire: bytes) -> asyncio.Future[Receipt]:
        """Publish ``payload``; ``wire`` is the command. It has its place in line when this returns."""
        future: asyncio.Future[Receipt] = self.loop.create_future()
        connection = self._publishing
        if connection is not None and not connection.congested:
            connection.publish(wire, (future, channel, payload))
        else:
            self.send((future, channel, payload), wire)
        return future

    def send(self, publication: Publication, wire: bytes) -> None:
        """The same, for a publish that somebody waits for already."""
        connection = self._publishing
        if connection is None:
            self.outbox.add(publication, wire)
        elif connection.congested:
            publication[0].set_exception(self.error("it takes messages slower than they come"))
        elif self.scriptless.holds and isinstance(publication, Append):
            self.scriptless.hold(publication)
        else:
            connection.publish(wire, publication)

    def refused_script(self, append: Append) -> None:
        """Send again, in its place, an append for which the server has no script."""
        if self.connection is None:
            self.outbox.add(append, command_of(append, sharded=self.settings.sharded))
        else:
            self.scriptless.refused(append, self.connection)

    def send_again(self, publication: Publication, wire: bytes) -> None:
        """Send a publish that another server refused, and so did not do."""
        if self._publishing is not None:
            self._publishing.publish(wire, publication)
        else:
            self.outbox.add(publication, wire)

    async def connected(self) -> Connection:
        """Return the connection; wait for it up to ``timeout_s``. Raises EngineUnavailable."""
        if self.connection is not None:
            return self.connection
        if self.outbox.closed:
            raise EngineUnavailable("the layer was closed")
        waiter: asyncio.Future[Connection] = self.loop.create_future()
        self._up_waiters.append(waiter)
        try:
            async with asyncio.timeout(self.settings.timeout_s):
                return await waiter
        except TimeoutError:
            raise self.error(f"no connection within timeout_s ({self.settings.timeout_s:g} s)") from None
        finally:
            with contextlib.suppress(ValueError):
                self._up_waiters.remove(waiter)

    async def call(self, *command: bytes | str | int) -> Any:
        """Send a command and return its reply; waits for the link. Raises EngineUnavailable and ReplyError."""
        connection = await self.connected()
        future = connection.call(*command)
        try:
            async with asyncio.timeout(self.settings.timeout_s):
                return await future
        except TimeoutError:
            raise self.error(f"no answer within timeout_s ({self.settings.timeout_s:g} s)") from None

    def error(self, why: str) -> EngineUnavailable:
        """Return the error for what cannot be done: why, and how the link stands."""
        down = "" if self.up else f" It is down for {time.time() - self.since_s:.1f} s: {self.reason}."
        return EngineUnavailable(f"engine link {self.name}: {advised(why, self.settings.prefix)}.{down}")

    # Subscriptions

    @property
    def channels(self) -> list[bytes]:
        """What is wanted here, subscribed yet or not."""
        return list(self.subscriptions.wanted)

    def subscribe(self, channels: Iterable[bytes], good_until: float | None = None) -> asyncio.Future[None] | None:
        """Subscribe; None when all are already, else a future for when all are.

        ``good_until``: the channels come from another link, which vouches for them until then (epoch seconds).
        """
        return self.subscriptions.subscribe(channels, good_until)

    def unsubscribe(self, channels: Iterable[bytes]) -> None:
        """End subscriptions."""
        self.subscriptions.unsubscribe(channels)

    def give_up(
        self, channels: Collection[bytes]
    ) -> tuple[dict[bytes, float | None], list[tuple[list[bytes], asyncio.Future[None]]]]:
        """Let channels go to other links: ({channel: good until, None: nothing missed}, [(channels, who waits)])."""
        return self.subscriptions.give_up(channels, self.heartbeat.good_until)

    # Staying up

    async def _run(self) -> None:
        while True:
            connection = await self._establish()
            self._came_up(connection)
            try:
                reason = await asyncio.shield(connection.ended)
            except asyncio.CancelledError:
                connection.close()
                raise
            self._went_down(connection, reason)

    async def _establish(self) -> Connection:
        """Try until a connection is there, with everything restored on it."""
        pause = 0.0
        while True:
            connection: Connection | None = None
            try:
                connection = await self._connect()
                await self.subscriptions.restore(connection)
                return connection
            except asyncio.CancelledError:
                if connection is not None:
                    connection.give_up("closed by us")
                raise
            except Exception as exc:
                pause = min(max(pause * 2, BACKOFF_S[0]), BACKOFF_S[1])
                if not isinstance(exc, OSError | TimeoutError | ReplyError | EngineUnavailable):
                    # Nobody foresaw it, and a link that ended here would be deaf for ever.
                    logger.exception("Engine link %s cannot come up", self.name)
                    pause = BACKOFF_S[1]
                if connection is not None:
                    connection.give_up("never came up")
                    self.subscriptions.went_down(self.heartbeat.good_until)  # what it had restored is gone with it
                self._failed(exc)
            await asyncio.sleep(pause * random.uniform(0.5, 1.0))  # noqa: S311  # jitter

    async def _connect(self) -> Connection:
        self.attempts += 1
        address, settings = await self._find(), self.settings
        connection = await Connection.open(address, self._push, self._published)
        try:
            async with asyncio.timeout(settings.pong_timeout_s):
                sent_s = monotonic()
                run_id = await greet(connection, address, settings)
                self.heartbeat.answered(sent_s)
                # The server has been restarted, or is another.
                self._all_gone = self._run_id not in ("", run_id) or self.address not in (None, address)
                self._run_id = run_id
                await self.owner.greeted(self, connection, address)
        except BaseException:
            connection.give_up("never came up")
            raise
        if self.address not in (None, address):
            self._moved_s = monotonic()
        self.address = address
        return connection

    def _came_up(self, connection: Connection) -> None:
        self.connection = connection
        if self._complained:
            self._complained = False
            logger.warning("Engine link %s is up, after %.1f s", self.name, time.time() - self.since_s)
        self.since_s = time.time()
        self.reason = ""
        self.heartbeat.start(connection, self.address)
        if self._all_gone:
            # Every node has lost it, and what is published before they are back reaches nobody.
            self.loop.call_later(self.outbox.patience(SETTLE_S), self._publish_on, connection)
        else:
            self._publish_on(connection)
        self.subscriptions.came_up(connection)
        waiters, self._up_waiters = self._up_waiters, []
        for waiter in waiters:
            if not waiter.done():
                waiter.set_result(connection)
        self.owner.link_changed(self, True)

    def _publish_on(self, connection: Connection) -> None:
        if connection is self.connection:
            self._publishing = connection
            self.outbox.flush(connection)

    def _went_down(self, connection: Connection, reason: str) -> None:
        self._detach()
        self._broke = self.reason = reason
        self.since_s = time.time()
        self.subscriptions.went_down(self.heartbeat.good_until)
        self._take_back(connection, reason)
        self.owner.link_changed(self, False)

    def _detach(self) -> Connection | None:
        """Have no connection any more; return the one there was."""
        connection, self.connection, self._publishing = self.connection, None, None
        self.heartbeat.stop()
        return connection

    def _take_back(self, connection: Connection, reason: str) -> None:
        self.outbox.take_back(connection, reason)
        self.outbox.put_first(self.scriptless.give_up())

    def _failed(self, exc: BaseException) -> None:
        reason = advised(str(exc) or type(exc).__name__, self.settings.prefix)
        if reason != self.reason:
            level = logging.WARNING if self.attempts <= 1 or not self.reason else logging.INFO
            logger.log(level, "Engine link %s cannot connect: %s", self.name, reason)
            self._complained = self._complained or level == logging.WARNING
        self.reason = reason

    def drop(self, reason: str) -> None:
        """Give up the connection and find the server anew."""
        if self.connection is not None:
            self.connection.abort(reason)

    def _tick(self) -> None:
        self._ticker = self.loop.call_later(TICK_S, self._tick)
        now = monotonic()
        late, self._ticked_s = now - self._ticked_s > 2 * TICK_S, now
        if late:
            return  # the loop stood still: what came meanwhile is to be read before anybody is called overdue
        self.heartbeat.beat(now)
        if self.connection is not None:
            self.connection.fail_overdue(now, self.settings.publish_limit_s, self.error)
        self.outbox.expire(now)
        self.subscriptions.expire(now)

    # What subscriptions and the connection call

    def lost(self, channels: Collection[bytes], good_until: float) -> None:
        """Pass on what may have been missed."""
        reason = self._broke or "its slot has another server now"
        later_s = self._moved_s + LAGGARDS_S - monotonic()
        if later_s > 0:
            self.loop.call_later(later_s, self.owner.lost, channels, reason, good_until)
        else:
            self.owner.lost(channels, reason, good_until)

    def gone(self, channel: bytes) -> None:
        """Pass on that a channel lives elsewhere."""
        self.owner.gone(self, channel)

    def elsewhere(self, channels: list[bytes], future: asyncio.Future[None]) -> None:
        """Pass on who waits for channels that moved away meanwhile."""
        self.owner.elsewhere(self, channels, future)

    def _push(self, push: list[Any]) -> None:
        kind = push[0]
        if kind == b"message" or kind == b"smessage":
            self.owner.message(push[1], push[2])
        elif kind == b"subscribe" or kind == b"ssubscribe":
            self.subscriptions.acknowledged(push[1])
        elif kind == b"sunsubscribe":
            if self.subscriptions.let_go(push[1], self.heartbeat.good_until):  # nobody asked for it: the slot has moved
                self.gone(push[1])
        elif kind == b"invalidate":
            self.owner.invalidated(self)

    def _published(self, publication: Publication, reply: Any) -> None:
        self.owner.published(self, publication, reply)
        if self.scriptless.holds and isinstance(publication, Append):
            for append in self.scriptless.ready():
                self.send_again(append, command_of(append, sharded=self.settings.sharded))

    def track(self, key: bytes | None) -> None:
        """Have the server announce changes of ``key`` on this link from now on; None: not any more."""
        self.settings = replace(self.settings, tracked=key)
        if self.connection is not None and key is not None:
            self.connection.call("CLIENT", "TRACKING", "ON", "BCAST", "PREFIX", key).add_done_callback(look)

    # Ending

    async def drain(self, limit_s: float) -> None:
        """Wait until everything that was sent is answered, or the connection ends."""
        connection = self.connection
        if connection is not None:
            with contextlib.suppress(ReplyError, EngineUnavailable, TimeoutError):
                await asyncio.wait_for(until_ended(connection, connection.fence()), limit_s)

    def retire(self, reason: str) -> Iterable[Waiting]:
        """Give the server up for good, to be closed next; return the publishes that are to go elsewhere, in order."""
        connection = self._detach()
        if connection is not None:
            self._take_back(connection, reason)
            connection.abort(reason)
        return self.outbox.take_all()

    async def close(self) -> None:
        """End: what was written is let through, what waits fails."""
        self._ticker.cancel()
        self._task.cancel()
        await self.heartbeat.close()
        await asyncio.wait([self._task])
        connection = self._detach()
        if connection is not None:
            connection.close()
            self._take_back(connection, "the layer was closed")
        self.outbox.close()
        self.subscriptions.close()
        for waiter in self._up_waiters:
            if not waiter.done():
                waiter.set_exception(EngineUnavailable("the layer was closed"))

    def fileno(self) -> int:
        """Return the socket's descriptor, or -1."""
        return -1 if self.connection is None else self.connection.fileno()
