"""Layers of one test, each ended with it."""

from __future__ import annotations

from collections.abc import AsyncIterator, Callable
from typing import Any

import pytest

from antiphon.layers import InMemoryChannelLayer

Make = Callable[..., InMemoryChannelLayer]


@pytest.fixture
async def make() -> AsyncIterator[Make]:
    """Return a maker of layers, which are closed after the test."""
    made: list[InMemoryChannelLayer] = []

    def make(**options: Any) -> InMemoryChannelLayer:
        made.append(InMemoryChannelLayer(**options))
        return made[-1]

    yield make
    for layer in made:
        await layer.close()


@pytest.fixture
def layer(make: Make) -> InMemoryChannelLayer:
    """Return a layer with the default options."""
    return make()
