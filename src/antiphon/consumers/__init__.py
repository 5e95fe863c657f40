"""Consumers: the objects that handle one connection's events."""

from .base import AsyncConsumer, JoinResult, SyncConsumer
from .http import AsyncHttpConsumer
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
