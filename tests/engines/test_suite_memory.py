"""The engine suite on the memory engine: one process, every other capability."""

from __future__ import annotations

from typing import Any

from antiphon.testing import EngineSuite


class TestMemory(EngineSuite):
    backend = "antiphon.layers.InMemoryChannelLayer"
    capabilities = frozenset({"history", "presence", "worker_channels"})

    def config(self, space: str) -> dict[str, Any]:
        return {}
