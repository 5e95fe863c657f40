"""What is said of groups and nodes: plain lists and numbers that also say whether they are complete."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any, Self

__all__ = ["Channels", "Count", "Described"]


class Channels(list[str]):
    """The channels of a group; ``complete`` is False when a node did not answer in time."""

    complete: bool

    def __init__(self, channels: Iterable[str] = (), *, complete: bool = True) -> None:
        super().__init__(channels)
        self.complete = complete


class Count(int):
    """How many channels a group has; ``complete`` is False when a node did not answer in time."""

    complete: bool

    def __new__(cls, value: int, *, complete: bool = True) -> Self:
        """Make a count."""
        count = super().__new__(cls, value)
        count.complete = complete
        return count


class Described(list[dict[str, Any]]):
    """What nodes say of themselves; ``complete`` is False when one did not answer in time."""

    complete: bool

    def __init__(self, nodes: Iterable[dict[str, Any]] = (), *, complete: bool = True) -> None:
        super().__init__(nodes)
        self.complete = complete
