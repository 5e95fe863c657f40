"""Notifications: every connection of a user is in the user's own group; code anywhere sends to that group."""

from antiphon.generic.websocket import AsyncJsonWebsocketConsumer


class NotificationConsumer(AsyncJsonWebsocketConsumer):
    async def connect(self):
        user = self.scope["user"]
        if user.is_authenticated:
            await self.join(f"notifications_{user.pk}")
            await self.accept()
        else:
            await self.accept()  # a browser learns the close code of an accepted socket only
            await self.close(code=4401)

    async def notification(self, event):
        await self.send_json(event)

    async def report(self, event):
        await self.send_json(event)
