"""Every address of the showcase whose connection stays open, and the consumer behind it."""

from django.urls import path, re_path

from chat.consumers import ChatConsumer
from notifications.consumers import NotificationConsumer

websocket_urlpatterns = [
    re_path(r"^ws/chat/(?P<room>[a-z0-9-]{1,40})/$", ChatConsumer.as_asgi()),
]
event_urlpatterns = [
    path("notifications/", NotificationConsumer.as_asgi()),
]
