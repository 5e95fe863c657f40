"""``Worker``: runs an application for the messages of worker channels. Knows no engine and no command line."""

from __future__ import annotations

import asyncio
import contextlib
import logging
import signal
import sys
from collections.abc import Sequence
from typing import Any

from ..types import ASGIApplication, Event, Message

__all__ = ["Worker"]

logger = logging.getLogger("antiphon.worker")

# How long handlers may go on after a signal to stop.
STOP_GRACE_S = 10.0


class Worker:
    """Takes messages from worker channels and gives each to an instance of ``application``.

    ``channels``: names without "!". ``concurrency``: how many instances each channel has; each handles one message at
    a time and takes the next when it is done, so nothing piles up in this process.
    """

    def __init__(
        self,
        application: ASGIApplication,
        channels: Sequence[str],
        channel_layer: Any,
        max_applications: int = 1000,
        *,
        concurrency: int = 1,
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
        self.handled = 0
        self._busy = 0
        self._stopping: asyncio.Event | None = None
        self._idle: asyncio.Event | None = None
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
        async with asyncio.TaskGroup() as group:
            for channel in self.channels:
                for _ in range(self.concurrency):
                    group.create_task(self.listener(channel))

    async def listener(self, channel: str) -> None:
        """Give the messages of one channel to one instance after another, each for as long as it lives."""
        while True:
            feed = self._feeds[asyncio.current_task()] = _Feed(self, channel)
            try:
                await self.application({"type": "channel", "channel": channel}, feed.receive, feed.send)
            except Exception:
                if not feed.taken:
                    raise  # it cannot even begin, and a new instance will not either
                logger.exception("The application for channel %r failed; a new instance takes its place", channel)
            finally:
                feed.done()
            if not feed.taken:
                raise RuntimeError(f"the application for channel {channel!r} ended without taking a message")


class _Feed:
    """What one application instance receives from: asking for the next message says that the last one is done."""

    def __init__(self, worker: Worker, channel: str) -> None:
        self.worker = worker
        self.channel = channel
        self.taken = 0
        self.working = False

    def done(self) -> None:
        if self.working:
            self.working = False
            self.worker.handled += 1
            self.worker._busy -= 1
            if not self.worker._busy and self.worker._idle is not None:
                self.worker._idle.set()

    async def receive(self) -> Message:
        self.done()
        while True:
            if self.worker._stopping is not None and self.worker._stopping.is_set():
                await asyncio.Event().wait()  # take nothing more; the worker cancels us
            message: Message = await self.worker.channel_layer.receive(self.channel)
            if message.get("type"):
                break
            logger.error("Dropped a message without a type on worker channel %r", self.channel)
        self.taken += 1
        self.working = True
        self.worker._busy += 1
        return message

    async def send(self, event: Event) -> None:
        raise RuntimeError(f"a worker has no client to send {event.get('type')!r} to; use the channel layer")
