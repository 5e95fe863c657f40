"""``fresh_layer``: a channel layer for one test. Knows no test runner."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

from asgiref.sync import async_to_sync

from ..layer.memory import InMemoryChannelLayer
from ..layer.registry import DEFAULT_CHANNEL_LAYER, channel_layers

__all__ = ["fresh_layer"]


@contextmanager
def fresh_layer(alias: str = DEFAULT_CHANNEL_LAYER, **options: Any) -> Iterator[InMemoryChannelLayer]:
    """Put a new in-memory layer under ``alias``, and at the end what was there before.

    ``options``: those of InMemoryChannelLayer. The layer is flushed and closed at the end, so do not leave the block
    on a running event loop: enter it in synchronous code, or around the loop.
    """
    layer = InMemoryChannelLayer(**options)
    before = channel_layers.set(alias, layer)
    try:
        yield layer
    finally:
        if channel_layers.backends.get(alias) is layer:  # else the settings changed meanwhile, and it is gone
            if before is None:
                del channel_layers.backends[alias]
            else:
                channel_layers.backends[alias] = before
        async_to_sync(_end)(layer)


async def _end(layer: InMemoryChannelLayer) -> None:
    await layer.flush()
    await layer.close()
