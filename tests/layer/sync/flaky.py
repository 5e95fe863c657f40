"""A layer whose engine fails on demand, and what the tests of the plain functions do with it."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager, suppress

from asgiref.sync import async_to_sync
from django.db import transaction

from antiphon.envelope import HeadedEnvelope, unpack
from antiphon.exceptions import EngineUnavailable
from antiphon.layers import InMemoryChannelLayer
from antiphon.types import Receipt


class Flaky(InMemoryChannelLayer):
    """A layer whose engine cannot be reached for the next ``failures`` publishes, and notes what it takes."""

    failures = 0
    error: type[Exception] = EngineUnavailable
    tries = 0
    lose_replies = False  # what fails has arrived all the same

    def __init__(self) -> None:
        super().__init__()
        self.taken: list[tuple[str, HeadedEnvelope]] = []
        self._reach = self._bus.publish_blocking
        self._bus.publish_blocking = self._try  # type: ignore[method-assign]

    def _try(self, topic: str, payload: bytes) -> Receipt:
        self.tries += 1
        if self.failures > 0:
            self.failures -= 1
            if self.lose_replies:
                self.taken.append((topic, unpack(payload, topic)))
            raise self.error("not now")
        self.taken.append((topic, unpack(payload, topic)))
        return self._reach(topic, payload)


def member(layer: InMemoryChannelLayer, group: str = "g") -> str:
    channel: str = async_to_sync(layer.new_channel)()
    async_to_sync(layer.group_add)(group, channel)
    return channel


@contextmanager
def rolled_back() -> Iterator[None]:
    """Open a transaction, or a savepoint in one, that fails at its end."""
    with suppress(ZeroDivisionError), transaction.atomic():
        yield
        raise ZeroDivisionError


def arrived(layer: InMemoryChannelLayer) -> int:
    return int(layer.stats()["sent"])
