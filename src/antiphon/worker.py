"""Workers of worker channels."""

from .consumers.worker import Worker

__all__ = ["Worker"]
