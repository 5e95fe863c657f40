"""Who is in a group: what a layer says of it, who hears of whom, and who does not."""

from __future__ import annotations

import asyncio
from typing import Any

import pytest

import antiphon
from antiphon.exceptions import OptionError
from antiphon.generic.websocket import AsyncJsonWebsocketConsumer
from antiphon.layers import InMemoryChannelLayer, channel_layers
from antiphon.types import Message
from tests.consumers.client import Client, user
from tests.layer.presence.house import becomes

GRACE_S = 0.2
GROUPS = {
    "room": {"presence": True, "presence_grace_s": GRACE_S},
    "log": {"presence": True, "presence_grace_s": 0, "history_size": 50},
    "patient": {"presence": True, "presence_grace_s": 600},
}


class Chat(AsyncJsonWebsocketConsumer):
    groups: Any = ("room",)

    def presence_info(self, group: str) -> dict[str, Any]:
        return {"path": self.scope["path"]}

    async def presence_join(self, message: Message) -> None:
        for each in message["users"]:
            await self.send_json(["join", message["group"], each["user"], each["info"]])

    async def presence_leave(self, message: Message) -> None:
        for each in message["users"]:
            await self.send_json(["leave", message["group"], each["user"], each["info"]])


class Deaf(AsyncJsonWebsocketConsumer):
    groups: Any = ("room",)

    async def t(self, message: Message) -> None:
        await self.send_json(message["n"])


@pytest.fixture
async def layer() -> Any:
    layer = InMemoryChannelLayer(groups=GROUPS)
    channel_layers.set("default", layer)
    yield layer
    await layer.close()


def client(cls: Any = Chat, pk: Any = None, path: str = "/") -> Client:
    return Client(cls.as_asgi(), {"path": path, **({"user": user(pk)} if pk is not None else {})})


async def test_members_are_listed_counted_and_online(layer: InMemoryChannelLayer) -> None:
    async with client(pk=7, path="/a") as one, client(pk=7, path="/b") as two, client() as third:
        for each in (one, two, third):
            await each.connect()
        members = await layer.presence("room")
        assert sorted((member.user or "", member.info["path"], member.away) for member in members) == [
            ("", "/", False),
            ("7", "/a", False),
            ("7", "/b", False),
        ]
        assert await layer.presence_stats("room") == (3, 2)
        assert await layer.online([7, 8]) == [7]
        first = await layer.presence("room", limit=2)
        rest = await layer.presence("room", limit=2, cursor=first.cursor)
        assert {member.channel for member in [*first, *rest]} == {member.channel for member in members}
        assert rest.cursor is None
        assert await asyncio.to_thread(antiphon.presence_stats, "room") == (3, 2)
        assert await asyncio.to_thread(antiphon.online, [7, 8]) == [7]
        assert len(await asyncio.to_thread(antiphon.presence, "room")) == 3


async def test_joins_and_leaves_are_told_to_those_who_listen_once_a_user(layer: InMemoryChannelLayer) -> None:
    async with client() as watching, client(Deaf) as deaf:
        await watching.connect()
        await deaf.connect()
        assert (await watching.next_json())[:3] == ["join", "room", None]  # itself
        assert (await watching.next_json())[:3] == ["join", "room", None]  # the deaf one
        async with client(pk=7, path="/a") as one, client(pk=7, path="/b") as two:
            await one.connect()
            assert await watching.next_json() == ["join", "room", "7", {"path": "/a"}]
            await two.connect()
        assert (await watching.next_json())[:3] == ["leave", "room", "7"]
        await layer.group_send("room", {"type": "t", "n": 1})
        assert await deaf.next_json() == 1


async def test_a_reload_makes_no_noise(layer: InMemoryChannelLayer) -> None:
    class Patient(Chat):
        groups = ("patient",)

    async with client(Patient, pk=1) as watching:
        await watching.connect()
        assert (await watching.next_json())[2] == "1"
        for _ in range(3):
            async with client(Patient, pk=7) as one:
                await one.connect()
        assert (await watching.next_json())[:3] == ["join", "patient", "7"]

        async def who() -> list[Any]:
            return [(member.user, member.away) for member in await layer.presence("patient")]

        await becomes(who, [("1", False), ("7", True)])
        async with client(Patient, pk=8) as other:
            await other.connect()
            assert (await watching.next_json())[:3] == ["join", "patient", "8"]


async def test_joins_and_leaves_stand_in_the_groups_history(layer: InMemoryChannelLayer) -> None:
    class Logged(Chat):
        groups = ()

        async def connect(self) -> None:
            await self.accept()
            await self.join("log", since=self.scope.get("since"))

    async with client(Logged, pk=1) as one:
        await one.connect()
        await one.next_json()
        start = await layer.position("log")

    async def top() -> int:
        return (await layer.position("log")).offset

    await becomes(top, start.offset + 1)
    async with client(Logged, pk=2) as two:
        await two.connect()
        await two.next_json()
    await becomes(top, start.offset + 3)
    async with Client(Logged.as_asgi(), {"path": "/", "user": user(3), "since": start}) as back:
        await back.connect()
        told = [await back.next_json() for _ in range(4)]
        assert [each[0:3:2] for each in told] == [["leave", "1"], ["join", "2"], ["leave", "2"], ["join", "3"]]
    assert len(await layer.history("log")) == 0  # they are no messages of the application


async def test_leaving_a_group_and_being_put_out(layer: InMemoryChannelLayer) -> None:
    class Leaving(Chat):
        async def receive_json(self, content: Any, **kwargs: Any) -> None:
            await self.leave("room")

    async with client(Leaving, pk=7) as one, client(pk=8) as two:
        await one.connect()
        await two.connect()
        one.text("{}")
        while (await two.next_json())[:3] != ["leave", "room", "7"]:
            pass
        assert await layer.unsubscribe_user(8, "room") == 1

        async def users() -> int:
            return (await layer.presence_stats("room")).users

        await becomes(users, 0)


async def test_a_group_without_presence_says_so(layer: InMemoryChannelLayer) -> None:
    with pytest.raises(OptionError, match="has no presence"):
        await layer.presence("other")
    with pytest.raises(OptionError, match="no group of this layer has presence"):
        await InMemoryChannelLayer().online([1])
    with pytest.raises(ValueError, match="limit"):
        await layer.presence("room", limit=0)
    with pytest.raises(ValueError, match="cursor"):
        await layer.presence("room", cursor="é")


async def test_who_logs_in_on_an_open_connection_is_another_member(layer: InMemoryChannelLayer) -> None:
    async with client() as one:
        await one.connect()
        await one.next_json()
        one.scope["antiphon.connection"].scope["user"] = user(9)
        one.scope["antiphon.connection"].identify()
        while (await one.next_json())[:3] != ["join", "room", "9"]:
            pass
        assert [member.user for member in await layer.presence("room") if not member.away] == ["9"]


async def test_who_cannot_say_who_it_is_has_not_joined(layer: InMemoryChannelLayer) -> None:
    class Faceless(AsyncJsonWebsocketConsumer):
        async def connect(self) -> None:
            await self.accept()
            with pytest.raises(ValueError, match="1024 at most"):
                await self.join("log")
            with pytest.raises(ValueError, match="1024 at most"):
                await self.join("log", since=await layer.position("log"))
            await self.send_json(self.scope["antiphon.connection"].mailbox.channel)

        def presence_info(self, group: str) -> dict[str, Any]:
            return {"all of it": "x" * 2000}

    async with client(Faceless, pk=7) as one:
        await one.connect()
        assert await one.next_json()
        assert await layer.group_count("log") == 0
        assert await layer.presence_stats("log") == (0, 0)
