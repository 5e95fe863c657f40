"""HTTP by Django, WebSockets by consumers."""

import os

from django.core.asgi import get_asgi_application

os.environ.setdefault("DJANGO_SETTINGS_MODULE", "mysite.settings")
http = get_asgi_application()

from channels.auth import AuthMiddlewareStack
from channels.routing import ProtocolTypeRouter, URLRouter
from channels.security.websocket import AllowedHostsOriginValidator
from django.urls import path, re_path

from chat.consumers import ChatConsumer
from notify.consumers import NotificationConsumer

application = ProtocolTypeRouter(
    {
        "http": http,
        "websocket": AllowedHostsOriginValidator(
            AuthMiddlewareStack(
                URLRouter(
                    [
                        re_path(r"ws/chat/(?P<room>\w+)/$", ChatConsumer.as_asgi()),
                        path("ws/notifications/", NotificationConsumer.as_asgi()),
                    ]
                )
            )
        ),
    }
)
