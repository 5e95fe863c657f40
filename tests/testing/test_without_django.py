"""The communicators for users of Starlette: nothing of Django is imported, no server is needed."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

ROOT = Path(__file__).resolve().parents[2]

PROGRAM = """
import asyncio, sys

class Blocked:
    def find_spec(self, name, path=None, target=None):
        if name.split(".")[0] in {"django", "uvicorn", "websockets", "pytest", "channels", "daphne"}:
            raise ModuleNotFoundError("blocked: " + name)

sys.meta_path.insert(0, Blocked())

from starlette.applications import Starlette
from starlette.responses import JSONResponse, PlainTextResponse, StreamingResponse
from starlette.routing import Route, WebSocketRoute
from starlette.websockets import WebSocket

import antiphon.testing
from antiphon.testing import *

async def echo(socket: WebSocket):
    await socket.accept()
    async for text in socket.iter_text():
        await socket.send_text(text)

async def deny(socket: WebSocket):
    await socket.receive()
    await socket.send_denial_response(PlainTextResponse("go away", status_code=429))

async def body(request):
    return JSONResponse({"got": (await request.body()).decode()})

async def stream(request):
    async def parts():
        for part in ("a", "b"):
            yield part
    return StreamingResponse(parts())

app = Starlette(routes=[WebSocketRoute("/echo", echo), WebSocketRoute("/deny", deny),
                        Route("/body", body, methods=["POST"]), Route("/stream", stream)])

async def main():
    async with WebsocketCommunicator(app, "/echo") as client:
        await client.send_to("hi")
        assert await client.receive_from() == "hi"
    client = WebsocketCommunicator(app, "/deny", extensions={"websocket.http.response": {}})
    assert await client.connect() == (False, 429)
    assert client.denial_response["body"] == b"go away"
    response = await HttpCommunicator(app, "POST", "/body", b"x").get_response()
    assert (response["status"], response["body"]) == (200, b'{"got":"x"}')
    response = await HttpCommunicator(app, "GET", "/stream").get_response()
    assert response["body"] == b"ab"

asyncio.run(main())
try:
    antiphon.testing.LiveServerTestCase
except ImportError as exc:
    assert "django" in str(exc)
else:
    raise AssertionError
try:
    LiveServer(app).start()
except ImportError as exc:
    assert "antiphon[server]" in str(exc)
try:
    antiphon.testing.NoSuchName
except AttributeError as exc:
    assert "NoSuchName" in str(exc)
print("all right")
"""


def test_communicators_need_neither_django_nor_a_server() -> None:
    environment = {key: value for key, value in os.environ.items() if not key.startswith("DJANGO")}
    done = subprocess.run(
        [sys.executable, "-W", "error", "-c", PROGRAM],
        env={**environment, "PYTHONPATH": str(ROOT / "src")},
        capture_output=True,
        text=True,
        check=False,
        timeout=50,
    )
    assert done.stdout == "all right\n", done.stderr
