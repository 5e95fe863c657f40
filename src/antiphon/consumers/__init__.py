"""Consumers: the objects that handle one connection's events."""

from .base import AsyncConsumer, SyncConsumer
from .http import AsyncHttpConsumer
from .join_result import JoinResult
from .relay import Relay, relay
from .websocket import (
    AsyncJsonWebsocketConsumer,
    AsyncWebsocketConsumer,
    JsonWebsocketConsumer,
    WebsocketConsumer,
)
from .worker import Delivery, Worker

__all__ = [
    "AsyncConsumer",
    "AsyncHttpConsumer",
    "AsyncJsonWebsocketConsumer",
    "AsyncWebsocketConsumer",
    "Delivery",
    "JoinResult",
    "JsonWebsocketConsumer",
    "Relay",
    "SyncConsumer",
    "WebsocketConsumer",
    "Worker",
    "relay",
]
