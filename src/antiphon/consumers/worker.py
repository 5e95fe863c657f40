"""``Worker``: runs an application for the messages of worker channels. Knows no engine and no command line.

A message is acknowledged when its handler has returned, so one whose handler failed, or whose process died, comes again.
"""

from __future__ import annotations

import asyncio
import contextlib
import logging
import signal
import sys
from collections.abc import Sequence
from typing import Any

from ..exceptions import EngineUnavailable
from ..types import ASGIApplication, Event, Message

__all__ = ["Delivery", "Worker"]

logger = logging.getLogger("antiphon.worker")

# How long handlers may go on after a signal to stop.
STOP_GRACE_S = 10.0
# A message whose handler failed is kept so long before it is given back, that its deliveries are not spent on one short
# outage of whatever it needs: each pause is so many times the last, up to the longest. A pause holds nobody up.
RETRY_FACTOR, RETRY_LONGEST_S = 3, 60.0


class Delivery:
    """What an application finds in ``scope["antiphon.delivery"]`` about the message it is handling.

    ``count``: 1 the first time, more when it comes again. ``failed``: set it, and the message is given back when its
    handler returns, as if that had raised. Both are of the message in hand.
    """

    __slots__ = ("count", "failed")

    def __init__(self) -> None:
        self.count = 0
        self.failed = False

    def __repr__(self) -> str:
        return f"<Delivery {self.count}{' failed' if self.failed else ''}>"


class Worker:
    """Takes messages from worker channels and gives each to an instance of ``application``.

    ``channels``: names without "!". ``concurrency``: how many instances each channel has; each handles one message at
    a time and takes the next when it is done, so nothing piles up in this process.

    A message is acknowledged after its handler: when the application asks for the next one, or ends. When the handler
    raised, or the process is told to stop and does not get it done, it is given back, to this worker or another; after
    the layer's ``max_deliveries`` it goes to ``<channel>.dead``, a worker channel like any other. So a handler may see
    a message again: ``scope["antiphon.delivery"].count`` says how often it was given out (see ``Delivery``). A layer
    without ``lease`` gives each message away when it is received, and none comes again. ``retry_pause_s``: how long a
    message whose handler failed is kept before it is given back, three times as long after each further delivery, up to
    a minute; 0: not at all. What is kept when the worker stops is given back at once.
    """

    def __init__(
        self,
        application: ASGIApplication,
        channels: Sequence[str],
        channel_layer: Any,
        max_applications: int = 1000,
        *,
        concurrency: int = 1,
        retry_pause_s: float = 0.1,
    ) -> None:
        if channel_layer is None:
            raise ValueError("Channel layer is not valid")
        if not channels or isinstance(channels, str):
            raise ValueError(f"channels: expected a list of worker channels; got {channels!r}")
        if not isinstance(concurrency, int) or concurrency < 1:
            raise ValueError(f"concurrency: expected a positive int; got {concurrency!r}")
        self.application = application
        self.channels = list(channels)
        self.channel_layer = channel_layer
        self.max_applications = max_applications
        self.concurrency = concurrency
        self.retry_pause_s = retry_pause_s
        self.handled = 0
        self._busy = 0
        self._stopping: asyncio.Event | None = None
        self._idle: asyncio.Event | None = None
        self._kept: dict[Any, asyncio.TimerHandle] = {}  # leases of messages that are to come again
        self._givers: set[asyncio.Task[None]] = set()
        self._feeds: dict[asyncio.Task[Any] | None, _Feed] = {}  # by the listener's task

    def __repr__(self) -> str:
        return f"<Worker of {', '.join(self.channels)} x{self.concurrency}, {self.handled} handled>"

    def run(self) -> None:
        """Work until SIGTERM or SIGINT; running handlers may finish for ``STOP_GRACE_S`` seconds."""
        asyncio.run(self._run())

    async def _run(self) -> None:
        loop = asyncio.get_running_loop()
        self._stopping = asyncio.Event()
        if sys.platform != "win32":
            for number in (signal.SIGTERM, signal.SIGINT):
                loop.add_signal_handler(number, self._stopping.set)
        work = asyncio.ensure_future(self.handle())
        stop = asyncio.ensure_future(self._stopping.wait())
        await asyncio.wait((work, stop), return_when=asyncio.FIRST_COMPLETED)
        stop.cancel()
        if not work.done():
            logger.info("Stopping; %d handlers are running", self._busy)
            self._idle = asyncio.Event()
            for task, feed in self._feeds.items():
                if task is not None and not feed.working:
                    task.cancel()  # it waits for a message, and must not take one any more
            with contextlib.suppress(TimeoutError):
                if self._busy:
                    await asyncio.wait_for(self._idle.wait(), STOP_GRACE_S)
            work.cancel()
        try:
            await work
        except asyncio.CancelledError:
            logger.info("Stopped after %d messages", self.handled)

    async def handle(self) -> None:
        """Listen on every channel, until cancelled or one of them fails."""
        try:
            async with asyncio.TaskGroup() as group:
                for channel in self.channels:
                    for _ in range(self.concurrency):
                        group.create_task(self.listener(channel))
        finally:
            for lease in tuple(self._kept):
                self._give_back(lease)
            await asyncio.gather(*self._givers)

    def _keep(self, lease: Any) -> None:
        """Give a message back after a while; its lease is renewed meanwhile, as that of one that is being handled."""
        pause_s = min(self.retry_pause_s * RETRY_FACTOR ** (lease.delivery_count - 1), RETRY_LONGEST_S)
        self._kept[lease] = asyncio.get_running_loop().call_later(pause_s, self._give_back, lease)

    def _give_back(self, lease: Any) -> None:
        self._kept.pop(lease).cancel()
        giver = asyncio.ensure_future(_settle(lease, failed=True))
        self._givers.add(giver)
        giver.add_done_callback(self._givers.discard)

    async def listener(self, channel: str) -> None:
        """Give the messages of one channel to one instance after another, each for as long as it lives."""
        while True:
            feed = self._feeds[asyncio.current_task()] = _Feed(self, channel)
            scope = {"type": "channel", "channel": channel, "antiphon.delivery": feed.delivery}
            try:
                await self.application(scope, feed.receive, feed.send)
            except Exception:
                if not feed.taken:
                    raise  # it cannot even begin, and a new instance will not either
                feed.delivery.failed = True
                logger.exception("The application for channel %r failed; a new instance takes its place", channel)
            except BaseException:
                feed.delivery.failed = True  # cut off in the middle of its work
                raise
            finally:
                await feed.done()
            if not feed.taken:
                raise RuntimeError(f"the application for channel {channel!r} ended without taking a message")


class _Feed:
    """What one application instance receives from: asking for the next message says that the last one is done."""

    def __init__(self, worker: Worker, channel: str) -> None:
        self.worker = worker
        self.channel = channel
        self.delivery = Delivery()
        self.taken = 0
        self.working = False
        self._lease: Any = None

    async def done(self) -> None:
        if not self.working:
            return
        self.working = False
        try:
            await self._settle()
        finally:
            self.worker.handled += 1
            self.worker._busy -= 1
            if not self.worker._busy and self.worker._idle is not None:
                self.worker._idle.set()

    async def _settle(self) -> None:
        lease, self._lease = self._lease, None
        if lease is None:
            return
        if self.delivery.failed and self.worker.retry_pause_s and not lease.last:
            self.worker._keep(lease)
        else:
            await _settle(lease, failed=self.delivery.failed)

    async def receive(self) -> Message:
        await self.done()
        while True:
            if self.worker._stopping is not None and self.worker._stopping.is_set():
                await asyncio.Event().wait()  # take nothing more; the worker cancels us
            message = await self._next()
            if message.get("type"):
                break
            logger.error("Dropped a message without a type on worker channel %r", self.channel)
            await self._settle()
        self.taken += 1
        self.working = True
        self.worker._busy += 1
        return message

    async def _next(self) -> Message:
        layer = self.worker.channel_layer
        self.delivery.failed = False
        if not hasattr(layer, "lease"):
            self.delivery.count = 1
            return await layer.receive(self.channel)  # type: ignore[no-any-return]  # a layer of others
        self._lease = await layer.lease(self.channel)
        self.delivery.count = self._lease.delivery_count
        return self._lease.message  # type: ignore[no-any-return]

    async def send(self, event: Event) -> None:
        raise RuntimeError(f"a worker has no client to send {event.get('type')!r} to; use the channel layer")


async def _settle(lease: Any, *, failed: bool) -> None:
    try:
        await (lease.release() if failed else lease.ack())
    except EngineUnavailable as exc:
        logger.warning("A message of worker channel %r may be handled again: %s", lease.channel, exc)
