"""Where synchronous handlers run, and who closes the database connections they leave. Knows no consumer.

A pool of ``sync_threads`` for the process. Under test helpers, and wherever an outer ``async_to_sync`` waits, calls
run thread-sensitive instead, on that one thread: it owns the transaction and the rows of the test.
"""

from __future__ import annotations

import asyncio
import logging
import os
import queue
import threading
import time
from collections.abc import Callable
from concurrent.futures import Executor, Future
from typing import Any, TypeVar

from asgiref.sync import AsyncToSync, SyncToAsync, sync_to_async

from .. import framework, options
from ..layer.background import is_temporary

__all__ = ["Janitor", "SyncPool", "run_sync", "sync_pool"]

logger = logging.getLogger("antiphon.consumer")

T = TypeVar("T")

# Old database connections are looked for at most this often on one thread.
RELEASE_INTERVAL_S = 1.0


class _Job:
    __slots__ = ("args", "call", "future", "kwargs")

    def __init__(
        self, future: Future[Any], call: Callable[..., Any], args: tuple[Any, ...], kwargs: dict[str, Any]
    ) -> None:
        self.future, self.call, self.args, self.kwargs = future, call, args, kwargs

    def run(self) -> None:
        if not self.future.set_running_or_notify_cancel():
            return
        try:
            result = self.call(*self.args, **self.kwargs)
        except BaseException as exc:
            self.future.set_exception(exc)
        else:
            self.future.set_result(result)


class SyncPool(Executor):
    """A thread pool whose threads close their own old database connections when they have been idle for a second.

    ``concurrent.futures.ThreadPoolExecutor`` has no place for that, and only the thread that opened a connection can
    close it. Threads start when they are needed and are daemons: a handler that never ends holds up no exit.
    """

    def __init__(self, threads: int) -> None:
        self.threads = threads
        self._jobs: queue.SimpleQueue[_Job | None] = queue.SimpleQueue()
        self._started = 0
        self._idle = 0
        self._lock = threading.Lock()

    def __repr__(self) -> str:
        return f"<SyncPool {self._started}/{self.threads} threads, {max(self._idle, 0)} idle>"

    def submit(self, fn: Callable[..., T], /, *args: Any, **kwargs: Any) -> Future[T]:
        """Run a call on a thread of the pool."""
        future: Future[T] = Future()
        with self._lock:
            if self._idle <= 0 and self._started < self.threads:
                self._started += 1
                threading.Thread(target=self._work, name=f"antiphon-sync-{self._started}", daemon=True).start()
            else:
                # Claimed here, so that two submits never count on the same thread; below zero, jobs wait for one.
                self._idle -= 1
        self._jobs.put(_Job(future, fn, args, kwargs))
        return future

    def shutdown(self, wait: bool = True, *, cancel_futures: bool = False) -> None:
        """End the threads once the jobs before this call are done."""
        for _ in range(self._started):
            self._jobs.put(None)

    def _work(self) -> None:
        dirty, released_s = False, time.monotonic()
        while True:
            try:
                job = self._jobs.get(timeout=RELEASE_INTERVAL_S if dirty else None)
            except queue.Empty:
                _release()
                dirty, released_s = False, time.monotonic()
                continue
            if job is None:
                _release()
                return
            now = time.monotonic()
            if dirty and now - released_s >= RELEASE_INTERVAL_S:
                _release()
                released_s = now
            job.run()
            dirty = True
            del job  # its future and arguments must not live until the next one comes
            with self._lock:
                self._idle += 1


def _release() -> None:
    try:
        framework.current().release_connections()
    except Exception:
        # A thread that died of this would take the next handler with it, and the pool would have one less.
        logger.exception("Could not close old database connections")


_pool: SyncPool | None = None


def sync_pool() -> SyncPool:
    """Return the process's pool, made on first use."""
    global _pool
    if _pool is None:
        _pool = SyncPool(options.get("sync_threads"))
    return _pool


def thread_sensitive(*, under_test: bool) -> bool:
    """Say whether synchronous code must run on the thread that waits for this loop."""
    return under_test or is_temporary(asyncio.get_running_loop())


async def run_sync(call: Callable[..., T], /, *args: Any, under_test: bool = False) -> T:
    """Run synchronous code without blocking the loop; its context variables are the caller's, both ways."""
    # asgiref's SyncToAsync, not run_in_executor: async_to_sync inside the call then comes back to this loop.
    if thread_sensitive(under_test=under_test):
        # A cancelled call can leave the executor of its async_to_sync behind in our context, ended: asgiref would
        # hand the next call to that.
        if getattr(getattr(AsyncToSync.executors, "current", None), "_broken", False):
            del AsyncToSync.executors.current
        return await sync_to_async(call, thread_sensitive=True)(*args)
    return await sync_to_async(call, thread_sensitive=False, executor=sync_pool())(*args)  # type: ignore[call-overload,no-any-return]


class Janitor:
    """Closes the old database connections that native async ORM calls leave on asgiref's one thread.

    One a loop. Connections only set ``touched``: no message waits for this, and an idle loop does nothing.
    """

    __slots__ = ("_loop", "_timer", "connections", "touched")

    def __init__(self, loop: asyncio.AbstractEventLoop) -> None:
        self._loop = loop
        self._timer: asyncio.TimerHandle | None = None
        self.connections = 0
        self.touched = False

    def enter(self) -> None:
        """A connection begins."""
        self.connections += 1
        if self._timer is None:
            self._timer = self._loop.call_later(RELEASE_INTERVAL_S, self._tick)

    def leave(self) -> None:
        """A connection ends; what it used last is closed at the next tick."""
        self.connections -= 1
        self.touched = True

    def _tick(self) -> None:
        self._timer = None
        # No thread, no call was ever made on it, no connection can be old.
        executor = SyncToAsync.single_thread_executor
        if self.touched and framework.current().has_database and getattr(executor, "_threads", None):
            self._loop.create_task(self._release())
        self.touched = False
        if self.connections:
            self._timer = self._loop.call_later(RELEASE_INTERVAL_S, self._tick)

    async def _release(self) -> None:
        await sync_to_async(framework.current().release_connections, thread_sensitive=True)()


def _after_fork() -> None:
    global _pool
    _pool = None


if hasattr(os, "register_at_fork"):
    os.register_at_fork(after_in_child=_after_fork)
