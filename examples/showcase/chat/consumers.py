"""The chat: what one connection of a room says, every connection of the room hears."""

from antiphon import relay
from antiphon.generic.websocket import AsyncJsonWebsocketConsumer


class ChatConsumer(AsyncJsonWebsocketConsumer):
    rate_limit = "20/s"  # a client that sends faster is closed

    async def connect(self):
        self.user = self.scope["user"]
        self.group = f"chat_{self.scope['url_route']['kwargs']['room']}"
        if self.user.is_authenticated:
            await self.join(self.group)
            await self.accept()
        else:
            await self.accept()  # a browser learns the close code of an accepted socket only
            await self.close(code=4401)

    async def receive_json(self, content):
        match content:
            case {"text": str(text)} if text.strip():
                await self.channel_layer.group_send(
                    self.group,
                    {"type": "chat_message", "sender": self.user.username, "text": text[:1000]},
                )

    @relay  # the same for everybody in the room, so it runs once for all of them
    def chat_message(event):
        return {"sender": event["sender"], "text": event["text"]}
