"""Consumers of HTTP requests."""

from ..consumers.http import AsyncHttpConsumer

__all__ = ["AsyncHttpConsumer"]
