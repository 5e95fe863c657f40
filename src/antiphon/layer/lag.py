"""How long messages take, from the sender's publish to the first reader's take. Knows nothing of who reads."""

from __future__ import annotations

import time
from time import monotonic

from ..envelope import Envelope, HeadedEnvelope

__all__ = ["SAMPLE_S", "Lag"]

# How often it is measured.
SAMPLE_S = 0.005


class Lag:
    """Seconds: of the message measured last, a decaying mean, the largest."""

    __slots__ = ("last_s", "max_s", "mean_s")

    def __init__(self) -> None:
        self.last_s = self.mean_s = self.max_s = 0.0

    def __repr__(self) -> str:
        return f"<Lag {self.last_s:.4f} s, mean {self.mean_s:.4f}, max {self.max_s:.4f}>"

    def measure(self, envelope: Envelope) -> None:
        """Take in a message that is being taken now."""
        if isinstance(envelope, HeadedEnvelope):
            lag = time.time() - envelope.sent_us / 1e6
        else:
            lag = monotonic() - envelope.arrived_s
        if lag < 0.0:  # clocks of two machines
            lag = 0.0
        self.last_s = lag
        self.mean_s += (lag - self.mean_s) * 0.05
        self.max_s = max(self.max_s, lag)
