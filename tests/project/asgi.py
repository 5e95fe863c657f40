"""The ASGI application of the tests' project: one line, and an echo to talk to."""

from __future__ import annotations

import os

from django.urls import path

os.environ.setdefault("DJANGO_SETTINGS_MODULE", "tests.project.settings")

from antiphon.generic.websocket import AsyncWebsocketConsumer
from antiphon.routing import asgi_application


class EchoConsumer(AsyncWebsocketConsumer):
    """Send back what comes, with the name of the user in front."""

    async def receive(self, text_data: str | None = None, bytes_data: bytes | None = None) -> None:
        """Answer one frame."""
        await self.send(text_data=f"{self.scope['user'].get_username()}: {text_data}")


application = asgi_application([path("ws/echo/", EchoConsumer.as_asgi())])
