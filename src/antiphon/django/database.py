"""Database work in threads, and connections that are closed when they are old. Knows no consumer.

Django closes old connections around each HTTP request. A WebSocket has none, so they are closed around the work
itself: at most once a second on a thread, and once more when the work is over, so that no idle thread keeps one.
"""

from __future__ import annotations

import asyncio
import contextvars
import os
import sys
import threading
import time
from collections.abc import Callable
from functools import partial
from typing import Any, Generic, ParamSpec, TypeVar

from asgiref.sync import AsyncToSync, SyncToAsync, sync_to_async
from django.db import close_old_connections

from .. import framework

__all__ = ["DatabaseSyncToAsync", "aclose_old_connections", "close_now", "database_sync_to_async"]

P = ParamSpec("P")
R = TypeVar("R")

CLOSE_INTERVAL_S = 1.0

_threads = threading.local()
_sweep_lock = threading.Lock()
# The loop whose timer will sweep next; a closed one never will.
_sweeping: asyncio.AbstractEventLoop | None = None


def close_now() -> None:
    """Close the old connections of this thread, unless they belong to a test.

    The function is looked up in the public module at each call: that is where applications and tests patch it.
    """
    if framework.keep_connections.get():
        return
    _threads.closed_at = time.monotonic()
    public = sys.modules.get("antiphon.db")
    close: Callable[[], None] = getattr(public, "close_old_connections", close_old_connections)
    close()


def _close_if_due() -> None:
    if time.monotonic() - getattr(_threads, "closed_at", -CLOSE_INTERVAL_S) >= CLOSE_INTERVAL_S:
        close_now()


class DatabaseSyncToAsync(SyncToAsync[P, R], Generic[P, R]):
    """``sync_to_async`` for code that uses the database: old connections are closed on the thread it ran on.

    At most once a second; where Channels' way holds (``install_as_channels()``), and on threads that are nobody's in
    particular (``thread_sensitive=False``), before and after each call.
    """

    async def __call__(self, *args: P.args, **kwargs: P.kwargs) -> R:
        """Run the function in a thread and return what it returns."""
        try:
            return await super().__call__(*args, **kwargs)
        finally:
            if not (framework.compat or framework.keep_connections.get()) and self._thread_sensitive:
                _sweep_later()

    def thread_handler(self, loop: asyncio.AbstractEventLoop, *args: Any, **kwargs: Any) -> Any:
        """Run on the thread: the call itself, between two looks at its connections."""
        *rest, call = args
        # asgiref enters the caller's context only around the call, and whether connections may be closed stands there.
        handler: Callable[..., Any] = super().thread_handler
        return handler(loop, *rest, partial(self._between_closes, call), **kwargs)

    def _between_closes(self, call: Callable[[], R]) -> R:
        close = close_now if framework.compat or not self._thread_sensitive else _close_if_due
        close()
        try:
            return call()
        finally:
            close()


# The class has the name of a class; people use it as a decorator.
database_sync_to_async = DatabaseSyncToAsync


async def aclose_old_connections() -> None:
    """Close the old connections of the thread that native async ORM calls of this context use."""
    await sync_to_async(close_now)()


def _sweep_later() -> None:
    """Close old connections of asgiref's one shared thread in a second, when nothing else is there to do it.

    Inside an outer ``async_to_sync`` or a request of Django's ASGI handler the code ran on a thread of theirs, and
    they close its connections themselves.
    """
    global _sweeping  # one shared thread a process
    if getattr(AsyncToSync.executors, "current", None) or SyncToAsync.thread_sensitive_context.get(None):
        return
    loop = asyncio.get_running_loop()
    with _sweep_lock:
        if _sweeping is not None and not _sweeping.is_closed():
            return
        _sweeping = loop
    loop.call_later(CLOSE_INTERVAL_S, _sweep, loop, context=contextvars.Context())


def _sweep(loop: asyncio.AbstractEventLoop) -> None:
    global _sweeping
    _sweeping = None
    loop.run_in_executor(SyncToAsync.single_thread_executor, close_now)


def _after_fork() -> None:
    # The parent's timer never fires here, and its lock may have been held.
    global _sweeping, _sweep_lock
    _sweeping, _sweep_lock = None, threading.Lock()


if hasattr(os, "register_at_fork"):
    os.register_at_fork(after_in_child=_after_fork)
