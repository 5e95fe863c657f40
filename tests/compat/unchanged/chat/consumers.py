"""A chat: each room is a group."""

import json

from channels.generic.websocket import AsyncWebsocketConsumer


class ChatConsumer(AsyncWebsocketConsumer):
    async def connect(self):
        self.room_group = "chat_%s" % self.scope["url_route"]["kwargs"]["room"]
        await self.channel_layer.group_add(self.room_group, self.channel_name)
        await self.accept()

    async def disconnect(self, close_code):
        await self.channel_layer.group_discard(self.room_group, self.channel_name)

    async def receive(self, text_data=None, bytes_data=None):
        event = {"type": "chat.message", "text": json.loads(text_data)["message"], "user": str(self.scope["user"])}
        await self.channel_layer.group_send(self.room_group, event)

    async def chat_message(self, event):
        await self.send(text_data=json.dumps({"message": event["text"], "user": event["user"]}))
