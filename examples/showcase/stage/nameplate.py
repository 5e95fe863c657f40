"""Tells each page which process serves its connection, so that one sees messages cross processes. For this demo only."""

import json
import os


class Nameplate:
    """ASGI middleware: the first frame, or event, names the process; ``live.js`` shows it in the status line."""

    def __init__(self, app):
        self.app = app
        self.text = json.dumps({"process": os.getpid()})

    async def __call__(self, scope, receive, send):
        names = False

        async def send_with_name(message):
            nonlocal names
            if message["type"] == "websocket.accept":
                await send(message)
                await send({"type": "websocket.send", "text": self.text})
                return
            if message["type"] == "http.response.start":
                names = message["status"] == 200
            elif names and message["type"] == "http.response.body" and message.get("body"):
                names = False
                message = {**message, "body": message["body"] + f"data: {self.text}\n\n".encode()}
            await send(message)

        await self.app(scope, receive, send_with_name)
