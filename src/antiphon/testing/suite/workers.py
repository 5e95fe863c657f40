"""Worker channels: queues with competing readers, alone and as members of groups."""

# ruff: noqa: S101, D102 -- tests that are shipped are tests: they assert, and their names say what

from __future__ import annotations

import asyncio

from ...exceptions import ChannelFull
from .base import SuiteBase, needs, numbered, scenario, until


class WorkerTests(SuiteBase):
    """Needs ``worker_channels``."""

    @needs("worker_channels")
    @scenario
    async def test_a_worker_channel_keeps_what_is_sent_before_anybody_reads(self) -> None:
        layer = self.make_layer()
        for n in range(20):
            await layer.send("worker", numbered(n))
        worker = self.listen(layer, "worker")
        assert await worker.hears(20) == list(range(20))
        await layer.send("worker", numbered(20))
        assert await worker.hears(21) == list(range(21))

    @needs("worker_channels")
    @scenario
    async def test_competing_readers_get_each_message_once(self) -> None:
        layer, there = self.make_layer(), self.loop()
        heard: list[list[int]] = [[], [], []]

        async def read(into: list[int]) -> None:
            while True:
                into.append((await layer.receive("worker"))["n"])

        readers = [asyncio.ensure_future(read(into)) for into in heard[:2]]
        readers.append(asyncio.ensure_future(there.run(read(heard[2]))))
        for n in range(100):
            await layer.send("worker", numbered(n))
        await until(lambda: sum(map(len, heard)) >= 100)
        await self.settle()
        for reader in readers:
            reader.cancel()
        await asyncio.gather(*readers, return_exceptions=True)
        assert sorted(n for part in heard for n in part) == list(range(100))
        for part in heard:
            assert part == sorted(part)

    @needs("worker_channels")
    @scenario
    async def test_a_full_worker_channel_refuses(self) -> None:
        layer = self.make_layer(capacity=3)
        for n in range(3):
            await layer.send("worker", numbered(n))
        try:
            await layer.send("worker", numbered(3))
        except ChannelFull:
            pass
        else:
            raise AssertionError("a full worker channel took a message")
        assert (await layer.receive("worker"))["n"] == 0
        await layer.send("worker", numbered(4))
        assert await self.listen(layer, "worker").hears(3) == [1, 2, 4]

    @needs("worker_channels")
    @scenario
    async def test_what_no_worker_took_in_time_is_dropped_and_counted(self) -> None:
        layer = self.make_layer(expiry=0.3)
        for n in range(2):
            await layer.send("worker", numbered(n))
        await asyncio.sleep(0.5)
        await layer.send("worker", numbered(2))
        assert await self.listen(layer, "worker").hears(1) == [2]
        await until(lambda: layer.stats()["drops"] == {"expired": 2}, what=f"two expired; {layer.stats()['drops']}")

    @needs("worker_channels")
    @scenario
    async def test_a_reader_that_is_cancelled_loses_nothing(self) -> None:
        layer = self.make_layer()
        heard = []
        for n in range(60):
            reader = asyncio.ensure_future(layer.receive("worker"))
            await asyncio.sleep(0.0007 * (n % 3))
            send = asyncio.ensure_future(layer.send("worker", numbered(n)))
            await asyncio.sleep(0.0003 * (n % 7))
            reader.cancel()
            await send
            (done,) = await asyncio.gather(reader, return_exceptions=True)
            if isinstance(done, dict):
                heard.append(done["n"])
        rest = self.listen(layer, "worker")
        await rest.hears(60 - len(heard))
        await self.settle()
        assert sorted(heard + rest.numbers) == list(range(60))

    @needs("worker_channels")
    @scenario
    async def test_what_is_leased_takes_room_until_it_is_acknowledged_and_comes_back_when_released(self) -> None:
        layer = self.make_layer(capacity=2)
        for n in range(2):
            await layer.send("worker", numbered(n))
        first = await layer.lease("worker")
        assert (first.message, first.delivery_count) == (numbered(0), 1)
        try:
            await layer.send("worker", numbered(2))
        except ChannelFull:
            pass
        else:
            raise AssertionError("what is being handled takes no room")
        await first.release()
        again = await layer.lease("worker")
        assert (again.message, again.delivery_count) == (numbered(0), 2)  # in its place, before the others
        await again.ack()
        await again.ack()
        await layer.send("worker", numbered(2))
        async with await layer.lease("worker") as lease:
            assert lease.message == numbered(1)
        try:
            async with await layer.lease("worker") as lease:
                raise LookupError
        except LookupError:
            pass
        assert await layer.receive("worker") == numbered(2)

    @needs("worker_channels")
    @scenario
    async def test_a_worker_channel_is_a_member_of_groups(self) -> None:
        layer = self.make_layer()
        mine = await self.member(layer, "g")
        await layer.group_add("g", "worker")
        await layer.group_add("g", "worker")
        await layer.group_add("h", "worker")
        assert sorted(await layer.group_channels("g")) == sorted([mine.channel, "worker"])
        assert await layer.group_count("g") == 2
        await layer.group_send("g", numbered(1))
        await layer.group_send("h", numbered(2))
        await layer.group_send("h", numbered(3), exclude=["other"])
        worker = self.listen(layer, "worker")
        assert sorted(await worker.hears(3)) == [1, 2, 3]
        await layer.group_discard("g", "worker")
        await layer.group_send("g", numbered(4))
        await layer.group_send("h", numbered(5))
        assert (await worker.hears(4))[3:] == [5]
        await layer.group_discard_all("worker")
        await layer.group_send("h", numbered(6))
        assert await mine.hears(2) == [1, 4]
        await self.settle()
        assert len(worker.heard) == 4
        assert await layer.group_count("h") == 0

    @needs("worker_channels")
    @scenario
    async def test_questions_between_nodes_do_not_reach_the_workers_of_a_group(self) -> None:
        layer = self.make_layer()
        await self.member(layer, "g")
        await layer.group_add("g", "worker")
        for _ in range(3):
            assert await layer.group_count("g") == 2
            await layer.group_channels("g")
        await layer.nodes_info()
        await layer.send("worker", numbered(1))
        assert await self.listen(layer, "worker").hears(1) == [1]

    @needs("worker_channels")
    @scenario
    async def test_synchronous_code_reaches_the_workers_of_a_group(self) -> None:
        layer = self.make_layer()
        await layer.group_add("g", "worker")
        body = layer.encode(numbered(1))
        await asyncio.to_thread(layer.publish_blocking, ["g:g"], body, None)
        assert await self.listen(layer, "worker").hears(1) == [1]

    @needs("worker_channels")
    @scenario
    async def test_a_worker_channel_leaves_a_group_when_group_expiry_is_over(self) -> None:
        layer = self.make_layer(group_expiry=2.0)
        await layer.group_add("g", "worker")
        await layer.group_add("h", "worker")
        assert await layer.group_channels("g") == ["worker"]
        await asyncio.sleep(1.2)
        await layer.group_add("h", "worker")  # once more: from now on
        await asyncio.sleep(1.2)
        await layer.group_send("g", numbered(1))
        await layer.group_send("h", numbered(2))
        assert await self.listen(layer, "worker").hears(1) == [2]
        assert await layer.group_channels("g") == []
