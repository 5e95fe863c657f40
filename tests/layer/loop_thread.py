"""An event loop in a thread of its own, which tests run calls on, hold and stop."""

from __future__ import annotations

import asyncio
import threading
from collections.abc import Awaitable
from concurrent.futures import Future
from typing import Any


class LoopThread:
    """An event loop that runs in a thread of its own."""

    def __init__(self) -> None:
        self.loop = asyncio.new_event_loop()
        self._thread = threading.Thread(target=self.loop.run_forever)
        self._thread.start()

    def start(self, call: Awaitable[Any]) -> Future[Any]:
        async def wait() -> Any:
            return await call

        return asyncio.run_coroutine_threadsafe(wait(), self.loop)

    def run(self, call: Awaitable[Any]) -> Any:
        return self.start(call).result(30)

    def hold(self) -> threading.Event:
        """Stop the loop as a stopped process would stand, until the event is set."""
        free, held = threading.Event(), threading.Event()

        def stand() -> None:
            held.set()
            free.wait(50)

        self.loop.call_soon_threadsafe(stand)
        held.wait(30)
        return free

    def stop(self) -> None:
        if not self.loop.is_closed():
            self.loop.call_soon_threadsafe(self.loop.stop)
            self._thread.join(30)
            self.loop.close()
