"""Groups on one loop: who is reached, how often and in which order, and who is listed."""

from __future__ import annotations

import asyncio
from typing import Any

import pytest

from antiphon.layer.capture import Sent, recorders
from antiphon.layers import InMemoryChannelLayer
from tests.layer.members import HELLO, members, numbered, waits


async def test_a_group_reaches_its_members_and_nobody_else(layer: InMemoryChannelLayer) -> None:
    ours = await members(layer, "g", 3)
    [other] = await members(layer, "h", 1)
    receipt = await layer.group_send("g", HELLO)
    assert (receipt.state, receipt.nodes, receipt.delivered, receipt.dropped) == ("sent", 1, 3, 0)
    assert [await layer.receive(channel) for channel in ours] == [HELLO] * 3
    assert await waits(layer, other)


async def test_adding_twice_gives_one_message_and_one_discard_ends_it(layer: InMemoryChannelLayer) -> None:
    [channel] = await members(layer, "g", 1)
    await layer.group_add("g", channel)
    await layer.group_send("g", HELLO)
    assert await layer.receive(channel) == HELLO
    assert await waits(layer, channel)
    await layer.group_discard("g", channel)
    await layer.group_discard("g", channel)
    await layer.group_discard("never", channel)
    await layer.group_send("g", HELLO)
    assert await waits(layer, channel)


async def test_what_was_sent_before_group_add_does_not_arrive(layer: InMemoryChannelLayer) -> None:
    channel = await layer.new_channel()
    await layer.group_send("g", numbered(1))
    await layer.group_add("g", channel)
    await layer.group_send("g", numbered(2))
    assert await layer.receive(channel) == numbered(2)


async def test_sending_to_a_group_without_members_reaches_nobody_and_is_no_error(layer: InMemoryChannelLayer) -> None:
    receipt = await layer.group_send("nobody", HELLO)
    assert receipt.state == "sent"
    assert not receipt.nodes
    assert not receipt.dropped


async def test_excluded_channels_get_nothing(layer: InMemoryChannelLayer) -> None:
    a, b, c = await members(layer, "g", 3)
    receipt = await layer.group_send("g", HELLO, exclude=[a, c, "not.in!it"])
    assert receipt.delivered == 1
    assert await layer.receive(b) == HELLO
    assert await waits(layer, a)
    assert await waits(layer, c)
    await layer.group_send("g", numbered(2), exclude=(channel for channel in (a, b)))
    assert await layer.receive(c) == numbered(2)
    assert await waits(layer, a)


async def test_groups_send_reaches_a_channel_once_however_many_of_the_groups_it_is_in(
    layer: InMemoryChannelLayer,
) -> None:
    both, first, second, excluded = [await layer.new_channel() for _ in range(4)]
    for group, channels in {"a": [both, first, excluded], "b": [both, second, excluded]}.items():
        for channel in channels:
            await layer.group_add(group, channel)
    await layer.groups_send(["a", "b", "a", "empty"], numbered(1), exclude=[excluded])
    await layer.groups_send(["b", "a"], numbered(2), exclude=[excluded])
    for channel in (both, first, second):
        assert [(await layer.receive(channel))["n"] for _ in range(2)] == [1, 2]
        assert await waits(layer, channel)
    assert await waits(layer, excluded)


async def test_groups_send_to_no_group_or_one(layer: InMemoryChannelLayer) -> None:
    [channel] = await members(layer, "g", 1)
    assert (await layer.groups_send([], HELLO)).nodes == 0
    await layer.groups_send(["g"], HELLO)
    assert await layer.receive(channel) == HELLO


async def test_send_many_sends_in_order_with_a_receipt_for_each(layer: InMemoryChannelLayer) -> None:
    [one] = await members(layer, "a", 1)
    await layer.group_add("b", one)
    receipts = await layer.send_many([("a", numbered(1)), ("b", numbered(2)), ("none", HELLO), ("a", numbered(3))])
    assert [receipt.delivered or 0 for receipt in receipts] == [1, 1, 0, 1]
    assert [(await layer.receive(one))["n"] for _ in range(3)] == [1, 2, 3]
    assert await layer.send_many([]) == []


@pytest.mark.parametrize("wrong", [("a b", HELLO), ("a", {"type": "t", "v": object()}), ("a", {"n": 1}), ("a", None)])
async def test_one_wrong_message_of_send_many_leaves_nothing_half_done(
    layer: InMemoryChannelLayer, wrong: tuple[str, Any]
) -> None:
    [one] = await members(layer, "a", 1)
    seen: list[Sent] = []
    recorders.append(seen.append)
    with pytest.raises(TypeError):
        await layer.send_many([("a", HELLO), wrong])
    assert await waits(layer, one)
    assert seen == []


async def test_the_members_of_a_group_are_listed_and_counted(layer: InMemoryChannelLayer) -> None:
    ours = await members(layer, "g", 3)
    await layer.group_add("g", "worker")
    everyone = await layer.group_channels("g")
    assert sorted(everyone) == sorted([*ours, "worker"])
    assert everyone.complete
    count = await layer.group_count("g")
    assert count == 4
    assert count.complete
    assert sorted(await layer.group_channels("g", scope="node")) == sorted(ours)
    assert await layer.group_count("g", scope="node") == 3
    assert await layer.group_channels("nobody") == []
    assert await layer.group_count("nobody") == 0
    with pytest.raises(ValueError, match="scope: expected 'all' or 'node'; got 'world'"):
        await layer.group_count("g", scope="world")


async def test_group_discard_all_leaves_every_group(layer: InMemoryChannelLayer) -> None:
    channel, other = [await layer.new_channel() for _ in range(2)]
    for name in (channel, "worker"):
        for group in ("a", "b", "c"):
            await layer.group_add(group, name)
            await layer.group_add(group, other)
        await layer.group_discard_all(name)
        assert [await layer.group_channels(group) for group in ("a", "b", "c")] == [[other]] * 3
    await layer.group_discard_all("specific.000000000000!1")
    assert set(layer.groups) == {"a", "b", "c"}


async def test_a_large_group_is_woken_in_slices_and_everybody_gets_everything_in_order(
    layer: InMemoryChannelLayer,
) -> None:
    channels = await members(layer, "g", 700)

    async def read(channel: str) -> list[int]:
        return [(await layer.receive(channel))["n"] for _ in range(5)]

    readers = [asyncio.create_task(read(channel)) for channel in channels]
    await asyncio.sleep(0)
    for n in range(5):
        assert (await layer.group_send("g", numbered(n))).delivered == 700
    assert await asyncio.gather(*readers) == [list(range(5))] * 700
