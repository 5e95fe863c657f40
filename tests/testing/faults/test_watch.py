"""The watch of the loop: a stall is measured and shown, and nothing else is taken for one."""

from __future__ import annotations

import asyncio
import subprocess
import sys
import threading
import time
from pathlib import Path

import pytest

from antiphon.testing.faults import LoopWatch


def block_for(seconds: float) -> None:
    time.sleep(seconds)


async def test_a_stall_is_measured_and_its_stack_is_shown() -> None:
    async with LoopWatch() as watch:
        await asyncio.sleep(0.05)
        block_for(0.8)
        await asyncio.sleep(0.05)
    assert 0.7 < watch.longest_stall_s <= watch.longest_gap_s
    longest = max(watch.stalls, key=lambda stall: stall.duration_s)
    assert "block_for(0.8)" in longest.stack
    with pytest.raises(AssertionError, match="block_for"):
        watch.check()


async def test_a_stall_that_lasts_until_the_end_of_the_block_counts() -> None:
    with LoopWatch() as watch:
        await asyncio.sleep(0.02)
        block_for(0.8)
    assert watch.longest_stall_s > 0.7


async def test_a_call_that_lets_no_other_thread_run_is_a_stall() -> None:
    async with LoopWatch() as watch:
        await asyncio.sleep(0.05)
        sum(range(40_000_000))
        await asyncio.sleep(0.05)
    # With its stack, where the other thread came to look before the loop went on.
    with pytest.raises(AssertionError, match=r"stack not seen|sum\(range"):
        watch.check()


async def test_a_loop_that_waits_is_not_stalled() -> None:
    with LoopWatch(limit_s=1.0) as watch:
        await asyncio.sleep(2.0)
    watch.check()
    assert watch.longest_stall_s < 1.0


async def test_a_thread_that_computes_is_no_stall_of_the_loop() -> None:
    over = threading.Event()

    def compute() -> None:
        while not over.is_set():
            sum(range(1000))

    thread = threading.Thread(target=compute)
    with LoopWatch(limit_s=1.0) as watch:  # it waits for the interpreter's lock now and then
        thread.start()
        await asyncio.sleep(1.5)
        over.set()
    thread.join()
    watch.check()


def test_a_busy_machine_is_no_stall() -> None:
    # On one core, beside three processes that compute: the gaps are the system's.
    program = """
import asyncio, os, subprocess, sys
os.sched_setaffinity(0, {min(os.sched_getaffinity(0))})
from antiphon.testing.faults import LoopWatch
busy = [subprocess.Popen([sys.executable, "-c", "while True: pass"]) for _ in range(6)]
async def main():
    with LoopWatch() as watch:
        for _ in range(40):
            sum(range(100_000))
            await asyncio.sleep(0.01)
    print(watch.longest_gap_s, watch.longest_stall_s)
try:
    asyncio.run(main())
finally:
    for each in busy:
        each.kill()
        each.wait()
"""
    if not Path("/proc/self/schedstat").exists():
        pytest.skip("this system does not tell how long a thread waits for a processor")
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, timeout=50, check=True)
    gap, stall = map(float, done.stdout.split())
    assert stall < gap / 2
