"""Layers of one test over real servers."""

from __future__ import annotations

from tests.engines.redis.link.conftest import make_layer

__all__ = ["make_layer"]
