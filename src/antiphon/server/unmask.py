"""Unmasking what clients send: in C where ``websockets`` is installed, as it is with ``uvicorn[standard]``."""

from __future__ import annotations

from collections.abc import Callable

from ..wire.frames import unmasked

__all__ = ["unmask"]

unmask: Callable[[bytes, bytes], bytes]
try:
    # Here and not beside ``unmasked``: those that serve nothing need not wait for its import.
    from websockets.speedups import apply_mask as unmask
except ImportError:
    unmask = unmasked
