"""``clock_offset``: a wrong clock, for the modules of one package. Knows where they keep the time, not what for."""

from __future__ import annotations

import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from types import ModuleType
from typing import Any

__all__ = ["clock_offset"]


@contextmanager
def clock_offset(seconds: float, package: str = "antiphon") -> Iterator[None]:
    """Shift ``time.time()`` and ``time.time_ns()`` by so many seconds, as the modules of ``package`` see them.

    Those that are imported when the block begins, except these test tools. Everything else keeps its time: monotonic
    clocks, ``datetime``, the event loop and other packages. Blocks nest, and their offsets add up.
    """
    swapped: list[tuple[ModuleType, str, Any]] = []
    for name, module in sys.modules.copy().items():
        if f"{name}.".startswith(f"{package}.") and not f"{name}.".startswith("antiphon.testing."):
            for key, value in vars(module).copy().items():
                shifted = _shifted(value, seconds)
                if shifted is not None:
                    swapped.append((module, key, value))
                    setattr(module, key, shifted)
    try:
        yield
    finally:
        for module, key, value in swapped:
            setattr(module, key, value)


class _Clock(ModuleType):
    """The module ``time``, with another time of day."""

    def __init__(self, offset_s: float) -> None:
        super().__init__("time")
        vars(self).update(vars(time))
        self.offset_s = offset_s
        self.time = self._time
        self.time_ns = self._time_ns

    def _time(self) -> float:
        return time.time() + self.offset_s

    def _time_ns(self) -> int:
        return time.time_ns() + round(self.offset_s * 1e9)


def _shifted(value: Any, seconds: float) -> Any:
    """Return what stands for ``value`` under the wrong clock, None when it has nothing to do with clocks."""
    if value is time:
        return _Clock(seconds)
    if isinstance(value, _Clock):
        return _Clock(value.offset_s + seconds)
    owner = getattr(value, "__self__", None)
    if value is time.time or (isinstance(owner, _Clock) and value == owner.time):
        return _Clock(seconds + getattr(owner, "offset_s", 0)).time
    if value is time.time_ns or (isinstance(owner, _Clock) and value == owner.time_ns):
        return _Clock(seconds + getattr(owner, "offset_s", 0)).time_ns
    return None
