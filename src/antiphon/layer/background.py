"""The process's background loop: one daemon thread, for code that has no loop of its own to live on.

A loop that ``async_to_sync`` makes for one call dies with the call; what must outlive it lives here.
"""

from __future__ import annotations

import asyncio
import os
import threading
from types import FrameType

from asgiref.sync import AsyncToSync, SyncToAsync

__all__ = ["background_loop", "is_temporary", "will_be_temporary"]

_ASYNC_TO_SYNC = AsyncToSync.__call__.__code__

_lock = threading.Lock()
_loop: asyncio.AbstractEventLoop | None = None


def background_loop() -> asyncio.AbstractEventLoop:
    """Return the background loop, running; start it at the first call of a process."""
    global _loop
    with _lock:
        if _loop is None or _loop.is_closed():
            loop = asyncio.new_event_loop()
            started = threading.Event()
            loop.call_soon(started.set)
            threading.Thread(target=_run, args=(loop,), name="antiphon-background", daemon=True).start()
            started.wait()
            _loop = loop
        return _loop


def _run(loop: asyncio.AbstractEventLoop) -> None:
    asyncio.set_event_loop(loop)
    loop.run_forever()


def is_temporary(loop: asyncio.AbstractEventLoop) -> bool:
    """Say whether ``async_to_sync`` made ``loop`` for one call."""
    # asgiref's own table of the loops it made; it forgets each when its call returns.
    return loop in AsyncToSync.loop_thread_executors


def will_be_temporary(caller: FrameType) -> bool:
    """Say whether ``caller`` is ``async_to_sync``, which calls a function first and makes a loop for the rest then.

    In a thread of ``sync_to_async`` the rest runs on the loop that waits for that thread.
    """
    if caller.f_code is not _ASYNC_TO_SYNC:
        return False
    thread = SyncToAsync.threadlocal
    waiting: asyncio.AbstractEventLoop | None = getattr(thread, "main_event_loop", None)
    # It stays there when it has ended, and in a child process.
    return waiting is None or waiting.is_closed() or thread.main_event_loop_pid != os.getpid()


def _after_fork() -> None:
    global _lock, _loop
    _lock, _loop = threading.Lock(), None


if hasattr(os, "register_at_fork"):
    os.register_at_fork(after_in_child=_after_fork)
