"""Expiry, capacity and overflow: what is not delivered is counted, each message once, with its reason."""

# ruff: noqa: S101, D102 -- tests that are shipped are tests: they assert, and their names say what

from __future__ import annotations

import asyncio

from ...exceptions import ChannelFull
from ...layer.layer import ChannelLayer
from .base import SuiteBase, numbered, scenario, until

CAPACITY, SENT = 5, 20


async def accounted(layer: ChannelLayer, drops: dict[str, int]) -> None:
    """Wait until the drops are counted, by reason, and see that it stays so."""
    await until(lambda: layer.stats()["drops"] == drops, what=f"{drops}")
    await asyncio.sleep(0.03)
    stats = layer.stats()
    assert stats["drops"] == drops
    assert stats["dropped"] == sum(drops.values())


class LimitTests(SuiteBase):
    """Small mailboxes and short expiries."""

    @scenario
    async def test_the_newest_is_dropped_where_that_is_the_policy(self) -> None:
        layer = self.make_layer(capacity=CAPACITY, overflow="drop_new")
        channel = await layer.new_channel()
        await layer.group_add("g", channel)
        for n in range(SENT):
            await layer.group_send("g", numbered(n))  # never raises ChannelFull
        await accounted(layer, {"over_capacity": SENT - CAPACITY})
        assert layer.stats()["drops_by_group"] == {"g:over_capacity": SENT - CAPACITY}
        assert await self.listen(layer, channel).hears(CAPACITY) == list(range(CAPACITY))

    @scenario
    async def test_the_oldest_is_dropped_where_that_is_the_policy(self) -> None:
        layer = self.make_layer(capacity=CAPACITY, overflow="drop_old")
        channel = await layer.new_channel()
        await layer.group_add("g", channel)
        for n in range(SENT):
            await layer.group_send("g", numbered(n))
        await accounted(layer, {"replaced": SENT - CAPACITY})
        assert await self.listen(layer, channel).hears(CAPACITY) == list(range(SENT - CAPACITY, SENT))

    @scenario
    async def test_a_slow_connection_is_closed_where_that_is_the_policy(self) -> None:
        layer = self.make_layer(capacity=CAPACITY, channel_overflow={"specific.*": "close"})
        node, mailbox = layer.open_mailbox("Suite", capacity=None, overflow=None)
        closes: list[str] = []
        mailbox.on_close = closes.append
        await node.join("g:g", mailbox)
        for n in range(SENT):
            await layer.group_send("g", numbered(n))
        await accounted(layer, {"slow": 1, "closed": SENT - CAPACITY - 1})
        assert closes == ["slow"]
        node.close(mailbox)
        await accounted(layer, {"slow": 1, "closed": SENT - 1})  # with what it never read

    @scenario
    async def test_one_full_channel_takes_nothing_from_the_others(self) -> None:
        layer = self.make_layer(capacity=100, channel_capacity={"specific.*": 50, "small.*": 2})
        small = await layer.new_channel("small.")
        await layer.group_add("g", small)
        mine = await self.member(layer, "g")
        for n in range(30):
            await layer.group_send("g", numbered(n))
            await asyncio.sleep(0)
        assert await mine.hears(30) == list(range(30))
        await accounted(layer, {"over_capacity": 28})

    @scenario
    async def test_a_full_channel_of_this_node_refuses_a_direct_message(self) -> None:
        layer = self.make_layer(capacity=CAPACITY)
        channel = await layer.new_channel()
        for n in range(CAPACITY):
            await layer.send(channel, numbered(n))
        try:
            await layer.send(channel, numbered(CAPACITY))
        except ChannelFull:
            pass
        else:
            raise AssertionError("a full channel took a message")
        mine = self.listen(layer, channel)
        await mine.hears(CAPACITY)
        await layer.send(channel, numbered(CAPACITY))
        assert await mine.hears(CAPACITY + 1) == list(range(CAPACITY + 1))

    @scenario
    async def test_what_nobody_took_in_time_is_dropped_and_counted(self) -> None:
        layer = self.make_layer(expiry=0.5)
        channel = await layer.new_channel()
        for n in range(2):
            await layer.send(channel, numbered(n))
        await asyncio.sleep(0.8)
        await layer.send(channel, numbered(2))
        assert await self.listen(layer, channel).hears(1) == [2]
        assert layer.stats()["drops"] == {"expired": 2}

    @scenario
    async def test_a_channel_that_nobody_reads_leaves_its_groups(self) -> None:
        layer = self.make_layer(expiry=0.25)
        channel = await layer.new_channel()
        await layer.group_add("g", channel)
        await layer.group_send("g", numbered(1))
        reader = await self.member(layer, "g")

        async def left() -> bool:
            return await layer.group_channels("g", scope="node") == [reader.channel]

        await until(left)
        stats = layer.stats()
        assert stats["idle_channels"] == 1
        assert stats["drops"] == {"idle_channel": 1}

    @scenario
    async def test_a_message_for_a_channel_that_is_gone_is_counted(self) -> None:
        layer = self.make_layer()
        node, mailbox = layer.open_mailbox("Suite", capacity=None, overflow=None)
        node.close(mailbox)
        await layer.send(mailbox.channel, numbered(1))
        await accounted(layer, {"no_channel": 1})
