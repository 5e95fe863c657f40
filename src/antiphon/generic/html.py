"""Consumers of pages that show fragments: htmx over a WebSocket. Over ``EventSource``: ``generic.events``."""

from ..consumers.html import HtmlConsumer

__all__ = ["HtmlConsumer"]
