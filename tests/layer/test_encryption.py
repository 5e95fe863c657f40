"""Encrypted bodies on a real server: nobody reads them, nobody plants them, and keys are changed under way."""

from __future__ import annotations

import asyncio
import os
from collections.abc import AsyncIterator, Callable, Sequence
from contextlib import suppress
from typing import Any

import pytest
import redis

from antiphon import group_send, send
from antiphon.generic.websocket import AsyncJsonWebsocketConsumer
from antiphon.layers import RedisChannelLayer, channel_layers
from antiphon.testing import WebsocketCommunicator
from antiphon.testing.faults import ValkeyServer

SECRET = "a body that nobody may read"  # searched for on the server
MESSAGE = {"type": "t", "text": SECRET}
Make = Callable[..., RedisChannelLayer]


@pytest.fixture
async def make(valkey: ValkeyServer, fresh_prefix: str) -> AsyncIterator[Make]:
    """Return a maker of layers on one server, each as another process would have it."""
    made: list[RedisChannelLayer] = []

    def make(*keys: str) -> RedisChannelLayer:
        made.append(
            RedisChannelLayer(
                hosts=[valkey.url],
                prefix=fresh_prefix,
                symmetric_encryption_keys=keys or None,
                capacity=1000,
                timeout_s=3.0,
            )
        )
        return made[-1]

    yield make
    for layer in made:
        await layer.close()


@pytest.fixture
def client(valkey: ValkeyServer) -> redis.Redis:
    """Whoever can reach the server."""
    return redis.Redis.from_url(valkey.tcp_url)


async def member(layer: RedisChannelLayer, *groups: str) -> str:
    channel: str = await layer.new_channel()
    for group in groups:
        await layer.group_add(group, channel)
    return channel


async def received(layer: RedisChannelLayer, channel: str) -> Any:
    return await asyncio.wait_for(layer.receive(channel), 30)


async def settled(check: Callable[[], bool]) -> None:
    async with asyncio.timeout(30):
        while not check():  # noqa: ASYNC110  # counters have no event
            await asyncio.sleep(0.01)


async def everything_works(sender: RedisChannelLayer, receiver: RedisChannelLayer) -> None:
    """Send every way from one to the other, and ask the other's node."""
    channel = await member(receiver, "g", "h")
    await sender.group_send("g", MESSAGE)
    await sender.groups_send(["g", "h"], MESSAGE)
    await sender.send(channel, MESSAGE)
    for _ in range(3):
        assert await received(receiver, channel) == MESSAGE
    await receiver.group_add("g", "worker")
    await sender.group_send("g", MESSAGE, exclude=[channel])
    await sender.send("worker", MESSAGE)
    assert [await received(receiver, "worker") for _ in range(2)] == [MESSAGE, MESSAGE]
    count = await sender.group_count("g")
    assert (count, count.complete) == (2, True)
    await sender.group_discard("g", channel)
    assert await receiver.group_channels("g") == ["worker"]
    await receiver.group_discard("g", "worker")
    await receiver.group_discard("h", channel)
    assert receiver.stats()["drops"] == sender.stats()["drops"] == {}


@pytest.mark.parametrize("keys", [(), ("key",)])  # without keys, to show that a body or a call would be seen here
async def test_every_way_to_send_is_encrypted_and_the_server_sees_nothing(
    make: Make, valkey: ValkeyServer, fresh_prefix: str, keys: Sequence[str]
) -> None:
    with redis.Redis.from_url(valkey.tcp_url, socket_timeout=0.3).monitor() as monitor:  # type: ignore[no-untyped-call]
        await everything_works(make(*keys), make(*keys))
        seen = ""
        with suppress(redis.TimeoutError):
            while True:
                seen += str(monitor.next_command()["command"]) + "\n"
    assert seen.count(f"PUBLISH {fresh_prefix}:a1:{{g:g}} ") == 3
    assert [word in seen for word in (SECRET, "answer")] == [not keys] * 2


async def test_synchronous_code_encrypts_too(make: Make) -> None:
    sender, receiver = make("key"), make("key")
    channel = await member(receiver, "g")
    channel_layers.set("default", sender)
    await asyncio.to_thread(group_send, "g", MESSAGE)
    await asyncio.to_thread(send, channel, MESSAGE)
    await asyncio.to_thread(send, "worker", MESSAGE)
    assert [await received(receiver, name) for name in (channel, channel, "worker")] == [MESSAGE] * 3


@pytest.mark.parametrize(
    ("before", "after"),
    [
        (("old",), ("old", "new")),
        (("old", "new"), ("new", "old")),
        (("new", "old"), ("new",)),
    ],
)
async def test_each_step_of_a_rotation_loses_nothing_while_processes_of_both_sides_run(
    make: Make, before: Sequence[str], after: Sequence[str]
) -> None:
    layers = [make(*before), make(*after)]
    channels = [await member(layer, "rotating") for layer in layers]
    for n in range(50):
        for layer in layers:
            await layer.group_send("rotating", {"type": "t", "n": n})
            await layer.send("worker", {"type": "t", "n": n})
    for layer, channel in zip(layers, channels, strict=True):
        assert sorted([(await received(layer, channel))["n"] for _ in range(100)]) == sorted([*range(50)] * 2)
        assert [(await received(layer, "worker"))["n"] for _ in range(50)]
        assert layer.stats()["drops"] == {}
    await everything_works(*layers)
    await everything_works(*reversed(layers))


async def test_what_waited_over_a_rotation_is_still_read(make: Make) -> None:
    await make("old").send("worker", MESSAGE)
    assert await received(make("new", "old"), "worker") == MESSAGE


async def test_a_message_moved_to_another_group_is_refused_and_nothing_else_is(
    make: Make, client: redis.Redis, fresh_prefix: str
) -> None:
    layer = make("key")
    channel = await member(layer, "poor", "rich")
    listener = client.pubsub()  # type: ignore[no-untyped-call]  # redis-py is typed in part
    listener.subscribe(f"{fresh_prefix}:a1:{{g:poor}}")
    await layer.group_send("poor", {"type": "t", "n": 1})
    taken: list[bytes] = []
    while not taken:
        event = listener.get_message(timeout=30)
        assert event is not None
        taken += [event["data"]] if event["type"] == "message" else []
    assert (await received(layer, channel))["n"] == 1
    client.publish(f"{fresh_prefix}:a1:{{g:rich}}", taken[0])
    bent = bytearray(taken[0])
    bent[4] ^= 1  # another sender
    client.publish(f"{fresh_prefix}:a1:{{g:poor}}", bytes(bent))
    await settled(lambda: layer.stats()["drops"] == {"undecodable": 2})
    assert layer.stats()["drops_by_group"] == {"rich:undecodable": 1, "poor:undecodable": 1}
    await layer.group_send("rich", {"type": "t", "n": 2})
    assert (await received(layer, channel))["n"] == 2


@pytest.mark.parametrize("keys", [(), ("key",)])
async def test_foreign_bytes_on_every_topic_are_counted_and_harm_nobody(
    make: Make, client: redis.Redis, fresh_prefix: str, keys: Sequence[str]
) -> None:
    layer = make(*keys)
    channel_layers.set("default", layer)

    class Chat(AsyncJsonWebsocketConsumer):
        groups = ("g",)
        user_channel = True

        async def t(self, message: dict[str, Any]) -> None:
            await self.send_json(message["text"])

    socket = WebsocketCommunicator(Chat.as_asgi(), "/")
    socket.scope["user"] = _User()
    await socket.connect()
    [node] = layer._alive()
    plain, sealed = make(), make("another key")
    await plain.group_send("g", MESSAGE)
    await sealed.group_send("g", MESSAGE)
    assert not (await sealed.group_count("g")).complete
    junk = [b"", b"\xa7", os.urandom(200), b"\xa7\x01\x00\x00" + b"\xc1" * 30, b"\xa7\x01\x01\x02" + os.urandom(99)]
    if not keys:
        assert await socket.receive_json_from() == SECRET  # from ``plain``
    for topic in ("g:g", "u:7", f"n:{node.id}", "c:"):
        for payload in junk:
            assert client.publish(f"{fresh_prefix}:a1:{{{topic}}}", payload) >= 1
    for payload in junk:
        await node.engine.put("worker", payload, 100, 60)  # type: ignore[attr-defined]  # a RedisEngine
    await layer.send("worker", MESSAGE)
    assert await received(layer, "worker") == MESSAGE
    await layer.group_send("g", MESSAGE)
    assert await socket.receive_json_from() == SECRET
    await layer.user_send(7, MESSAGE)
    assert await socket.receive_json_from() == SECRET
    assert await layer.group_count("g") == 1
    assert await socket.receive_nothing()
    # More: what new nodes ask all others. Without keys, a valid header lets a body through to whoever decodes it; on
    # an inbox or "c:" that is nobody.
    expected = 3 + 5 * len(junk) if keys else 2 + 5 * len(junk) - 2
    stats = layer.stats()
    assert stats["drops"].keys() == {"undecodable"}
    assert stats["drops"]["undecodable"] == stats["undecodable"] >= expected
    await socket.disconnect()


class _User:
    is_authenticated = True
    pk = 7


@pytest.mark.parametrize(("senders", "receivers"), [((), ("key",)), (("key",), ()), (("key",), ("other",))])
async def test_who_has_no_key_or_another_one_is_not_heard_and_that_is_counted(
    make: Make, senders: Sequence[str], receivers: Sequence[str], caplog: pytest.LogCaptureFixture
) -> None:
    sender, receiver = make(*senders), make(*receivers)
    channel = await member(receiver, "g")
    await sender.group_send("g", MESSAGE)
    await sender.send(channel, MESSAGE)
    await sender.send("worker", MESSAGE)
    with pytest.raises(TimeoutError):
        await asyncio.wait_for(receiver.receive("worker"), 0.3)
    await settled(lambda: receiver.stats()["drops"].get("undecodable", 0) >= 3)
    assert receiver.stats()["drops"].keys() == {"undecodable"}
    assert receiver.stats()["drops_by_group"] == {"g:undecodable": 1}
    assert receiver.stats()["waiting"] == 0
    assert SECRET not in caplog.text
    await receiver.group_send("g", MESSAGE)
    assert await received(receiver, channel) == MESSAGE


def test_what_is_no_list_of_keys_is_refused(valkey: ValkeyServer) -> None:
    for keys in ("key", b"key", [""], [None]):
        with pytest.raises(ValueError, match="symmetric_encryption_keys"):
            RedisChannelLayer(hosts=[valkey.url], symmetric_encryption_keys=keys)  # type: ignore[arg-type]
    assert not RedisChannelLayer(hosts=[valkey.url], symmetric_encryption_keys=[]).stats()["nodes"]
