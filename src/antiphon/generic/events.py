"""Consumers of ``EventSource``: server-sent events."""

from ..consumers.event_stream import EventStreamConsumer

__all__ = ["EventStreamConsumer"]
