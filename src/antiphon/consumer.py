"""Base consumers, and how a message names its handler."""

from .consumers.base import AsyncConsumer, JoinResult, SyncConsumer
from .consumers.handlers import get_handler_name

__all__ = ["AsyncConsumer", "JoinResult", "SyncConsumer", "get_handler_name"]
