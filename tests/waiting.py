"""Waiting for what no event announces: conditions of tests are looked at again and again.

The limits are for a machine that is slow and busy: a test that passes never waits for them.
"""

from __future__ import annotations

import asyncio
import os
import time
from collections.abc import Callable
from pathlib import Path

__all__ = ["FOR_EVER_S", "alive", "eventually", "until"]

# Longer than a test may take: what waits so long was not ended by its time-out.
FOR_EVER_S = 1000.0


async def until(condition: Callable[[], object], limit_s: float = 30.0) -> None:
    """Wait until ``condition()`` is true; raise TimeoutError if that takes too long."""
    async with asyncio.timeout(limit_s):
        while not condition():  # noqa: ASYNC110  # nothing tells
            await asyncio.sleep(0.002)


def eventually(condition: Callable[[], object], within_s: float = 30.0) -> bool:
    """Wait likewise, in a thread; say whether it has become true."""
    deadline = time.monotonic() + within_s
    while not condition():
        if time.monotonic() > deadline:
            return False
        time.sleep(0.01)
    return True


def alive(pid: int) -> bool:
    """Say whether a process runs, as one that nobody has waited for does not."""
    try:
        os.kill(pid, 0)
        state = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0]
    except ProcessLookupError:
        return False
    except FileNotFoundError:
        return not Path("/proc/self/stat").exists()  # a system that tells no more
    return state != "Z"
