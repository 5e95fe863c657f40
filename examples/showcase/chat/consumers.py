"""The chat: what one connection of a room says, every connection of the room hears, those included that were away.

A room is two groups. ``chat_<room>`` keeps its last messages, so that a page which comes back gets what it missed.
``here_<room>`` keeps nothing: it is for what is over at once, who is here and who is typing.
"""

import time

from antiphon import relay
from antiphon.exceptions import EngineUnavailable
from antiphon.generic.websocket import AsyncJsonWebsocketConsumer
from antiphon.types import Position


class ChatConsumer(AsyncJsonWebsocketConsumer):
    rate_limit = "20/s"  # a client that sends faster is closed

    async def connect(self):
        self.user = self.scope["user"]
        room = self.scope["url_route"]["kwargs"]["room"]
        self.said, self.here = f"chat_{room}", f"here_{room}"
        await self.accept()
        if not self.user.is_authenticated:
            await self.close(code=4401)  # a browser learns the close code of an accepted socket only

    async def authorize_join(self, group):
        return self.user.is_authenticated

    async def receive_json(self, content):
        if not self.user.is_authenticated:
            return
        match content:
            case {"since": {"epoch": str(epoch), "offset": int(offset)}} if offset >= 0:
                await self.enter(Position(epoch, int(offset)))
            case {"text": str(text), "key": str(key)} if text.strip() and key:
                # The page repeats what it has not heard; by its key the group gets it once.
                await self.channel_layer.group_send(
                    self.said,
                    {
                        "type": "chat_message",
                        "sender": self.user.username,
                        "text": text[:1000],
                        "key": key[:64],
                        "at": int(time.time() * 1000),
                    },
                    idempotency_key=key[:64],
                )
            case {"typing": True}:
                await self.channel_layer.group_send(
                    self.here, {"type": "chat_typing", "who": self.user.username}, exclude=[self.channel_name]
                )

    async def enter(self, since):
        """Join; what was said after ``since`` comes next, and then what is said from now on."""
        result = await self.join(self.said, since=since)
        await self.join(self.here)
        if result.position:  # else the page has gone in the meantime
            await self.send_json({"joined": {"recovered": result.recovered, "position": result.position._asdict()}})
            people = await self.channel_layer.presence(self.here)
            await self.send_json({"here": [person.info["name"] for person in people] + [self.user.username]})

    def presence_info(self, group):
        return {"name": self.user.username}

    async def presence_join(self, event):
        await self.send_json({"came": [person["info"]["name"] for person in event["users"]]})

    async def presence_leave(self, event):
        await self.send_json({"left": [person["info"]["name"] for person in event["users"]]})

    @relay  # the same for everybody in the room, so it runs once for all of them
    def chat_message(event, position):
        said = {name: event[name] for name in ("sender", "text", "key", "at")}
        return {"said": said, "position": position._asdict()}

    @relay
    def chat_typing(event):
        return {"typing": event["who"]}

    async def group_lost(self, event):
        """Say that the engine itself has lost messages: the page loads the room anew."""
        await self.send_json({"lost": {"top": event["top"] and Position(*event["top"])._asdict()}})

    def on_error(self, exc, handler):
        # The engine is away: the page is closed (1011), comes back, and says again what it has not heard.
        if not isinstance(exc, EngineUnavailable):
            super().on_error(exc, handler)
