"""How long a handler may go on after its client has gone. Knows a task and a clock, no connection."""

from __future__ import annotations

import asyncio
from collections.abc import Callable

__all__ = ["Grace"]


class Grace:
    """Cancels ``task`` after ``seconds`` if it is still ``busy`` with the handler that was running at the start.

    The cancellation is ours: ``is_ours`` takes it back, so that the task goes on; anybody else's is left alone.
    """

    __slots__ = ("_busy", "_over", "_task", "_timer")

    def __init__(
        self, loop: asyncio.AbstractEventLoop, task: asyncio.Task[None], seconds: float, busy: Callable[[], bool]
    ) -> None:
        self._task = task
        self._busy = busy
        self._over = False
        self._timer: asyncio.TimerHandle | None = loop.call_later(seconds, self._out_of_patience)

    def __repr__(self) -> str:
        return f"<Grace {'over' if self._over else 'running'}>"

    def _out_of_patience(self) -> None:
        self._timer = None
        if self._busy():
            self._over = True
            self._task.cancel()

    def is_ours(self) -> bool:
        """Say whether a cancellation that arrived in the task is this one, and none other with it."""
        if not self._over:
            return False
        self._over = False
        return self._task.uncancel() == 0

    def stop(self) -> None:
        """End it: the handler is done."""
        if self._timer is not None:
            self._timer.cancel()
            self._timer = None
        if self._over:
            # The handler swallowed the cancellation, or raised something else: it is used up all the same.
            self._over = False
            self._task.uncancel()
