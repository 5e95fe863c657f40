"""Membership: who gets what is sent to a group, from when, until when; and what is not shared."""

# ruff: noqa: S101, D102 -- tests that are shipped are tests: they assert, and their names say what

from __future__ import annotations

import asyncio

from ...layer.layer import ChannelLayer
from ...names import user_topic
from .base import HELLO, SuiteBase, numbered, scenario, until


class GroupTests(SuiteBase):
    """Joining, leaving, counting, flushing; groups and spaces apart from each other."""

    @scenario
    async def test_joining_and_leaving_hold_from_the_call_that_returned(self) -> None:
        layer = self.make_layer()
        mine, other = await self.member(layer), await self.member(layer, "a", "b")
        await layer.group_send("a", numbered(0))
        await layer.group_add("a", mine.channel)
        await layer.group_send("a", numbered(1))
        await mine.hears(1)
        await layer.group_discard("a", mine.channel)
        await layer.group_send("a", numbered(2))
        await layer.group_add("a", mine.channel)
        await layer.group_add("b", mine.channel)
        await layer.group_send("a", numbered(3))
        await mine.hears(2)
        await layer.group_discard_all(mine.channel)
        await layer.group_send("a", numbered(4))
        await layer.group_send("b", numbered(5))
        await other.hears(6)
        await layer.send(mine.channel, numbered(6))
        assert await mine.hears(3) == [1, 3, 6]

    @scenario
    async def test_joining_twice_gives_one_copy_and_leaving_twice_is_no_error(self) -> None:
        layer = self.make_layer()
        mine = await self.member(layer, "g", "g")
        await layer.group_send("g", numbered(1))
        await layer.group_send("g", numbered(2))
        assert await mine.hears(2) == [1, 2]
        for _ in range(2):
            await layer.group_discard("g", mine.channel)
            await layer.group_discard_all(mine.channel)
        assert await layer.group_count("g") == 0

    @scenario
    async def test_a_group_that_empties_and_fills_again_misses_nothing(self) -> None:
        layer = self.make_layer(capacity=1000)
        mine = await self.member(layer)
        for n in range(30):
            await layer.group_add("g", mine.channel)
            await layer.group_send("g", numbered(n))
            await mine.hears(n + 1)
            await layer.group_discard("g", mine.channel)
            await layer.group_send("g", numbered(-1))
        assert mine.numbers == list(range(30))

    @scenario
    async def test_many_join_many_groups_at_once(self) -> None:
        layer = self.make_layer()
        members = [await self.member(layer) for _ in range(10)]
        await asyncio.gather(*(layer.group_add(f"g{n}", member.channel) for n in range(100) for member in members))
        await asyncio.gather(*(layer.group_send(f"g{n}", numbered(n)) for n in range(100)))
        for member in members:
            assert sorted(await member.hears(100)) == list(range(100))

    @scenario
    async def test_a_join_that_is_cancelled_leaves_nothing_behind(self) -> None:
        layer = self.make_layer()
        mine = await self.member(layer)
        for n in range(30):
            join = asyncio.ensure_future(layer.group_add(f"g{n}", mine.channel))
            for _ in range(n % 4):
                await asyncio.sleep(0)
            join.cancel()
            (failure,) = await asyncio.gather(join, return_exceptions=True)
            is_member = mine.channel in await layer.group_channels(f"g{n}", scope="node")
            assert is_member == (failure is None)
            await layer.group_add(f"g{n}", mine.channel)
            await layer.group_send(f"g{n}", numbered(n))
        assert sorted(await mine.hears(30)) == list(range(30))

    @scenario
    async def test_a_connection_that_ends_leaves_its_groups(self) -> None:
        layer = self.make_layer()
        node, mailbox = layer.open_mailbox("Suite", capacity=None, overflow=None)
        await layer.group_add("g", mailbox.channel)
        mine = await self.member(layer, "g")
        assert await layer.group_count("g") == 2
        node.close(mailbox)
        assert await layer.group_channels("g") == [mine.channel]
        await layer.group_add("g", mailbox.channel)  # too late: it is no error, and adds nobody
        assert await layer.group_count("g") == 1

    @scenario
    async def test_channels_of_a_group_are_listed_and_counted(self) -> None:
        layer = self.make_layer()
        members = [await self.member(layer, "g") for _ in range(3)]
        await layer.group_add("h", members[0].channel)
        for scope in ("all", "node"):
            channels = await layer.group_channels("g", scope=scope)
            assert sorted(channels) == sorted(member.channel for member in members)
            assert channels.complete is True
            count = await layer.group_count("g", scope=scope)
            assert (count, count.complete) == (3, True)
        assert await layer.group_channels("nobody") == []

    @scenario
    async def test_names_that_look_alike_are_kept_apart(self) -> None:
        layer = self.make_layer()
        names = ["a", "A", "a.b", "a_b", "a-b", "aa", "n.a", "u.7", "g", "c", "q.a", "a" * 99]
        members = {name: await self.member(layer, name) for name in names}
        node, mailbox = layer.open_mailbox("Suite", capacity=None, overflow=None)
        await node.join(user_topic("a"), mailbox)
        user = self.listen(layer, mailbox.channel)
        for n, name in enumerate(names):
            await layer.group_send(name, numbered(n))
        await layer.user_send("a", numbered(99))
        for n, name in enumerate(names):
            assert await members[name].hears(1) == [n]
        assert await user.hears(1) == [99]
        await self.settle(0.05)
        assert all(len(member.heard) == 1 for member in (*members.values(), user))

    @scenario
    async def test_two_spaces_share_nothing(self) -> None:
        layer, stranger = self.make_layer(), self.make_layer(f"{self.space}x")
        mine, theirs = await self.member(layer, "g"), await self.member(stranger, "g")
        await layer.group_send("g", numbered(1))
        await stranger.group_send("g", numbered(2))
        assert await mine.hears(1) == [1]
        assert await theirs.hears(1) == [2]
        assert await layer.group_channels("g") == [mine.channel]
        assert await layer.close_user("7") == 0
        await self.settle(0.05)
        assert (mine.numbers, theirs.numbers) == ([1], [2])

    @scenario
    async def test_flush_forgets_groups_and_messages_of_this_space_alone(self) -> None:
        layer, stranger = self.make_layer(), self.make_layer(f"{self.space}x")
        theirs = await self.member(stranger, "g")
        mine = await self.member(layer, "g")
        unread = await layer.new_channel()
        await layer.group_add("g", unread)
        await layer.group_send("g", HELLO | {"n": 0})
        await mine.hears(1)
        if "worker_channels" in self.capabilities:
            await layer.send("worker", numbered(1))
            await stranger.send("worker", numbered(2))
            await layer.group_add("g", "worker")
        await layer.flush()
        assert await layer.group_channels("g") == []
        await layer.group_send("g", HELLO)
        await layer.send(mine.channel, numbered(3))  # its reader is still there
        assert await mine.hears(2) == [0, 3]
        await layer.send(unread, numbered(4))
        assert await layer.receive(unread) == numbered(4)
        await stranger.group_send("g", numbered(5))
        assert await theirs.hears(1) == [5]
        if "worker_channels" in self.capabilities:
            worker, their_worker = self.listen(layer, "worker"), self.listen(stranger, "worker")
            assert await their_worker.hears(1) == [2]
            await layer.send("worker", numbered(6))
            assert await worker.hears(1) == [6]

    @scenario
    async def test_the_groups_of_a_layer_that_is_closed_are_gone(self) -> None:
        layer = self.make_layer()
        mine = await self.member(layer, "g")
        await layer.close()
        await until(lambda: self._empty(layer))
        assert mine.heard == []

    async def _empty(self, layer: ChannelLayer) -> bool:
        return await layer.group_count("g") == 0
