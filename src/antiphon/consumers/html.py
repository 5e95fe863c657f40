"""``HtmlConsumer``: fragments of pages over a WebSocket, as ``broadcast_html`` sends them. Knows no template."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, ClassVar

from .relay import relay
from .websocket import AsyncWebsocketConsumer

__all__ = ["HtmlConsumer"]


class HtmlConsumer(AsyncWebsocketConsumer):
    """Sends each fragment that its ``groups`` are sent to the page, as text: for htmx's WebSocket extensions.

    It is framed once for all members of a group. Override ``connect``, ``receive`` and ``authorize_join`` as of any consumer.
    """

    layer_handlers: ClassVar[Mapping[str, str]] = {"html.fragment": "html_fragment"}

    @relay
    def html_fragment(message: Any) -> str:  # noqa: N805  # a relay has no self
        """Return what ``broadcast_html`` rendered."""
        return str(message.get("html", ""))
