"""``Startable``: what runs from ``start()`` to ``close()``, and is a context manager for it. Knows not what runs."""

from __future__ import annotations

from abc import ABC, abstractmethod
from types import TracebackType
from typing import Self

__all__: list[str] = []


class Startable(ABC):
    """In a ``with`` block it is started, unless it runs already, and closed at the end, or where it cannot start."""

    @property
    @abstractmethod
    def running(self) -> bool:
        """Whether it was started, and has not ended."""

    @abstractmethod
    def start(self) -> None:
        """Start it, and return when it can be used."""

    @abstractmethod
    def close(self) -> None:
        """End it, and remove what it left on the disk."""

    def __enter__(self) -> Self:
        if not self.running:
            try:
                self.start()
            except BaseException:
                self.close()
                raise
        return self

    def __exit__(
        self, kind: type[BaseException] | None, exc: BaseException | None, traceback: TracebackType | None
    ) -> None:
        self.close()
