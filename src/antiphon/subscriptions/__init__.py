"""Clients that exist: one socket, many groups, in the Centrifuge protocol."""

from __future__ import annotations

from .consumer import SubscriptionConsumer
from .permissions import Claims, Grant

__all__ = ["Claims", "Grant", "SubscriptionConsumer"]
