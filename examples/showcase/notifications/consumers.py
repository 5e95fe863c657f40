"""Notifications: every page of a user listens to the user's own group; code anywhere sends to that group."""

from antiphon.generic.events import EventStreamConsumer


class NotificationConsumer(EventStreamConsumer):
    async def get_groups(self):
        self.group = f"notifications_{self.scope['user'].pk}"
        self.top = await self.channel_layer.position(self.group)
        return [self.group]

    async def authorize_join(self, group):
        return self.scope["user"].is_authenticated

    async def opened(self):
        # For the badge: what comes up to there, the page had missed.
        await self.send_event({"joined": {"position": self.top._asdict()}})

    async def notification(self, event):
        await self.tell(event)

    async def report(self, event):
        await self.tell(event)

    async def tell(self, event):
        await self.send_event({**event, "position": self.position(self.group)._asdict()})
