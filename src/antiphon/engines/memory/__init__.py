"""The memory engine: every capability, inside one process. Its state belongs to the process, not to a loop."""

from .engine import MemoryBus, MemoryEngine
from .queue import MemoryQueue

__all__ = ["MemoryBus", "MemoryEngine", "MemoryQueue"]
