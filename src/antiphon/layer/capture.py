"""Where test tools listen to what is sent. Recorders see the message as it was given, at the call."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

__all__ = ["Sent", "record", "recorders"]


@dataclass(frozen=True, slots=True)
class Sent:
    """One send: ``kind`` is group, user or channel; ``deferred`` when it waits for a commit."""

    kind: str
    target: str | tuple[str, ...]
    message: dict[str, Any]
    exclude: tuple[str, ...] = ()
    deferred: bool = False
    layer: str | None = None
    database: str | None = None  # whose commit a deferred one waits for


# Empty in production: the hot path looks at its truth and goes on.
recorders: list[Callable[[Sent], None]] = []


def record(sent: Sent) -> None:
    """Show ``sent`` to every recorder."""
    for recorder in tuple(recorders):
        recorder(sent)
