"""What a probe finds, and how a row of the table is described. Knows no server."""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from dataclasses import dataclass
from typing import TypeAlias

from .running import Server

__all__ = ["BAD", "GOOD", "PARTIAL", "Probe", "Row", "Verdict", "rank"]

GOOD, PARTIAL, BAD = "good", "partial", "bad"


@dataclass(frozen=True, slots=True)
class Verdict:
    """``text``: what was seen, always the same for the same behaviour; ``figure``: what was measured beside it."""

    rank: str
    text: str
    figure: float | None = None
    unit: str = "MB"

    def __str__(self) -> str:
        return self.text if self.figure is None else f"{self.text} ({self.figure:.3g} {self.unit})"


# (server, "raw" or "consumer") -> what it does.
Probe: TypeAlias = Callable[[Server, str], Awaitable[Verdict]]


@dataclass(frozen=True, slots=True)
class Row:
    """One behaviour. ``hasty``: on a server with short deadlines; ``alone``: on one that it may ruin, or end."""

    title: str
    probe: Probe
    hasty: bool = False
    alone: bool = False

    @property
    def name(self) -> str:
        """The probe's name."""
        return self.probe.__name__


def rank(*, good: bool, partial: bool = False) -> str:
    """Return the rank."""
    return GOOD if good else PARTIAL if partial else BAD
