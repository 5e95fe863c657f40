"""Two real processes: messages, calls between nodes, and a process that dies or stands still."""

# ruff: noqa: S101, D102 -- tests that are shipped are tests: they assert, and their names say what

from __future__ import annotations

import asyncio
import os
import time

from ...exceptions import NodeUnreachable
from ...layer.members import Channels, Count
from ...layer.sync import group_send
from .base import SuiteBase, needs, numbered, scenario, until


class ProcessTests(SuiteBase):
    """Needs ``processes``."""

    @needs("processes")
    @scenario
    async def test_two_processes_hear_each_other(self) -> None:
        layer, resident = self.make_layer(capacity=1000), await self.resident(capacity=1000)
        mine = await self.member(layer, "g")
        theirs = await resident.do("member", "g")
        for n in range(100):
            assert (await layer.group_send("g", numbered(n))).nodes in (2, None)
        await resident.do("send_numbered", "g", 100, 200)
        await resident.do("send_from_thread", "g", 200, 300)
        assert await mine.hears(300) == list(range(300))
        assert await resident.do("heard", theirs, 300) == list(range(300))
        await layer.send(theirs, numbered(300))
        await resident.do("call", "send", mine.channel, numbered(301))
        assert (await mine.hears(301))[300:] == [301]
        assert (await resident.do("heard", theirs, 301))[300:] == [300]

    @needs("processes")
    @scenario
    async def test_a_process_without_connections_sends(self) -> None:
        layer, resident = self.make_layer(), await self.resident()
        mine = await self.member(layer, "g")
        await resident.do("send_from_thread", "g", 0, 10)
        await resident.do("send_numbered", "g", 10, 20)
        assert await mine.hears(20) == list(range(20))

    @needs("processes")
    @scenario
    async def test_a_forked_process_sends(self) -> None:
        layer = self.make_layer()
        mine = await self.member(layer, "g")
        with self.as_default(layer):
            await asyncio.to_thread(group_send, "g", numbered(0))
            pid = await asyncio.to_thread(_fork_and_send, "g", 5)
        await asyncio.to_thread(_wait_for, pid)
        assert await mine.hears(6) == list(range(6))
        await layer.group_send("g", numbered(6))  # and this process's own links are as they were
        assert await mine.hears(7) == list(range(7))

    @needs("processes")
    @scenario
    async def test_groups_are_the_same_seen_from_either_process(self) -> None:
        layer, resident = self.make_layer(), await self.resident()
        mine = await self.member(layer, "g")
        theirs = await resident.do("member")
        await layer.group_add("g", theirs)
        channels = await layer.group_channels("g")
        assert (sorted(channels), channels.complete) == (sorted([mine.channel, theirs]), True)
        assert await resident.do("call", "group_count", "g") == 2
        assert await layer.group_count("g", scope="node") == 1
        await layer.group_send("g", numbered(1))
        assert await resident.do("heard", theirs, 1) == [1]
        await resident.do("call", "group_discard", "g", mine.channel)
        assert await layer.group_channels("g") == [theirs]
        await layer.group_discard_all(theirs)
        assert await layer.group_count("g") == 0
        infos = await layer.nodes_info()
        assert infos.complete is True
        assert {info["pid"] for info in infos} == {os.getpid(), resident.child.pid}

    @needs("processes")
    @scenario
    async def test_connections_are_closed_in_whichever_process_they_are(self) -> None:
        layer, resident = self.make_layer(), await self.resident()
        await layer.new_channel()
        await resident.do("member")
        let_in_s = time.monotonic()
        channels = [
            await resident.do("connection", user, session) for user, session in (("7", "a"), ("7", "b"), ("8", "c"))
        ]
        assert await layer.close_user(7) == 2
        assert await layer.close_session("c") == 1
        assert [await resident.do("closes", channel) for channel in channels] == [
            ["revoked"],
            ["revoked"],
            ["unauthenticated"],
        ]
        other = await resident.do("connection", "9", "d")
        assert await layer.close_channel(other, "slow") is True
        assert await resident.do("closes", other) == ["slow"]
        assert await layer.close_channel(other + "0") is False
        # Whoever is let in here meanwhile hears of a close that the other process asked for.
        await resident.do("call", "close_user", "10")
        assert layer.revoked_since("10", None, let_in_s) == "revoked"

    @needs("processes")
    @scenario
    async def test_a_connection_that_opens_while_its_process_starts_is_closed_with_its_user(self) -> None:
        layer = self.make_layer()
        await layer.new_channel()
        resident = await self.resident()
        channel = await resident.do("connection", "7", None)
        await layer.close_user("7")  # the server may not have heard of the other process yet

        async def closed() -> bool:
            return bool(await resident.do("closes", channel) == ["revoked"])

        await until(closed)

    @needs("processes")
    @scenario
    async def test_flush_reaches_the_other_process(self) -> None:
        layer, resident = self.make_layer(), await self.resident()
        theirs = await resident.do("member", "g")
        await layer.flush()
        assert await layer.group_channels("g") == []
        await layer.send(theirs, numbered(1))
        assert await resident.do("heard", theirs, 1) == [1]

    @needs("processes")
    @scenario
    async def test_ten_thousand_members_elsewhere_are_listed(self) -> None:
        layer, resident = self.make_layer(), await self.resident()
        await layer.new_channel()
        await resident.do("crowd", "g", 10_000)
        channels = await layer.group_channels("g")
        assert (len(set(channels)), channels.complete) == (10_000, True)
        assert await layer.group_count("g") == 10_000

    @needs("processes")
    @scenario
    async def test_a_thousand_calls_at_once_are_answered_each(self) -> None:
        layer, resident = self.make_layer(timeout_s=15.0), await self.resident()
        theirs = [await resident.do("member") for _ in range(5)]
        await asyncio.gather(*(layer.group_add(f"g{n}", theirs[n % 5]) for n in range(500)))
        listed = await asyncio.gather(*(layer.group_channels(f"g{n}") for n in range(500)))
        assert listed == [[theirs[n % 5]] for n in range(500)]

    @needs("processes")
    @scenario
    async def test_a_process_that_dies_is_unreachable_at_once(self) -> None:
        layer, resident = self.make_layer(timeout_s=10.0), await self.resident()
        mine = await self.member(layer, "g")
        theirs = await resident.do("member", "g")
        assert await layer.group_count("g") == 2
        await asyncio.to_thread(resident.child.kill)

        async def alone() -> bool:
            return (await layer.group_send("g", numbered(0))).nodes in (1, None)

        await until(alone, 20.0, "the engine to see that a process has died")
        began = time.monotonic()
        for call in (layer.group_add("h", theirs), layer.group_discard("g", theirs), layer.close_channel(theirs)):
            try:
                await call
            except NodeUnreachable:
                continue
            raise AssertionError("a dead node did as it was told")
        assert time.monotonic() - began < 10.0
        channels = await layer.group_channels("g")
        assert (channels, channels.complete) == ([mine.channel], True)
        await layer.send(theirs, numbered(1))
        assert layer.stats()["drops"] == {"no_channel": 1}

    @needs("processes")
    @scenario
    async def test_a_process_that_stands_still_is_unreachable_within_the_time_out_and_goes_on_after_it(self) -> None:
        layer, resident = self.make_layer(timeout_s=0.5), await self.resident()
        mine = await self.member(layer, "g")
        theirs = await resident.do("member", "g")
        connection = await resident.do("connection", "7", None)
        resident.child.stop()
        try:
            began = time.monotonic()
            failure, count, channels, closed = await asyncio.gather(
                layer.group_add("h", theirs),
                layer.group_count("g"),
                layer.group_channels("g"),
                layer.close_user("7"),
                return_exceptions=True,
            )
            assert 0.4 < time.monotonic() - began < 10.0
            assert isinstance(failure, NodeUnreachable), f"a node that stands still did as it was told: {failure!r}"
            assert isinstance(count, Count)
            assert (count, count.complete) == (1, False)
            assert isinstance(channels, Channels)
            assert (channels, channels.complete) == ([mine.channel], False)
            assert closed == 0
            began = time.monotonic()
            for n in range(50):
                await layer.group_send("g", numbered(n))
            assert time.monotonic() - began < 10.0  # it holds up nobody else
            assert await mine.hears(50) == list(range(50))
        finally:
            resident.child.resume()
        assert await resident.do("heard", theirs, 50) == list(range(50))
        assert await resident.do("closes", connection) == ["revoked"]
        both = await layer.group_count("g")
        assert (both, both.complete) == (2, True)

    @needs("processes")
    @needs("worker_channels")
    @scenario
    async def test_workers_of_two_processes_share_a_worker_channel(self) -> None:
        layer, resident = self.make_layer(), await self.resident()
        await resident.do("listen", "worker")
        mine = self.listen(layer, "worker")
        await layer.group_add("g", "worker")
        for n in range(60):
            await layer.send("worker", numbered(n))
        await resident.do("call", "group_send", "g", numbered(60))
        await resident.do("call", "send", "worker", numbered(61))
        theirs: list[int] = []

        async def all_heard() -> bool:
            theirs[:] = await resident.do("heard", "worker", 0)
            return len(theirs) + len(mine.heard) >= 62

        await until(all_heard)
        await self.settle()
        assert sorted([*theirs, *mine.numbers]) == list(range(62))


def _fork_and_send(group: str, count: int) -> int:
    pid = os.fork()
    if pid:
        return pid
    try:
        for n in range(1, count + 1):
            group_send(group, numbered(n))
    finally:
        os._exit(0)


def _wait_for(pid: int) -> None:
    os.waitpid(pid, 0)
