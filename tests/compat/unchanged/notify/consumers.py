"""Notifications: each user is a group."""

from channels.db import database_sync_to_async
from channels.exceptions import DenyConnection
from channels.generic.websocket import AsyncJsonWebsocketConsumer
from django.contrib.auth import get_user_model


class NotificationConsumer(AsyncJsonWebsocketConsumer):
    async def connect(self):
        if self.scope["user"].is_anonymous:
            raise DenyConnection
        self.group = f"notifications_{self.scope['user'].pk}"
        await self.channel_layer.group_add(self.group, self.channel_name)
        await self.accept()
        await self.send_json({"hello": await self.username()})

    async def disconnect(self, code):
        if self.scope["user"].is_authenticated:
            await self.channel_layer.group_discard(self.group, self.channel_name)

    async def send_notification(self, event):
        await self.send_json({"notification": event["text"]})

    @database_sync_to_async
    def username(self):
        return get_user_model().objects.get(pk=self.scope["user"].pk).username
