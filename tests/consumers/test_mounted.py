from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest

# Runs where Django cannot be imported: a server, a real client, and a send from synchronous code.
SCRIPT = """
import json
import sys

class NoDjango:
    def find_spec(self, name, path=None, target=None):
        if name.partition(".")[0] in ("django", "channels"):
            raise ModuleNotFoundError(f"No module named {name!r} (blocked by the test)", name=name)

sys.meta_path.insert(0, NoDjango())

from fastapi import FastAPI
from starlette.applications import Starlette
from starlette.routing import Mount, Route, WebSocketRoute
from starlette.responses import PlainTextResponse
from websockets.sync.client import connect

import antiphon
from antiphon.generic.http import AsyncHttpConsumer
from antiphon.generic.websocket import AsyncJsonWebsocketConsumer, JsonWebsocketConsumer
from antiphon.testing import LiveServer

class Chat(AsyncJsonWebsocketConsumer):
    async def connect(self):
        self.room = "chat_" + self.scope.get("path_params", {}).get("room", "lobby")
        await self.join(self.room)
        await self.accept()

    async def receive_json(self, content, **kwargs):
        await self.channel_layer.group_send(self.room, {"type": "chat.message", "text": content["text"]})

    async def chat_message(self, message):
        await self.send_json({"text": message["text"]})

class SyncChat(JsonWebsocketConsumer):
    groups = ["chat_lobby"]

    def chat_message(self, message):
        self.send_json({"text": message["text"]})

class Hello(AsyncHttpConsumer):
    async def handle(self, body):
        await self.send_response(200, b"hello")

async def index(request=None):
    await antiphon.get_channel_layer().group_send("chat_lobby", {"type": "chat.message", "text": "from a view"})
    return PlainTextResponse("sent")

def starlette():
    return Starlette(routes=[
        Route("/", index),
        WebSocketRoute("/route/{room}", Chat.as_asgi()),
        Mount("/mount", app=Chat.as_asgi()),
        Mount("/sync", app=SyncChat.as_asgi()),
        Mount("/hello", app=Hello.as_asgi()),
    ])

def fastapi():
    app = FastAPI()
    app.add_api_route("/", index)
    app.router.routes.append(WebSocketRoute("/route/{room}", Chat.as_asgi()))
    app.mount("/mount", Chat.as_asgi())
    app.mount("/sync", SyncChat.as_asgi())
    app.mount("/hello", Hello.as_asgi())
    return app

import urllib.request

with LiveServer({"starlette": starlette, "fastapi": fastapi}[sys.argv[1]](), "127.0.0.1") as server:
    with connect(server.ws_url + "/mount/") as one, connect(server.ws_url + "/sync/") as two, \\
         connect(server.ws_url + "/route/other") as three, connect(server.ws_url + "/route/other") as four:
        one.send(json.dumps({"text": "hi"}))
        print([json.loads(ws.recv(5))["text"] for ws in (one, two)])
        print(urllib.request.urlopen(server.url + "/").read().decode())
        print([json.loads(ws.recv(5))["text"] for ws in (one, two)])
        three.send(json.dumps({"text": "there"}))
        print([json.loads(ws.recv(5))["text"] for ws in (three, four)])
        print(antiphon.group_send("chat_lobby", {"type": "chat.message", "text": "from a thread"}).state)
        print([json.loads(ws.recv(5))["text"] for ws in (one, two)])
    print(urllib.request.urlopen(server.url + "/hello/").read().decode())
assert "django" not in sys.modules
"""

ROOT = Path(__file__).resolve().parents[2]


@pytest.mark.parametrize("framework", ["starlette", "fastapi"])
def test_consumers_serve_inside_another_framework_without_django(framework: str) -> None:
    env = {name: value for name, value in os.environ.items() if name != "DJANGO_SETTINGS_MODULE"}
    env["PYTHONPATH"] = os.pathsep.join([str(ROOT / "src"), env.get("PYTHONPATH", "")])
    done = subprocess.run(
        [sys.executable, "-c", SCRIPT, framework],
        capture_output=True,
        text=True,
        timeout=40,
        env=env,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    assert done.stdout.splitlines() == [
        "['hi', 'hi']",
        "sent",
        "['from a view', 'from a view']",
        "['there', 'there']",
        "sent",
        "['from a thread', 'from a thread']",
        "hello",
    ]
