"""A loop whose clock is simulated: it never sleeps, and time goes on only when there is nothing else to do."""

from __future__ import annotations

import asyncio
import selectors
from typing import Any


class _Selector(selectors.SelectSelector):
    def __init__(self) -> None:
        super().__init__()
        self.now_s = 0.0

    def select(self, timeout: float | None = None) -> list[Any]:
        found = super().select(0)
        if not found:
            if timeout is None:
                raise RuntimeError("nothing will ever happen on this loop again: somebody waits for ever")
            self.now_s += timeout
        return found


class SimulatedLoop(asyncio.SelectorEventLoop):
    """``time()`` is simulated; ``asyncio.sleep`` takes none of the real one."""

    def __init__(self) -> None:
        self._simulated = _Selector()
        super().__init__(self._simulated)

    def time(self) -> float:
        return self._simulated.now_s
