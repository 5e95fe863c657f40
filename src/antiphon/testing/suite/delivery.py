"""Delivery: what is sent arrives, whole, once, in order, and at nobody else."""

# ruff: noqa: S101, D102 -- tests that are shipped are tests: they assert, and their names say what

from __future__ import annotations

import asyncio
import datetime as dt
from decimal import Decimal
from typing import Any
from uuid import UUID

from asgiref.sync import async_to_sync

from ...exceptions import MessageTooLarge
from ...layer.sync import group_send, user_send
from ...names import user_topic
from .base import HELLO, SuiteBase, numbered, scenario, until


class DeliveryTests(SuiteBase):
    """Sending, from coroutines and from synchronous code."""

    @scenario
    async def test_what_is_sent_to_a_channel_arrives_in_order(self) -> None:
        layer = self.make_layer()
        mine, other = await self.member(layer), await self.member(layer)
        for n in range(50):
            receipt = await layer.send(mine.channel, numbered(n))
            assert receipt.nodes in (1, None)
        assert await mine.hears(50) == list(range(50))
        assert other.heard == []

    @scenario
    async def test_every_value_arrives_as_it_was(self) -> None:
        layer = self.make_layer()
        mine = await self.member(layer, "g")
        message: dict[str, Any] = {
            "type": "values",
            "text": "ä\x00\U0001f600",
            "bytes": bytes(range(256)),
            "numbers": [0, -1, 2**63, -(2**80), 1.5, float("inf")],
            "none": None,
            "nested": {"a": [{"b": [1, [2, [3]]]}], "": "", 7: "an int is a key"},
            "when": dt.datetime(2026, 2, 3, 4, 5, 6, 7, tzinfo=dt.UTC),
            "exact": Decimal("1.10"),
            "id": UUID(int=7),
            "set": {1, 2, 3},
        }
        await layer.group_send("g", message)
        await layer.send(mine.channel, message)
        await until(lambda: len(mine.heard) == 2)
        assert mine.heard == [message, message]
        assert mine.heard[0] is not mine.heard[1]

    @scenario
    async def test_a_message_to_a_group_reaches_every_member_once(self) -> None:
        layer = self.make_layer()
        members = [await self.member(layer, "g") for _ in range(20)]
        outside = await self.member(layer, "h")
        for n in range(10):
            assert (await layer.group_send("g", numbered(n))).nodes in (1, None)
        for member in members:
            assert await member.hears(10) == list(range(10))
        assert outside.heard == []
        assert (await layer.group_send("nobody", HELLO)).nodes in (0, None)

    @scenario
    async def test_each_receiver_has_a_message_of_its_own(self) -> None:
        layer = self.make_layer()
        members = [await self.member(layer, "g") for _ in range(2)]
        await layer.group_send("g", {"type": "t", "n": 0, "list": [1]})
        for member in members:
            await member.hears(1)
            member.heard[0]["list"].append(2)
        assert [member.heard[0]["list"] for member in members] == [[1, 2], [1, 2]]

    @scenario
    async def test_a_message_up_to_the_bound_arrives_and_a_larger_one_is_refused(self) -> None:
        layer = self.make_layer(max_message_bytes=1 << 20)
        mine = await self.member(layer, "g")
        large = {"type": "t", "n": 1, "data": b"\r\n$" * 349_000}
        too_large = {"type": "t", "n": 0, "data": b"x" * (1 << 20)}
        for send in (layer.group_send("g", too_large), layer.send(mine.channel, too_large)):
            try:
                await send
            except MessageTooLarge:
                continue
            raise AssertionError("a message above max_message_bytes was taken")
        await layer.group_send("g", large)
        await mine.hears(1)
        assert mine.heard == [large]

    @scenario
    async def test_excluded_channels_do_not_get_the_message(self) -> None:
        layer = self.make_layer()
        members = [await self.member(layer, "g") for _ in range(3)]
        await layer.group_send("g", numbered(1), exclude=[members[0].channel, members[1].channel])
        await layer.group_send("g", numbered(2))
        assert [await member.hears(count) for member, count in zip(members, (1, 1, 2), strict=True)] == [
            [2],
            [2],
            [1, 2],
        ]

    @scenario
    async def test_a_member_of_several_groups_gets_one_copy_of_what_goes_to_all(self) -> None:
        layer = self.make_layer()
        groups = [f"g{n}" for n in range(8)]  # on several servers, where there are
        both, one, none = await self.member(layer, *groups), await self.member(layer, "g3"), await self.member(layer)
        for n in range(20):
            await layer.groups_send(groups, numbered(n))
        await layer.groups_send(groups, numbered(20), exclude=[one.channel])
        for group in groups:  # behind them, wherever they went
            await layer.group_send(group, numbered(99))
        assert [n for n in await both.hears(21 + 8) if n != 99] == list(range(21))
        assert await one.hears(21) == [*range(20), 99]
        assert none.heard == []

    @scenario
    async def test_send_many_keeps_its_order_and_answers_each(self) -> None:
        layer = self.make_layer()
        mine = await self.member(layer, "a")
        receipts = await layer.send_many([("a" if n % 2 else "b", numbered(n)) for n in range(40)])
        assert [receipt.state for receipt in receipts] == ["sent"] * 40
        assert await mine.hears(20) == list(range(1, 40, 2))

    @scenario
    async def test_user_send_reaches_the_connections_of_that_user(self) -> None:
        layer = self.make_layer()
        listeners = []
        for user in ("7", "7", "user with spaces: ü", "8"):
            node, mailbox = layer.open_mailbox("Suite", capacity=None, overflow=None)
            await node.join(user_topic(user), mailbox)
            listeners.append(self.listen(layer, mailbox.channel))
        await layer.user_send(7, numbered(1))
        await layer.user_send("user with spaces: ü", numbered(2))
        await layer.user_send(7, numbered(3), exclude=[listeners[0].channel])
        assert await listeners[1].hears(2) == [1, 3]
        assert await listeners[0].hears(1) == [1]
        assert await listeners[2].hears(1) == [2]
        assert listeners[3].heard == []

    @scenario
    async def test_a_burst_from_many_tasks_arrives_whole(self) -> None:
        layer = self.make_layer(capacity=2000)
        mine = await self.member(layer, "g")

        async def send(start: int) -> None:
            for n in range(start, start + 20):
                await layer.group_send("g", numbered(n))

        await asyncio.gather(*(send(start * 100) for start in range(50)))
        heard = await mine.hears(1000)
        assert sorted(heard) == sorted(start * 100 + n for start in range(50) for n in range(20))
        for start in range(50):
            part = [n for n in heard if n // 100 == start]
            assert part == sorted(part)

    @scenario
    async def test_a_message_takes_its_place_in_line_at_the_call(self) -> None:
        layer = self.make_layer(capacity=1000)
        mine = await self.member(layer, "g")
        tasks = [asyncio.ensure_future(layer.group_send("g", numbered(n))) for n in range(300)]
        await asyncio.gather(*tasks)
        assert await mine.hears(300) == list(range(300))

    @scenario
    async def test_synchronous_code_sends_from_threads(self) -> None:
        layer = self.make_layer(capacity=1000)
        mine = await self.member(layer, "g")
        node, mailbox = layer.open_mailbox("Suite", capacity=None, overflow=None)
        await node.join(user_topic("7"), mailbox)
        user = self.listen(layer, mailbox.channel)

        def view(start: int) -> None:
            for n in range(start, start + 10):
                group_send("g", numbered(n))
            async_to_sync(layer.group_send)("g", numbered(start + 10))
            async_to_sync(layer.send)(mine.channel, numbered(1000 + start))
            user_send(7, numbered(start))

        with self.as_default(layer):
            await asyncio.gather(*(asyncio.to_thread(view, start * 100) for start in range(4)))
        heard = await mine.hears(48)
        for start in range(4):
            part = [n for n in heard if n < 1000 and n // 100 == start]
            assert part == [start * 100 + n for n in range(11)]
        assert sorted(await user.hears(4)) == [0, 100, 200, 300]

    @scenario
    async def test_a_sent_message_is_counted_and_so_is_its_delivery(self) -> None:
        layer = self.make_layer()
        mine = await self.member(layer, "g")
        for n in range(10):
            await layer.group_send("g", numbered(n))
        await mine.hears(10)
        stats = layer.stats()
        assert (stats["sent"], stats["delivered"], stats["dropped"]) == (10, 10, 0)
        assert (stats["channels"], stats["groups"], stats["waiting"]) == (1, 1, 0)

    @scenario
    async def test_bytes_of_others_on_a_topic_are_counted_and_reach_nobody(self) -> None:
        layer = self.make_layer()
        mine = await self.member(layer, "g")
        for payload in (b"", b"hello", b"\xa7\x01\x00\x00", bytes(200), b'{"type": "hello"}'):
            await asyncio.to_thread(layer._engine.publish_blocking, "g:g", payload)
        await layer.group_send("g", numbered(1))
        assert await mine.hears(1) == [1]
        await until(lambda: layer.stats()["drops_by_group"] == {"g:undecodable": 5})

    @scenario
    async def test_a_layer_that_was_closed_leaves_no_task_and_starts_anew(self) -> None:
        layer = self.make_layer()
        before = asyncio.all_tasks()
        channel = await layer.new_channel()
        await layer.group_add("g", channel)
        await layer.group_send("g", HELLO)
        await layer.close()
        await until(lambda: asyncio.all_tasks() == before, 2, "tasks that are left")
        again = await self.member(layer, "g")
        await layer.group_send("g", numbered(2))
        assert await again.hears(1) == [2]

    @scenario
    async def test_the_layer_says_that_it_is_well(self) -> None:
        layer = self.make_layer()
        await self.member(layer, "g")
        health = await layer.health()
        assert health["ok"] is True
        assert health["nodes"] == 1
        assert {"engine", "links"} <= health.keys()
