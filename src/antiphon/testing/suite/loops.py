"""Two nodes of one process: loops in threads, and the calls that cross them."""

# ruff: noqa: S101, D102 -- tests that are shipped are tests: they assert, and their names say what

from __future__ import annotations

import asyncio
import gc
import warnings

from asgiref.sync import async_to_sync

from ...layer.layer import ChannelLayer
from .base import SuiteBase, numbered, scenario, until


class LoopTests(SuiteBase):
    """One layer, used on several loops and threads."""

    @scenario
    async def test_what_one_loop_sends_the_other_receives(self) -> None:
        layer, there = self.make_layer(), self.loop()
        theirs = await there.run(layer.new_channel())
        await layer.group_add("g", theirs)  # the other loop's channel
        mine = await self.member(layer, "g")
        reader = asyncio.ensure_future(there.run(self._read(layer, theirs, 41)))
        for n in range(20):
            assert (await layer.group_send("g", numbered(n))).nodes in (2, None)
        for n in range(20, 40):
            await there.run(layer.group_send("g", numbered(n)))
        await layer.send(theirs, numbered(40))
        heard = await reader
        assert [n for n in heard if n < 20] == list(range(20))
        assert [n for n in heard if 20 <= n < 40] == list(range(20, 40))
        assert sorted(heard) == list(range(41))
        assert sorted(await mine.hears(40)) == list(range(40))

    @scenario
    async def test_groups_are_the_same_seen_from_either_loop(self) -> None:
        layer, there = self.make_layer(), self.loop()
        mine, theirs = await layer.new_channel(), await there.run(layer.new_channel())
        await layer.group_add("g", mine)
        await there.run(layer.group_add("g", theirs))
        assert sorted(await layer.group_channels("g")) == sorted([mine, theirs])
        assert await there.run(layer.group_count("g")) == 2
        assert await there.run(layer.group_channels("g", scope="node")) == [theirs]
        await layer.group_discard("g", theirs)
        assert await there.run(layer.group_channels("g")) == [mine]
        await there.run(layer.group_discard_all(mine))
        assert await layer.group_count("g") == 0
        assert len(await layer.nodes_info()) == 2

    @scenario
    async def test_connections_are_closed_on_whichever_loop_they_are(self) -> None:
        layer, there = self.make_layer(), self.loop()
        closes: list[str] = []

        async def connect(user: str, session: str) -> str:
            node, mailbox = layer.open_mailbox("Suite", capacity=None, overflow=None)
            node.hub.identify(mailbox, user, session)
            mailbox.on_close = lambda reason: closes.append(f"{session} {reason}")
            return mailbox.channel

        await connect("7", "s1")
        await there.run(connect("7", "s2"))
        channel = await there.run(connect("8", "s3"))
        assert await layer.close_user("7") == 2
        assert sorted(closes) == ["s1 revoked", "s2 revoked"]
        assert await layer.close_channel(channel, "slow") is True
        assert closes[2:] == ["s3 slow"]
        assert await layer.close_session("nobody") == 0
        assert layer.revoked_since("7", None, 0.0) == "revoked"

    @scenario
    async def test_calls_of_synchronous_code_work_together(self) -> None:
        layer = self.make_layer()
        mine = await self.member(layer, "g")

        def view() -> list[int]:
            channel = async_to_sync(layer.new_channel)()
            async_to_sync(layer.group_add)("g", channel)
            async_to_sync(layer.group_send)("g", numbered(1))
            async_to_sync(layer.send)(channel, numbered(2))
            heard = [async_to_sync(layer.receive)(channel)["n"] for _ in range(2)]
            assert len(async_to_sync(layer.group_channels)("g")) == 2
            async_to_sync(layer.group_discard)("g", channel)
            return heard

        assert sorted(await asyncio.to_thread(view)) == [1, 2]
        assert await mine.hears(1) == [1]
        assert await layer.group_channels("g") == [mine.channel]

    @scenario
    async def test_a_loop_that_has_ended_is_no_member_any_more(self) -> None:
        layer = self.make_layer()
        mine = await self.member(layer, "g")
        there = self.loop()
        theirs = await there.run(layer.new_channel())
        await layer.group_add("g", theirs)
        self._loops.remove(there)
        await asyncio.to_thread(there.stop)

        async def alone() -> bool:
            await layer.new_channel()
            return await layer.group_channels("g") == [mine.channel]

        await until(alone)
        await layer.group_send("g", numbered(1))
        assert await mine.hears(1) == [1]
        with warnings.catch_warnings():
            warnings.simplefilter("ignore", ResourceWarning)  # nobody could close what that loop had open
            gc.collect()

    async def _read(self, layer: ChannelLayer, channel: str, count: int) -> list[int]:
        return [(await layer.receive(channel))["n"] for _ in range(count)]
