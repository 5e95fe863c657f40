"""Tells each page which process serves its WebSocket, so that one sees messages cross processes. For this demo only."""

import json
import os


class Nameplate:
    """ASGI middleware for WebSockets: the first frame names the process; ``live.js`` shows it in the status line."""

    def __init__(self, app):
        self.app = app
        self.frame = json.dumps({"process": os.getpid()})

    async def __call__(self, scope, receive, send):
        async def send_with_name(message):
            await send(message)
            if message["type"] == "websocket.accept":
                await send({"type": "websocket.send", "text": self.frame})

        await self.app(scope, receive, send_with_name)
