"""What bounds a channel: its capacity, and the times after which messages and memberships are gone."""

from __future__ import annotations

import asyncio
import re

import pytest

from antiphon.exceptions import ChannelFull
from tests.layer.conftest import Make
from tests.layer.members import HELLO, members, numbered, waits
from tests.waiting import until


async def test_a_full_channel_refuses_the_next_message_and_takes_it_after_a_receive(make: Make) -> None:
    layer = make(capacity=3)
    for channel in ("worker", await layer.new_channel()):
        for n in range(3):
            await layer.send(channel, numbered(n))
        with pytest.raises(ChannelFull):
            await layer.send(channel, numbered(3))
        await layer.receive(channel)
        await layer.send(channel, numbered(4))
        assert [(await layer.receive(channel))["n"] for _ in range(3)] == [1, 2, 4]


async def test_capacity_is_set_by_glob_and_by_pattern_and_the_first_match_wins(make: Make) -> None:
    layer = make(
        capacity=9,
        channel_capacity={"http.request": 1, re.compile(r"^worker-\d+$"): 2, "worker*": 3, "specific.*": 4},
    )
    for channel, capacity in {
        "http.request": 1,
        "http.request2": 9,
        "worker-12": 2,
        "worker-x": 3,
        "specific.abc!1": 4,
        "other": 9,
    }.items():
        assert layer.get_capacity(channel) == capacity
    for n in range(2):
        await layer.send("worker-1", numbered(n))
    with pytest.raises(ChannelFull):
        await layer.send("worker-1", numbered(2))
    mine = await layer.new_channel()
    for n in range(4):
        await layer.send(mine, numbered(n))
    with pytest.raises(ChannelFull):
        await layer.send(mine, numbered(4))


async def test_group_send_never_raises_channel_full(make: Make) -> None:
    layer = make(capacity=1)
    full, free = await members(layer, "g", 2)
    await layer.send(full, numbered(0))
    await layer.group_add("g", "worker")
    await layer.send("worker", numbered(0))
    receipt = await layer.group_send("g", numbered(1))
    assert (receipt.delivered, receipt.dropped) == (1, 1)
    assert await layer.receive(free) == numbered(1)
    assert await layer.receive(full) == numbered(0)
    assert await layer.receive("worker") == numbered(0)
    assert await waits(layer, "worker")
    await asyncio.sleep(0)
    assert layer.stats()["drops"]["over_capacity"] == 2


async def test_a_message_that_nobody_reads_in_time_is_gone_and_counted(make: Make) -> None:
    layer = make(expiry=0.5)
    mine = await layer.new_channel()
    await layer.send(mine, numbered(1))
    await layer.send("worker", numbered(1))
    await asyncio.sleep(0.6)
    await layer.send(mine, numbered(2))
    await layer.send("worker", numbered(2))
    assert await layer.receive(mine) == numbered(2)
    assert await layer.receive("worker") == numbered(2)
    assert layer.stats()["drops"]["expired"] == 2


async def test_an_expired_message_makes_room(make: Make) -> None:
    layer = make(expiry=0.5, capacity=1)
    await layer.send("worker", numbered(1))
    with pytest.raises(ChannelFull):
        await layer.send("worker", numbered(2))
    await asyncio.sleep(0.6)
    await layer.send("worker", numbered(2))
    assert await layer.receive("worker") == numbered(2)


async def test_an_expired_message_makes_room_in_a_channel_of_this_node_too(make: Make) -> None:
    layer = make(expiry=0.5, capacity=1)
    mine = await layer.new_channel()
    await layer.send(mine, numbered(1))
    await asyncio.sleep(0.6)
    await layer.send(mine, numbered(2))
    assert await layer.receive(mine) == numbered(2)


async def test_what_expired_in_the_full_mailbox_of_a_stuck_consumer_makes_room(make: Make) -> None:
    layer = make(expiry=0.5, capacity=2)
    node, mailbox = layer.open_mailbox("Chat", capacity=None, overflow=None)
    await node.join("g:g", mailbox)
    for n in range(3):
        await layer.group_send("g", numbered(n))
    await asyncio.sleep(0.6)
    assert (await layer.group_send("g", numbered(3))).delivered == 1
    await asyncio.sleep(0)
    assert layer.stats()["drops"] == {"over_capacity": 1, "expired": 2}
    assert await layer.receive(mailbox.channel) == numbered(3)


async def test_a_worker_channel_leaves_its_group_after_group_expiry(make: Make) -> None:
    layer = make(group_expiry=0.5)
    await layer.group_add("g", "worker")
    await layer.group_send("g", numbered(1))
    assert await layer.group_channels("g") == ["worker"]
    await asyncio.sleep(0.6)
    await layer.group_send("g", numbered(2))
    assert await layer.group_channels("g") == []
    assert await layer.group_count("g") == 0
    assert await layer.receive("worker") == numbered(1)
    assert await waits(layer, "worker")


async def test_group_add_again_renews_the_membership_of_a_worker_channel(make: Make) -> None:
    layer = make(group_expiry=1.5)
    await layer.group_add("g", "worker")
    await asyncio.sleep(0.8)
    await layer.group_add("g", "worker")
    await asyncio.sleep(0.8)
    await layer.group_send("g", HELLO)
    assert await layer.receive("worker") == HELLO


async def test_a_channel_that_nobody_reads_for_expiry_seconds_leaves_its_groups_and_is_counted(make: Make) -> None:
    layer = make(expiry=0.5)
    [gone] = await members(layer, "g", 1)
    [read] = await members(layer, "g", 1)
    reader = asyncio.create_task(layer.receive(read))
    await layer.group_send("other", HELLO)
    await until(lambda: layer.stats()["idle_channels"])
    assert await layer.group_channels("g") == [read]
    assert gone not in await layer.group_channels("g")
    assert layer.stats()["idle_channels"] == 1
    await layer.group_send("g", HELLO)
    assert await reader == HELLO
