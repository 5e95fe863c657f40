"""Real sockets: a server in a thread, its end with sockets open, and Django's database under it."""

from __future__ import annotations

import asyncio
import os
import socket
import subprocess
import sys
import textwrap
import threading
import urllib.request
from contextlib import ExitStack
from pathlib import Path
from typing import Any

import pytest
from asgiref.sync import async_to_sync
from django.conf import settings
from django.contrib.auth import get_user_model
from django.db import connections
from websockets.exceptions import ConnectionClosed
from websockets.sync.client import connect
from websockets.typing import Origin

from antiphon.exceptions import MissingExtra
from antiphon.generic.websocket import AsyncWebsocketConsumer, WebsocketConsumer
from antiphon.routing import ProtocolTypeRouter
from antiphon.testing import ChannelsLiveServerTestCase, LiveServer, LiveServerTestCase, fresh_layer
from antiphon.types import Receive, Scope, Send

ROOT = Path(__file__).resolve().parents[2]


async def application(scope: Scope, receive: Receive, send: Send) -> None:
    """Answer HTTP with the path, echo frames of WebSockets."""
    if scope["type"] == "http":
        await receive()
        await send({"type": "http.response.start", "status": 200, "headers": []})
        await send({"type": "http.response.body", "body": scope["path"].encode()})
    elif scope["type"] == "websocket":
        await receive()
        await send({"type": "websocket.accept"})
        while (event := await receive())["type"] == "websocket.receive":
            await send({"type": "websocket.send", "text": event["text"]})


def over_websockets(consumer: Any) -> Any:
    return ProtocolTypeRouter({"websocket": consumer.as_asgi()})


def get(url: str) -> str:
    with urllib.request.urlopen(url, timeout=30) as response:
        body: bytes = response.read()
    return body.decode()


def test_http_and_websockets_are_served_on_a_free_port() -> None:
    with LiveServer(application) as server:
        assert server.port
        assert repr(server) == f"<LiveServer http://localhost:{server.port} running>"
        assert get(server.url + "/hello") == "/hello"
        with connect(server.ws_url + "/ws") as client:
            client.send("hi")
            assert client.recv(timeout=30) == "hi"
        thread = server._thread
    assert thread is not None
    assert not thread.is_alive()
    with pytest.raises(OSError, match="refused"):
        get(server.url)


def test_open_sockets_are_closed_when_it_stops_and_the_application_sees_it() -> None:
    codes = []

    async def watched(scope: Scope, receive: Receive, send: Send) -> None:
        await receive()
        await send({"type": "websocket.accept"})
        codes.append((await receive())["code"])

    server = LiveServer(watched)
    server.start()
    with ExitStack() as stack:
        clients = [stack.enter_context(connect(server.ws_url)) for _ in range(3)]
        server.stop()
        for client in clients:
            with pytest.raises(ConnectionClosed) as closed:
                client.recv(timeout=30)
            assert closed.value.rcvd is not None
            assert closed.value.rcvd.code == 1012
    assert codes == [1012] * 3


def test_an_application_that_does_not_end_is_cancelled() -> None:
    cancelled = threading.Event()

    async def stubborn(scope: Scope, receive: Receive, send: Send) -> None:
        await receive()
        await send({"type": "websocket.accept"})
        try:
            await asyncio.Event().wait()
        finally:
            cancelled.set()

    server = LiveServer(stubborn)
    server.start()
    with connect(server.ws_url):
        server.stop()
        assert cancelled.is_set()


def test_a_peer_that_neither_reads_nor_closes_does_not_hold_it_up() -> None:
    async def floods(scope: Scope, receive: Receive, send: Send) -> None:
        await receive()
        await send({"type": "websocket.accept"})
        while True:
            await send({"type": "websocket.send", "text": "x" * 100_000})

    server = LiveServer(floods)
    server.start()
    with socket.create_connection(("127.0.0.1", server.port)) as peer:
        peer.sendall(
            b"GET / HTTP/1.1\r\nHost: localhost\r\nUpgrade: websocket\r\nConnection: Upgrade\r\n"
            b"Sec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==\r\nSec-WebSocket-Version: 13\r\n\r\n"
        )
        assert peer.recv(12) == b"HTTP/1.1 101"
        server.stop()


def test_a_lifespan_that_fails_is_an_error_of_start() -> None:
    async def fails(scope: Scope, receive: Receive, send: Send) -> None:
        await receive()
        await send({"type": "lifespan.startup.failed", "message": "no database"})

    server = LiveServer(fails)
    with pytest.raises(RuntimeError, match=r"did not start .* 'uvicorn\.error'"):
        server.start()
    server.stop()


def test_a_lifespan_that_never_answers_is_an_error_of_start(monkeypatch: pytest.MonkeyPatch) -> None:
    async def silent(scope: Scope, receive: Receive, send: Send) -> None:
        await asyncio.Event().wait()

    monkeypatch.setattr("antiphon.testing.server.START_LIMIT_S", 0.2)
    with pytest.raises(RuntimeError, match=r"does not answer lifespan\.startup"):
        LiveServer(silent).start()


def test_an_address_in_use_is_an_error_of_start() -> None:
    with LiveServer(application) as server, pytest.raises(OSError, match=r"(?i)in use"):
        LiveServer(application, port=server.port).start()


def test_starting_twice_is_refused() -> None:
    with LiveServer(application) as server, pytest.raises(RuntimeError, match="running already"):
        server.start()


def test_without_uvicorn_it_says_what_to_install(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "uvicorn", None)
    with pytest.raises(MissingExtra, match=r'pip install "antiphon\[server\]"'):
        LiveServer(application).start()


class RoomConsumer(AsyncWebsocketConsumer):
    """Sends what its group hears."""

    groups = ("room",)

    async def room_message(self, event: dict[str, Any]) -> None:
        await self.send(text_data=event["text"])


def test_the_test_reaches_the_servers_connections_through_the_layer() -> None:
    with fresh_layer() as layer, LiveServer(over_websockets(RoomConsumer)) as server, connect(server.ws_url) as client:
        async_to_sync(layer.group_send)("room", {"type": "room.message", "text": "from the test"})
        assert client.recv(timeout=30) == "from the test"


class Names(WebsocketConsumer):
    """Answers a frame with the names in the database, and writes the frame into it."""

    def receive(self, text_data: str | None = None, bytes_data: bytes | None = None) -> None:
        users = get_user_model().objects
        names = ",".join(users.order_by("username").values_list("username", flat=True))
        users.create(username=text_data or "")
        self.send(names)


class OverTheDatabaseOfTheTest(LiveServerTestCase):
    """The test and the server see the same rows."""

    application = over_websockets(Names)
    serve_static = False

    def test_rows_of_the_test_are_seen_and_written(self) -> None:
        get_user_model().objects.create(username="ada")
        with connect(self.live_server_ws_url) as client:
            client.send("bob")
            assert client.recv(timeout=30) == "ada"
        assert get_user_model().objects.filter(username="bob").exists()

    def test_and_are_gone_in_the_next_test(self) -> None:
        with connect(self.live_server_ws_url) as client:
            client.send("eve")
            assert client.recv(timeout=30) == ""


class OverTheProject(ChannelsLiveServerTestCase):
    """The application of the settings, with static files."""

    host = "127.0.0.1"

    def test_urls_and_hosts(self) -> None:
        assert self.live_server_url == type(self).live_server_url == f"http://127.0.0.1:{self.server.port}"
        assert self.live_server_ws_url == f"ws://127.0.0.1:{self.server.port}"
        assert "127.0.0.1" in settings.ALLOWED_HOSTS

    def test_the_project_answers(self) -> None:
        with connect(self.live_server_ws_url + "/ws/echo/", origin=Origin(self.live_server_url)) as client:
            client.send("hi")
            assert client.recv(timeout=30) == ": hi"


def test_the_place_of_connections_is_as_before() -> None:
    assert type(connections._connections).__module__ == "asgiref.local"  # type: ignore[attr-defined]


IN_MEMORY = """
import threading
import urllib.request

import django
from django.conf import settings

settings.configure(
    SECRET_KEY="x",
    ALLOWED_HOSTS=[],
    ROOT_URLCONF=__name__,
    STATIC_URL="static/",
    INSTALLED_APPS=["antiphon", "django.contrib.auth", "django.contrib.contenttypes", "django.contrib.staticfiles"],
    STATICFILES_DIRS=[__import__("pathlib").Path(__file__).parent],
    DATABASES={"default": {"ENGINE": "django.db.backends.sqlite3", "NAME": ":memory:"}},
)
django.setup()

from asgiref.sync import sync_to_async
from django.contrib.auth import get_user_model
from django.core.asgi import get_asgi_application
from django.http import HttpResponse
from django.urls import path
from websockets.sync.client import connect

from antiphon.db import database_sync_to_async
from antiphon.generic.websocket import AsyncWebsocketConsumer, WebsocketConsumer
from antiphon.routing import ProtocolTypeRouter, URLRouter
from antiphon.testing import LiveServerTestCase

def count():
    return str(get_user_model().objects.count())

class Sync(WebsocketConsumer):
    def receive(self, text_data):
        self.send(count())

class Native(AsyncWebsocketConsumer):
    async def receive(self, text_data):
        await get_user_model().objects.acreate(username=text_data)
        await self.send(await database_sync_to_async(count)())
        await self.send(await database_sync_to_async(count, thread_sensitive=False)())

urlpatterns = [path("count/", lambda request: HttpResponse(count()))]

class Tests(LiveServerTestCase):
    application = ProtocolTypeRouter({
        "http": get_asgi_application(),
        "websocket": URLRouter([path("sync/", Sync.as_asgi()), path("native/", Native.as_asgi())]),
    })

    def get(self, path):
        return urllib.request.urlopen(self.live_server_url + path, timeout=30).read()

    def test_every_kind_of_thread_sees_the_rows(self):
        get_user_model().objects.create(username="ada")
        assert self.get("/count/") == b"1"
        with connect(self.live_server_ws_url + "/sync/") as client:
            client.send("x")
            assert client.recv(timeout=30) == "1"
        with connect(self.live_server_ws_url + "/native/") as client:
            client.send("bob")
            assert (client.recv(timeout=30), client.recv(timeout=30)) == ("2", "2")
        assert count() == "2"

    def test_again(self):
        self.test_every_kind_of_thread_sees_the_rows()

    def test_static_files_are_served(self):
        assert b"STATICFILES_DIRS" in self.get("/static/in_memory.py")

class TestsAfter(django.test.TestCase):
    async def test_threads_have_connections_of_their_own_again(self):
        await database_sync_to_async(count)()
"""


def test_a_database_in_memory_is_shared_with_the_threads_of_the_server(tmp_path: Path) -> None:
    tmp_path.joinpath("in_memory.py").write_text(textwrap.dedent(IN_MEMORY))
    program = "import in_memory, sys; from django.test.runner import DiscoverRunner as R; sys.exit(R().run_tests(['in_memory']))"
    environment = {key: value for key, value in os.environ.items() if not key.startswith("DJANGO")}
    done = subprocess.run(
        [sys.executable, "-c", program],
        cwd=tmp_path,
        env={**environment, "PYTHONPATH": os.pathsep.join([str(ROOT / "src"), str(tmp_path)])},
        capture_output=True,
        text=True,
        check=False,
        timeout=50,
    )
    assert done.returncode == 0, done.stderr
    assert "Ran 4 tests" in done.stderr
