"""``LoopWatch``: finds what holds up an event loop. Knows loops and threads, nothing of what runs on them."""

from __future__ import annotations

import asyncio
import os
import sys
import threading
import time
import traceback
from dataclasses import dataclass
from types import TracebackType
from typing import Self

__all__ = ["LoopWatch", "Stall"]

BEAT_S = 0.005
LIMIT_S = 0.1


@dataclass(frozen=True, slots=True)
class Stall:
    """One time in which the loop could not run: how long, and where its thread was when the limit had passed.

    ``stack`` is empty where that could not be seen: a call into C that kept every other thread from running, too.
    """

    duration_s: float
    stack: str

    def __str__(self) -> str:
        return f"the loop stood still for {self.duration_s * 1000:.0f} ms\n{self.stack or '(stack not seen)'}"


class LoopWatch:
    """Measures how long the running loop stands still, in a ``with`` or ``async with`` block of a coroutine.

    The loop writes down the time every 5 ms, and a gap is a stall. A busy machine is no fault of the code: time in which
    the loop's thread wanted to run and the system gave it no processor is taken off, where the system tells (Linux),
    and where no other thread ran either, only what the process computed counts: the rest is taken to have gone by while
    a page was fetched from the disk. ``longest_gap_s`` is with all that. ``stalls`` are those over ``limit_s``, each with
    the stack that a thread saw.
    """

    def __init__(self, limit_s: float = LIMIT_S) -> None:
        self.limit_s = limit_s
        self.longest_stall_s = 0.0
        self.longest_gap_s = 0.0
        self.stalls: list[Stall] = []
        self._seen = ""
        self._beats = 0
        self._over = threading.Event()

    def __repr__(self) -> str:
        return (
            f"<{type(self).__name__} longest {self.longest_stall_s * 1000:.0f} ms, {len(self.stalls)} over the limit>"
        )

    def __enter__(self) -> Self:
        self._loop = asyncio.get_running_loop()
        self._thread_id = threading.get_ident()
        self._delays = _RunDelay(threading.get_native_id())
        self._over.clear()
        self._mark()
        self._timer = self._loop.call_later(BEAT_S, self._beat)
        self._watcher = threading.Thread(target=self._watch, name="antiphon-loop-watch", daemon=True)
        self._watcher.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, exc: BaseException | None, traceback: TracebackType | None
    ) -> None:
        self._timer.cancel()
        self._measure()  # a stall that ends with the block
        self._over.set()
        self._watcher.join()
        self._delays.close()

    async def __aenter__(self) -> Self:
        return self.__enter__()

    async def __aexit__(
        self, kind: type[BaseException] | None, exc: BaseException | None, traceback: TracebackType | None
    ) -> None:
        self.__exit__(kind, exc, traceback)

    def check(self) -> None:
        """Raise AssertionError, with the stacks, when the loop stood still for longer than ``limit_s``."""
        if self.stalls:
            raise AssertionError("\n".join(map(str, self.stalls)))

    def _beat(self) -> None:
        self._measure()
        self._timer = self._loop.call_later(BEAT_S, self._beat)

    def _mark(self) -> None:
        self._delay_s = self._delays.read()
        self._computed_s = time.process_time()
        self._beaten = time.monotonic()
        self._beats += 1

    def _measure(self) -> None:
        gap = max(0.0, time.monotonic() - self._beaten - BEAT_S)
        delay, computed = self._delay_s, self._computed_s
        self._mark()
        stall = max(0.0, gap - (self._delay_s - delay))
        if stall > self.limit_s and not self._seen:
            stall = min(stall, self._computed_s - computed)
        self.longest_gap_s = max(self.longest_gap_s, gap)
        self.longest_stall_s = max(self.longest_stall_s, stall)
        if stall > self.limit_s:
            self.stalls.append(Stall(stall, self._seen))
        self._seen = ""

    def _watch(self) -> None:
        looked = 0
        while not self._over.wait(BEAT_S * 2):
            beats = self._beats
            if beats != looked and time.monotonic() - self._beaten > self.limit_s + BEAT_S:
                looked = beats
                frame = sys._current_frames().get(self._thread_id)
                stack = "".join(traceback.format_stack(frame)) if frame is not None else ""
                if self._beats == beats:  # else it went on meanwhile, and this shows something else
                    self._seen = stack


class _RunDelay:
    """How long a thread has waited for a processor, as Linux counts it; 0 elsewhere."""

    def __init__(self, thread: int) -> None:
        try:
            self._file: int | None = os.open(f"/proc/self/task/{thread}/schedstat", os.O_RDONLY)
        except OSError:
            self._file = None

    def read(self) -> float:
        if self._file is None:
            return 0.0
        # https://docs.kernel.org/scheduler/sched-stats.html: run time, time waiting on a runqueue, time slices
        return int(os.pread(self._file, 100, 0).split()[1]) / 1e9

    def close(self) -> None:
        if self._file is not None:
            os.close(self._file)
