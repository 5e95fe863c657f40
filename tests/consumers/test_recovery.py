"""A consumer that comes back with a position: everything it missed, once, in order, or the word that it cannot."""

from __future__ import annotations

import asyncio
import contextlib
from types import SimpleNamespace
from typing import Any

import pytest
from asgiref.sync import async_to_sync

from antiphon import relay
from antiphon.consumers.join_result import JoinResult
from antiphon.exceptions import OptionError
from antiphon.generic.websocket import AsyncJsonWebsocketConsumer, JsonWebsocketConsumer
from antiphon.layers import InMemoryChannelLayer, channel_layers
from antiphon.types import Position
from tests.consumers.client import Client, until, user
from tests.layer.members import numbered

GROUPS = {"room": {"history_size": 50}, "brief": {"history_size": 3}, "last": {"history_size": 5, "recovery": "cache"}}


def since_of(scope: dict[str, Any]) -> Position | None:
    epoch, _, offset = scope["query_string"].decode().partition(":")
    return Position(epoch, int(offset)) if epoch else None


class Chat(AsyncJsonWebsocketConsumer):
    """Joins the group of its path, tells the result, then each message with its position."""

    async def connect(self) -> None:
        await self.accept()
        group = self.scope["path"].strip("/")
        result = await self.join(group, since=since_of(self.scope))
        await self.send_json({"recovered": result.recovered, "position": result.position, "count": result.count})

    async def t(self, message: dict[str, Any]) -> None:
        await self.send_json([message["n"], self.position(self.scope["path"].strip("/"))])

    async def group_lost(self, message: dict[str, Any]) -> None:
        await self.send_json({"lost": message["group"], "last": message["last"], "top": message["top"]})


class SyncChat(JsonWebsocketConsumer):
    def connect(self) -> None:
        self.accept()
        result = self.join("room", since=since_of(self.scope))
        self.send_json({"recovered": result.recovered, "position": result.position, "count": result.count})

    def t(self, message: dict[str, Any]) -> None:
        self.send_json([message["n"], self.position("room")])


class Relayed(Chat):
    @relay
    def t(message: dict[str, Any], position: Position) -> Any:
        return [message["n"], position]


@pytest.fixture
def layer() -> InMemoryChannelLayer:
    layer = InMemoryChannelLayer(groups=GROUPS)
    channel_layers.set("default", layer)
    return layer


def client(group: str = "room", since: Position | None = None, cls: Any = Chat, user: Any = None) -> Client:
    query = f"{since.epoch}:{since.offset}".encode() if since is not None else b""
    return Client(cls.as_asgi(), {"path": f"/{group}", "query_string": query, **({"user": user} if user else {})})


@pytest.mark.parametrize("cls", [Chat, SyncChat, Relayed])
async def test_who_comes_back_gets_what_it_missed_and_then_what_is_new(layer: InMemoryChannelLayer, cls: Any) -> None:
    async with client(cls=cls) as first:
        await first.connect()
        start = Position(*(await first.next_json())["position"])
        await layer.group_send("room", numbered(1))
        n, at = await first.next_json()
        assert (n, at) == (1, [start.epoch, 1])
    for n in range(2, 5):
        await layer.group_send("room", numbered(n))
    async with client(since=Position(*at), cls=cls) as second:
        await second.connect()
        assert await second.next_json() == {"recovered": True, "position": [start.epoch, 4], "count": 3}
        await layer.group_send("room", numbered(5))
        got = [await second.next_json() for _ in range(4)]
        assert got == [[n, [start.epoch, n]] for n in range(2, 6)]


@pytest.mark.parametrize("position", [("", 0), ("another", 1), (None, 99), (None, 1)])
async def test_what_cannot_be_recovered_brings_nothing_of_it(layer: InMemoryChannelLayer, position: Any) -> None:
    for n in range(1, 9):
        await layer.group_send("brief", numbered(n))
    top = await layer.position("brief")
    since = Position(position[0] or top.epoch if position[0] is None else position[0] or "none", position[1])
    async with client("brief", since) as one:
        await one.connect()
        assert await one.next_json() == {"recovered": False, "position": list(top), "count": 0}
        await layer.group_send("brief", numbered(9))
        assert await one.next_json() == [9, [top.epoch, 9]]


async def test_what_is_replayed_competes_for_no_room(layer: InMemoryChannelLayer) -> None:
    class Small(Chat):
        capacity = 2
        overflow = "close"

    for n in range(1, 41):
        await layer.group_send("room", numbered(n))
    epoch = (await layer.position("room")).epoch
    async with client(since=Position(epoch, 0), cls=Small) as one:
        await one.connect()
        assert (await one.next_json())["count"] == 40
        assert [(await one.next_json())[0] for _ in range(40)] == list(range(1, 41))
    assert layer.stats()["drops"] == {}


async def test_a_slow_client_that_was_closed_loses_nothing(layer: InMemoryChannelLayer) -> None:
    gate = asyncio.Event()

    class Slow(Chat):
        capacity = 3
        overflow = "close"

        async def t(self, message: dict[str, Any]) -> None:
            await gate.wait()
            await super().t(message)

    async with client(cls=Slow) as one:
        await one.connect()
        at = (await one.next_json())["position"]
        for n in range(1, 11):
            await layer.group_send("room", numbered(n))
        event = await one.next()
        assert (event["type"], event["code"], event["reason"]) == ("websocket.close", 1013, "slow")
        gate.set()
    seen = [text for text in one.texts if text.startswith("[")]
    last = Position(*at)
    async with client(since=last) as again:
        await again.connect()
        assert (await again.next_json())["count"] == 10 - len(seen)
        assert [(await again.next_json())[0] for _ in range(10 - len(seen))] == list(range(len(seen) + 1, 11))


async def test_cache_recovery_brings_the_newest_alone(layer: InMemoryChannelLayer) -> None:
    start = await layer.position("last")
    for n in range(1, 9):
        await layer.group_send("last", numbered(n))
    top = await layer.position("last")
    for since, expected in ((start, 1), (Position("another", 3), 1), (top, 0)):
        async with client("last", since) as one:
            await one.connect()
            assert await one.next_json() == {"recovered": True, "position": list(top), "count": expected}
            if expected:
                assert await one.next_json() == [8, list(top)]


async def test_authors_do_not_recover_what_they_sent_to_the_others(layer: InMemoryChannelLayer) -> None:
    ada, bob = (SimpleNamespace(pk=pk, is_authenticated=True) for pk in (1, 2))
    async with client(user=ada) as one:
        await one.connect()
        start = Position(*(await one.next_json())["position"])
        (channel,) = await layer.group_channels("room")
        await layer.group_send("room", numbered(1), exclude=[channel])
        await layer.group_send("room", numbered(2))
        assert (await one.next_json())[0] == 2
    for who, expected in ((ada, [2]), (bob, [1, 2]), (None, [1, 2])):
        async with client(since=start, user=who) as back:
            await back.connect()
            assert (await back.next_json())["count"] == len(expected)
            assert [(await back.next_json())[0] for _ in expected] == expected


async def test_copies_of_one_message_are_recovered_once(layer: InMemoryChannelLayer) -> None:
    class Both(Chat):
        async def connect(self) -> None:
            await self.accept()
            counts = [(await self.join(group, since=since)).count for group, since in starts.items()]
            await self.send_json(counts)

    starts = await layer.positions(["room", "brief"])
    await layer.groups_send(["room", "brief"], numbered(1))
    async with client(cls=Both) as one:
        await one.connect()
        assert await one.next_json() == [1, 0]
        assert (await one.next_json())[0] == 1
        await layer.groups_send(["brief", "room"], numbered(2))
        await layer.group_send("room", numbered(3))
        assert [(await one.next_json())[0] for _ in range(2)] == [2, 3]


async def test_a_log_that_is_gone_is_told_to_those_who_listen(layer: InMemoryChannelLayer) -> None:
    class Deaf(AsyncJsonWebsocketConsumer):
        async def connect(self) -> None:
            await self.join("room")
            await self.accept()

        async def t(self, message: dict[str, Any]) -> None:
            await self.send_json(message["n"])

    async with client() as one, Client(Deaf.as_asgi()) as deaf:
        await one.connect()
        await deaf.connect()
        at = (await one.next_json())["position"]
        await layer.group_send("room", numbered(1))
        assert [(await one.next_json())[0], await deaf.next_json()] == [1, 1]
        layer._bus.forget_logs()
        await layer.group_send("room", numbered(2))
        lost = await one.next_json()
        epoch = (await layer.position("room")).epoch
        assert lost == {"lost": "room", "last": [at[0], 1], "top": [epoch, 0]}
        assert [(await one.next_json())[0], await deaf.next_json()] == [2, 2]
        await layer.group_send("room", numbered(3))
        assert [(await one.next_json())[0], await deaf.next_json()] == [3, 3]
    assert layer.stats()["history"]["holes"] == 1


async def test_joining_again_with_a_position_does_not_repeat_what_comes_live(layer: InMemoryChannelLayer) -> None:
    class Twice(Chat):
        async def receive_json(self, content: Any, **kwargs: Any) -> None:
            result = await self.join("room", since=Position(*content))
            await self.send_json({"recovered": result.recovered, "count": result.count})

    async with client(cls=Twice) as one:
        await one.connect()
        at = (await one.next_json())["position"]
        await layer.group_send("room", numbered(1))
        assert (await one.next_json())[0] == 1
        one.text(f'["{at[0]}", 0]')
        assert await one.next_json() == {"recovered": True, "count": 1}
        assert (await one.next_json())[0] == 1
        await layer.group_send("room", numbered(2))
        assert (await one.next_json())[0] == 2


@pytest.mark.parametrize(
    ("since", "error", "said"),
    [(("e", -1), TypeError, "a position is"), (7, TypeError, "a position is"), ("forged", OptionError, "no history"), (Position("e", 1), OptionError, "no history")],
)  # fmt: skip
async def test_wrong_positions_and_groups_without_history(
    layer: InMemoryChannelLayer, since: Any, error: type[Exception], said: str
) -> None:
    raised: list[Exception] = []

    class Wrong(AsyncJsonWebsocketConsumer):
        async def connect(self) -> None:
            try:
                await self.join("plain", since=since)
            except Exception as exc:
                raised.append(exc)
            await self.accept()

    async with Client(Wrong.as_asgi()) as one:
        await one.connect()
    assert type(raised[0]) is error
    assert said in str(raised[0])
    await until(lambda: layer.stats()["groups"] == 0)


async def test_a_thousand_that_come_back_at_once_cost_one_read(layer: InMemoryChannelLayer) -> None:
    reads = 0
    node = layer._node()
    read = node.engine.read  # type: ignore[attr-defined]

    async def counting(*args: Any, **kwargs: Any) -> Any:
        nonlocal reads
        reads += 1
        await asyncio.sleep(0)
        return await read(*args, **kwargs)

    node.engine.read = counting  # type: ignore[attr-defined]
    for n in range(1, 21):
        await layer.group_send("room", numbered(n))
    epoch = (await layer.position("room")).epoch
    clients = [client(since=Position(epoch, 10)) for _ in range(100)]
    for one in clients:
        one.start()
        one.put({"type": "websocket.connect"})
    for one in clients:
        assert (await one.next())["type"] == "websocket.accept"
        assert (await one.next_json())["count"] == 10
        assert [(await one.next_json())[0] for _ in range(10)] == list(range(11, 21))
    assert reads == 1
    for one in clients:
        one.vanish()
        await one.ended()


def test_from_a_loop_that_async_to_sync_made(layer: InMemoryChannelLayer) -> None:
    assert async_to_sync(layer.position)("room").offset == 0
    async_to_sync(layer.group_send)("room", numbered(1))
    assert [one.message["n"] for one in async_to_sync(layer.history)("room")] == [1]


@pytest.mark.parametrize("others", [False, True], ids=["alone", "among others"])
@pytest.mark.parametrize("held", ["top", "read"])
async def test_who_is_put_out_while_it_recovers_is_no_member_and_gets_nothing(
    layer: InMemoryChannelLayer, monkeypatch: pytest.MonkeyPatch, held: str, others: bool
) -> None:
    results: list[JoinResult] = []

    class Again(Chat):
        async def connect(self) -> None:
            await self.accept()
            results.append(await self.join("room", since=since_of(self.scope)))

    await layer.group_send("room", numbered(1))
    start = await layer.position("room")
    await layer.group_send("room", numbered(2))
    logs: Any = layer._node().hub.logs
    waits, goes_on = asyncio.Event(), asyncio.Event()
    read, known = logs.engine.read, asyncio.get_running_loop().create_future()

    async def slow(*args: Any, **kwargs: Any) -> Any:
        waits.set()
        await goes_on.wait()
        return await read(*args, **kwargs)

    def late(topic: str) -> Any:
        waits.set()
        return known

    async with contextlib.AsyncExitStack() as stack:
        if others:
            await (await stack.enter_async_context(client())).connect()
        if held == "top":
            monkeypatch.setattr(logs, "known", late)
        else:
            monkeypatch.setattr(logs.engine, "read", slow)
        again = await stack.enter_async_context(client(since=start, cls=Again, user=user("ada")))
        await again.connect()
        await waits.wait()
        assert await layer.unsubscribe_user("ada", "room") == 1
        monkeypatch.undo()
        goes_on.set()
        known.set_result(None)
        await until(lambda: results)
        assert results == [JoinResult("room")]
        await layer.group_send("room", numbered(3))
        assert [event["type"] for event in again.events] == ["websocket.accept"]
        assert all(list(log.starts) == [] for log in logs.logs.values())
