"""A signal for readers on any number of loops. Knows nothing of what they read."""

from __future__ import annotations

import asyncio
import threading

__all__ = ["Bell"]


class Bell:
    """Wakes whoever waits, on whichever loop; may be rung from any thread."""

    __slots__ = ("_lock", "_waiting")

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._waiting: dict[asyncio.Future[None], asyncio.AbstractEventLoop] = {}

    def __len__(self) -> int:
        return len(self._waiting)

    def add(self) -> asyncio.Future[None]:
        """Return a future of the running loop that is done at the next ring."""
        loop = asyncio.get_running_loop()
        future = loop.create_future()
        with self._lock:
            self._waiting[future] = loop
        return future

    def discard(self, future: asyncio.Future[None]) -> None:
        """Forget a future that ``add`` returned."""
        with self._lock:
            self._waiting.pop(future, None)

    def ring(self) -> None:
        """Wake everybody who waits now."""
        with self._lock:
            waiting, self._waiting = self._waiting, {}
        here = asyncio._get_running_loop()
        for future, loop in waiting.items():
            if loop is here:
                _finish(future)
            else:
                try:
                    loop.call_soon_threadsafe(_finish, future)
                except RuntimeError:  # that loop is closed: nobody waits there any more
                    continue


def _finish(future: asyncio.Future[None]) -> None:
    if not future.done():
        future.set_result(None)
