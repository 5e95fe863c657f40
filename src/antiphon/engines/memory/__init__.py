"""The memory engine: every capability, inside one process. Its state belongs to the process, not to a loop."""

from .bus import MemoryBus
from .engine import MemoryEngine
from .queue import MemoryQueue

__all__ = ["MemoryBus", "MemoryEngine", "MemoryQueue"]
