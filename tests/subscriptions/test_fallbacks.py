"""The ways without a WebSocket: streams of lines and of events, and commands that come by requests of their own."""

from __future__ import annotations

import asyncio
import json
from collections.abc import AsyncIterator
from typing import Any
from urllib.parse import quote

import pytest

from antiphon.engines.memory import MemoryBus
from antiphon.layers import InMemoryChannelLayer, channel_layers
from antiphon.subscriptions import desk
from tests.consumers.client import Client, members, until, user
from tests.layer.places import FarLayer, Place
from tests.subscriptions.conftest import GROUPS
from tests.subscriptions.speaking import Open


class Stream(Client):
    """A client over a stream: of events, or of lines."""

    def __init__(self, cls: Any = Open, *, events: bool, **scope: Any) -> None:
        self.says_events = events
        self.connecting = json.dumps({"id": 1, "connect": scope.pop("connect", {})})
        query = f"cf_connect={quote(self.connecting)}".encode() if events else b""
        method = "GET" if events else "POST"
        super().__init__(cls.as_asgi(), {"type": "http", "method": method, "query_string": query, **scope})
        self.lines: list[str] = []
        self.number = 1
        self.address: dict[str, str] = {}

    async def part(self) -> bytes:
        event = await self.next()
        assert event["type"] == "http.response.body"
        body: bytes = event["body"]
        return body

    async def line(self) -> Any:
        while not self.lines:
            text = (await self.part()).decode()
            if self.says_events:
                assert text.endswith("\n\n")
                assert all(line.startswith("data: ") for line in text.split("\n")[:-2])
                text = text.replace("data: ", "")[:-1]
            assert text.endswith("\n")
            self.lines = text[:-1].split("\n")
        return json.loads(self.lines.pop(0))

    async def begin(self) -> dict[str, Any]:
        self.request(b"" if self.says_events else self.connecting.encode())
        start = await self.next()
        assert start["status"] == 200
        kind = dict(start["headers"])[b"content-type"]
        assert kind.startswith(b"text/event-stream" if self.says_events else b"application/x-ndjson")
        result: dict[str, Any] = (await self.line())["connect"]
        self.address = {"session": result["session"], "node": result["node"]}
        return result

    async def do(self, method: str, /, **fields: Any) -> Any:
        self.number += 1
        assert await post(Open, **self.address, data=json.dumps({"id": self.number, method: fields})) == 204
        line = await self.line()
        assert line["id"] == self.number
        return line["error"] if "error" in line else line[method]

    async def push(self, kind: str = "pub") -> Any:
        push = (await self.line())["push"]
        return push["channel"], push[kind]


async def post(cls: Any, **content: Any) -> int:
    return await requested(cls, "POST", json.dumps(content).encode())


async def requested(cls: Any, method: str, *body: bytes, query: bytes = b"") -> int:
    scope = {"type": "http", "method": method, "query_string": query, "path": "/emulation"}
    async with Client(cls.as_asgi(), scope) as client:
        for part in body[:-1]:
            client.request(part, more=True)
        client.request(body[-1] if body else b"")
        status: int = (await client.next())["status"]
        assert await client.next() == {"type": "http.response.body", "body": b"", "more_body": False}
        await client.ended()
        return status


both = pytest.mark.parametrize("events", [True, False], ids=["events", "lines"])


@both
async def test_a_stream_does_all_that_a_socket_does(layer: InMemoryChannelLayer, events: bool) -> None:
    async with Stream(events=events, user=user(7)) as one:
        assert (await one.begin())["ping"] == 25
        assert (await one.do("subscribe", channel="log"))["recoverable"] is True
        assert await one.do("publish", channel="log", data="a\nb") == {}
        channel, pub = await one.push()
        assert (channel, pub["data"], pub["offset"], pub["info"]["user"]) == ("log", "a\nb", 1, "7")
        await layer.group_send("log", {"type": "publication", "data": "é"})
        assert await one.push() == ("log", {"data": "é", "offset": 2})
        assert await one.do("unsubscribe", channel="log") == {}
        result = await one.do("subscribe", channel="log", recover=True)
        assert [each["offset"] for each in result["publications"]] == [1, 2]
        layer._bus.forget_logs()
        await layer.group_send("log", {"type": "publication", "data": 3})
        assert await one.push("unsubscribe") == ("log", {"code": 2500, "reason": "insufficient state"})
    await until(lambda: members("log") == 0)


@both
async def test_a_stream_says_why_it_ends(layer: InMemoryChannelLayer, events: bool) -> None:
    heard: list[Any] = []

    class Hearing(Open):
        async def on_unsubscribe(self, group: str) -> None:
            heard.append(group)

        async def on_disconnect(self, code: int) -> None:
            heard.append(code)

    async with Stream(Hearing, events=events, user=user(7)) as one:
        await one.begin()
        await one.do("subscribe", channel="room")
        await layer.close_user(7)
        assert (await one.line())["push"]["disconnect"] == {"code": 3503, "reason": "revoked"}
        assert await one.next() == {"type": "http.response.body", "body": b"", "more_body": False}
        await one.ended()
    assert heard == ["room", 1006]
    async with Stream(events=events) as two:
        await two.begin()
        assert await post(Open, **two.address, data="nonsense") == 204
        assert (await two.line())["push"]["disconnect"] == {"code": 3501, "reason": "bad request"}
        assert (await two.next())["more_body"] is False
        await two.ended()
    assert len(desk._desks) == 0


async def test_a_bad_token_and_too_many_connections_end_a_stream_that_has_begun(layer: InMemoryChannelLayer) -> None:
    class Single(Open):
        max_connections_per_user = 1

    async with Stream(events=False, connect={"token": "forged"}) as one:
        one.request(one.connecting.encode())
        assert (await one.next())["status"] == 200
        assert (await one.line())["push"]["disconnect"]["code"] == 3500
        await one.ended()
    async with Stream(Single, events=False, user=user(1)) as one:
        await one.begin()
        async with Stream(Single, events=False, user=user(1)) as two:
            two.request(two.connecting.encode())
            assert (await two.next())["status"] == 200
            assert (await two.line())["push"]["disconnect"]["code"] == 3504
            await two.ended()


async def test_commands_keep_the_order_in_which_their_requests_came(layer: InMemoryChannelLayer) -> None:
    class Slow(Open):
        async def authorize_subscribe(self, group: str) -> bool:
            await asyncio.sleep(0.001)
            return True

    async with Stream(Slow, events=False) as one:
        await one.begin()
        for number in range(2, 32):
            command = {"id": number, "subscribe": {"channel": f"g{number}"}}
            assert await post(Open, **one.address, data=json.dumps(command)) == 204
        assert [(await one.line())["id"] for _ in range(30)] == list(range(2, 32))


@pytest.mark.parametrize(
    ("method", "body", "query", "status"),
    [
        ("OPTIONS", b"", b"", 204),
        ("PUT", b"", b"", 405),
        ("GET", b"", b"", 400),
        ("GET", b"", b"cf_connect=", 400),
        ("GET", b"", b"cf_connect=" + quote('{"id":1,"connect":{}}\n{"id":2,"rpc":{"method":"m"}}').encode(), 400),
        ("POST", b'{"id":1,"connect":{}}\n{"id":2,"rpc":{"method":"m"}}', b"", 400),
        ("POST", b'{"id":1,\n"connect":{}}', b"", 400),
        ("POST", b"", b"", 400),
        ("POST", b"\xff", b"", 400),
        ("POST", b"[" * 50_000, b"", 400),
        ("POST", b'{"session":1,"node":"n","data":"{}"}', b"", 400),
        ("POST", b'{"session":"s","data":"{}"}', b"", 400),
        ("POST", b'{"session":"s","node":"specific.abc!1","data":"{}"}', b"", 404),
        ("POST", b'{"session":"s","node":"0123456789ab.1","data":"{}"}', b"", 404),
        ("POST", b" " * 65537, b"", 413),
    ],
)
async def test_a_request_that_is_none_has_its_status(
    layer: InMemoryChannelLayer, method: str, body: bytes, query: bytes, status: int
) -> None:
    assert await requested(Open, method, body[:10], body[10:], query=query) == status


async def test_what_is_said_for_a_session_that_nobody_has_reaches_nobody(layer: InMemoryChannelLayer) -> None:
    async with Stream(events=False) as one:
        await one.begin()
        node = one.address["node"]
        assert await post(Open, session="x" * 32, node=node, data='{"id":5,"rpc":{"method":"m"}}') == 204
        await layer.send(desk.channel_of(node) or "", {"type": "nonsense"})
        assert (await one.do("rpc", method="m"))["code"] == 104
    assert await post(Open, **one.address, data="{}") == 204  # its node lives, and its stream has ended


async def test_who_sends_more_requests_than_are_handled_is_closed(layer: InMemoryChannelLayer) -> None:
    started, go = asyncio.Event(), asyncio.Event()

    class Slow(Open):
        async def rpc_wait(self, data: Any) -> None:
            started.set()
            await go.wait()

    async with Stream(Slow, events=False) as one:
        await one.begin()
        await post(Open, **one.address, data='{"id":2,"rpc":{"method":"wait"}}')
        await started.wait()
        for _ in range(300):
            await post(Open, **one.address, data="{}")
        assert (await one.line())["push"]["disconnect"] == {"code": 3509, "reason": "rate_limit"}
        go.set()


@pytest.fixture
async def elsewhere() -> AsyncIterator[Place]:
    """A place with a layer of its own, called "elsewhere" here, over the same engine as the default one."""
    bus = MemoryBus()
    here, there = FarLayer(bus, groups=GROUPS), FarLayer(bus, groups=GROUPS)
    channel_layers.set("default", here)
    channel_layers.set("elsewhere", there)
    place = Place(there)
    yield place
    await here.close()
    place.stop()


async def test_commands_may_come_to_another_process(elsewhere: Place) -> None:
    class Elsewhere(Open):
        channel_layer_alias = "elsewhere"

    async with Stream(events=True) as one:
        await one.begin()
        command = json.dumps({"id": 2, "subscribe": {"channel": "room"}})
        post_there = post(Elsewhere, **one.address, data=command)
        assert await asyncio.to_thread(elsewhere.run, post_there) == 204
        assert await one.line() == {"id": 2, "subscribe": {}}
        gone = {**one.address, "node": "0" * 12 + ".1"}
        assert await asyncio.to_thread(elsewhere.run, post(Elsewhere, **gone, data="{}")) == 404
