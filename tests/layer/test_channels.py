"""Single channels on one loop: what is sent is received in order, once, and as a copy of its own."""

from __future__ import annotations

import asyncio
import re

from antiphon.layers import InMemoryChannelLayer
from tests.layer.members import HELLO, members, numbered, waits


async def test_what_is_sent_to_a_channel_is_received_in_order(layer: InMemoryChannelLayer) -> None:
    channel = await layer.new_channel()
    for n in range(5):
        await layer.send(channel, numbered(n))
    assert [(await layer.receive(channel))["n"] for _ in range(5)] == list(range(5))
    assert await waits(layer, channel)


async def test_a_worker_channel_keeps_what_is_sent_before_anybody_reads(layer: InMemoryChannelLayer) -> None:
    await layer.send("worker", numbered(1))
    await layer.send("worker", numbered(2))
    assert [(await layer.receive("worker"))["n"] for _ in range(2)] == [1, 2]


async def test_two_readers_of_a_worker_channel_share_its_messages(layer: InMemoryChannelLayer) -> None:
    async def read() -> list[int]:
        found = []
        while (message := await layer.receive("worker")).get("n") is not None:
            found.append(message["n"])
            await asyncio.sleep(0.001)  # work: meanwhile the next message is the other reader's
        return found

    readers = [asyncio.create_task(read()) for _ in range(2)]
    await asyncio.sleep(0)
    for n in range(40):
        await layer.send("worker", numbered(n))
        await asyncio.sleep(0)
    for _ in readers:
        await layer.send("worker", HELLO)
    first, second = await asyncio.gather(*readers)
    assert sorted(first + second) == list(range(40))
    assert first == sorted(first)
    assert second == sorted(second)
    assert first
    assert second


async def test_two_readers_of_one_specific_channel_each_get_messages(layer: InMemoryChannelLayer) -> None:
    channel = await layer.new_channel()
    readers = [asyncio.create_task(layer.receive(channel)) for _ in range(2)]
    await asyncio.sleep(0)
    await layer.send(channel, numbered(1))
    await layer.send(channel, numbered(2))
    assert sorted(message["n"] for message in await asyncio.gather(*readers)) == [1, 2]


async def test_new_channels_have_names_of_their_own_under_the_prefix(layer: InMemoryChannelLayer) -> None:
    names = [await layer.new_channel() for _ in range(50)]
    assert len(set(names)) == 50
    assert all(re.fullmatch(r"specific\.[0-9a-f]{12}!x[0-9a-f]+", name) for name in names)
    assert (await layer.new_channel("mine")).startswith("mine.")
    assert (await layer.new_channel("my.own.")).startswith("my.own.")
    channel = await layer.new_channel("my.own")
    await layer.send(channel, HELLO)
    assert await layer.receive(channel) == HELLO


async def test_a_specific_name_that_nobody_made_belongs_to_its_first_reader(layer: InMemoryChannelLayer) -> None:
    reader = asyncio.create_task(layer.receive("specific.mine!a"))
    await asyncio.sleep(0)
    await layer.send("specific.mine!a", HELLO)
    assert await reader == HELLO
    await layer.group_add("g", "specific.mine!b")
    await layer.group_send("g", HELLO)
    assert await layer.receive("specific.mine!b") == HELLO


async def test_each_receiver_has_its_own_copy(layer: InMemoryChannelLayer) -> None:
    channels = await members(layer, "g", 3)
    sent = {"type": "t", "list": [1]}
    await layer.group_send("g", sent)
    sent["list"] = "changed after the send"
    first = await layer.receive(channels[0])
    first["list"].append(2)
    assert await layer.receive(channels[1]) == {"type": "t", "list": [1]}
    assert await layer.receive(channels[2]) == {"type": "t", "list": [1]}


async def test_nothing_is_left_of_a_worker_channel_that_was_read_to_its_end(layer: InMemoryChannelLayer) -> None:
    for n in range(50):
        await layer.send(f"job-{n}", HELLO)
        await layer.receive(f"job-{n}")
        assert await waits(layer, f"idle-{n}") if n < 3 else True
    assert len(layer.channels) == 0
