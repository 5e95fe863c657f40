"""Histories: the last messages of a group, each with its place; nothing missing, nothing twice, over nodes and deaths."""

# ruff: noqa: S101, D102 -- tests that are shipped are tests: they assert, and their names say what

from __future__ import annotations

import asyncio
from typing import Any

from ...exceptions import EngineUnavailable
from ...layer.layer import ChannelLayer
from ...layer.registry import get_channel_layer
from ...layer.sync import group_send
from ...types import Position
from .base import SuiteBase, needs, numbered, scenario, until

GROUPS = {"few": {"history_size": 3}, "brief": {"history_size": 9, "history_ttl": 0.5}, "log*": {"history_size": 1000}}


def numbers(history: Any) -> list[int]:
    """Return what a history holds."""
    return [publication.message["n"] for publication in history]


class HistoryTests(SuiteBase):
    """What is kept and read; order and positions; the death of the engine."""

    def logged(self, **options: Any) -> ChannelLayer:
        """Return a layer whose groups have histories."""
        return self.make_layer(groups=GROUPS, capacity=10_000, **options)

    @needs("history")
    @scenario
    async def test_the_last_messages_are_kept_each_with_its_place(self) -> None:
        layer = self.logged()
        start = await layer.position("log")
        assert start.offset == 0
        receipts = [await layer.group_send("log", numbered(n)) for n in range(1, 6)]
        assert [receipt.position for receipt in receipts] == [Position(start.epoch, n) for n in range(1, 6)]
        history = await layer.history("log")
        assert numbers(history) == [1, 2, 3, 4, 5]
        assert [publication.position for publication in history] == [receipt.position for receipt in receipts]
        assert (history.position, history.complete) == (Position(start.epoch, 5), True)
        assert numbers(await layer.history("log", limit=2)) == [4, 5]
        assert numbers(await layer.history("log", limit=2, reverse=True)) == [5, 4]
        assert numbers(await layer.history("log", since=Position(start.epoch, 3))) == [4, 5]
        assert numbers(await layer.history("log", since=Position(start.epoch, 1), limit=2)) == [2, 3]
        empty = await layer.history("log", limit=0)
        assert (numbers(empty), empty.position) == ([], history.position)
        assert (await layer.positions(["log", "log2"]))["log"] == history.position
        assert (await layer.position("log2")).offset == 0

    @needs("history")
    @scenario
    async def test_what_is_gone_is_said_to_be_gone(self) -> None:
        layer = self.logged()
        for n in range(1, 401):
            await layer.group_send("few", numbered(n))
        epoch = (await layer.position("few")).epoch
        kept = numbers(await layer.history("few"))
        assert kept == [398, 399, 400]
        for offset, complete in ((400, True), (398, True), (1, False), (401, False)):
            history = await layer.history("few", since=Position(epoch, offset))
            assert history.complete is complete
            assert not complete or numbers(history) == [n for n in kept if n > offset]
        assert not (await layer.history("few", since=Position("another", 399))).complete

    @needs("history")
    @scenario
    async def test_what_expired_is_gone_and_its_place_stays_good(self) -> None:
        layer = self.logged()
        last = (await layer.group_send("brief", numbered(1))).position
        assert last is not None

        async def gone() -> bool:
            return not numbers(await layer.history("brief"))

        await until(gone, what="the message to expire")
        assert (await layer.history("brief", since=last)).complete
        assert not (await layer.history("brief", since=last._replace(offset=0))).complete
        assert (await layer.group_send("brief", numbered(2))).position == last._replace(offset=2)

    @needs("history")
    @scenario
    async def test_a_retry_is_published_once_and_an_older_version_not_at_all(self) -> None:
        layer = self.logged()
        mine = await self.member(layer, "log")
        first = await layer.group_send("log", numbered(1), idempotency_key="order 1")
        again = await layer.group_send("log", numbered(1), idempotency_key="order 1")
        assert (first.state, again.state, again.position) == ("sent", "duplicate", first.position)
        states = [
            (await layer.group_send("log", numbered(n), version=version, version_epoch=epoch)).state
            for n, version, epoch in ((2, 5, ""), (3, 4, ""), (4, 5, ""), (5, 6, ""), (6, 1, "next"))
        ]
        assert states == ["sent", "suppressed", "suppressed", "sent", "sent"]
        await layer.group_send("log", numbered(7))
        assert await mine.hears(5) == numbers(await layer.history("log")) == [1, 2, 5, 6, 7]

    @needs("history")
    @scenario
    async def test_all_members_hear_all_senders_in_the_order_of_the_history(self) -> None:
        sending, hearing = self.logged(), self.logged()
        if "processes" not in self.capabilities:
            hearing = sending
        members = [await self.member(hearing, "log") for _ in range(3)] + [await self.member(sending, "log")]
        with self.as_default(sending):

            async def here(start: int) -> None:
                for n in range(start, start + 50):
                    await sending.group_send("log", numbered(n))

            async def at_once(start: int) -> None:
                await asyncio.gather(*(sending.group_send("log", numbered(n)) for n in range(start, start + 50)))

            def in_a_thread(start: int) -> None:
                for n in range(start, start + 50):
                    group_send("log", numbered(n))

            def in_loops_of_their_own(start: int) -> None:
                for n in range(start, start + 10):
                    asyncio.run(_sent(n))

            await asyncio.gather(
                here(1000),
                at_once(2000),
                asyncio.to_thread(in_a_thread, 3000),
                asyncio.to_thread(in_a_thread, 4000),
                asyncio.to_thread(in_loops_of_their_own, 5000),
            )
        kept = numbers(await sending.history("log"))
        assert sorted(kept) == [
            *(n for start in (1000, 2000, 3000, 4000) for n in range(start, start + 50)),
            *range(5000, 5010),
        ]
        for member in members:
            assert await member.hears(210) == kept
        assert all(layer.stats()["drops"] == {} for layer in (sending, hearing))

    @needs("history")
    @scenario
    async def test_copies_for_several_groups_each_have_their_place(self) -> None:
        layer = self.logged()
        mine = await self.member(layer, "log1", "log2", "plain")
        await layer.groups_send(["log1", "log2", "plain"], numbered(1))
        await layer.groups_send(["log2"], numbered(2))
        assert await mine.hears(2) == [1, 2]
        assert numbers(await layer.history("log1")) == [1]
        assert numbers(await layer.history("log2")) == [1, 2]

    @needs("history")
    @scenario
    async def test_synchronous_code_reads_positions_too(self) -> None:
        layer = self.logged()
        with self.as_default(layer):
            receipt = await asyncio.to_thread(group_send, "log", numbered(1))
        positions = await asyncio.to_thread(layer.positions_blocking, ["log", "log2"])
        assert positions["log"] == receipt.position == await layer.position("log")
        assert positions["log2"].offset == 0

    @needs("history")
    @scenario
    async def test_a_history_that_was_flushed_begins_anew_and_says_so(self) -> None:
        layer = self.logged()
        mine = await self.member(layer, "log")
        last = (await layer.group_send("log", numbered(1))).position
        assert await mine.hears(1) == [1]
        await layer.flush()
        mine = await self.member(layer, "log")
        assert last is not None
        assert not (await layer.history("log", since=last)).complete
        first = (await layer.group_send("log", numbered(2))).position
        assert first is not None
        assert first.epoch != last.epoch
        assert await mine.hears(1) == [2]

    @needs("history")
    @scenario
    async def test_what_comes_back_recovers_all_of_it_or_nothing(self) -> None:
        layer = self.logged()
        node, mailbox = layer.open_mailbox("Suite", capacity=None, overflow=None)
        for n in range(1, 11):
            await layer.group_send("log", numbered(n))
        epoch = (await layer.position("log")).epoch
        recovery = await node.recover("g:log", mailbox, Position(epoch, 7))
        assert recovery.recovered
        assert [envelope.message()["n"] for envelope in recovery.envelopes] == [8, 9, 10]
        assert recovery.position == Position(epoch, 10)
        node.leave("g:log", mailbox)
        for since in (Position(epoch, 11), Position("another", 3)):
            recovery = await node.recover("g:log", mailbox, since)
            assert (recovery.recovered, recovery.envelopes) == (False, [])
            node.leave("g:log", mailbox)
        node.close(mailbox)

    @needs("history")
    @scenario
    async def test_who_recovers_while_others_send_misses_nothing(self) -> None:
        layer = self.logged()
        start = await layer.position("log")
        sending = asyncio.create_task(_send_all(layer, 300))
        comers = []
        for _ in range(10):
            node, mailbox = layer.open_mailbox("Suite", capacity=10_000, overflow=None)
            recovery = await node.recover("g:log", mailbox, start)
            assert recovery.recovered
            missed = [envelope.message()["n"] for envelope in recovery.envelopes]
            comers.append((missed, self.listen(layer, mailbox.channel)))
            await asyncio.sleep(0.002)
        await sending
        for missed, live in comers:
            await live.hears(300 - len(missed))
            assert missed + live.numbers == list(range(300))

    @needs("history")
    @needs("faults")
    @scenario
    async def test_after_the_death_of_the_engine_nothing_is_out_of_order_or_twice(self) -> None:
        layer = self.logged()
        mine = await self.member(layer, "log")
        await _send_all(layer, 10)
        await mine.hears(10)
        self.kill_engine()
        self.restart_engine()

        async def sent() -> bool:
            try:
                await layer.group_send("log", numbered(100))
            except EngineUnavailable:
                return False
            return True

        await until(sent, what="the engine to come back")
        last = await layer.group_send("log", numbered(101))
        await until(lambda: mine.numbers[-1:] == [101], what="the last message")
        assert mine.numbers[:10] == list(range(10))
        assert mine.numbers[-2:] == [100, 101]
        history = await layer.history("log")
        assert history.position == last.position
        assert numbers(history)[-2:] == [100, 101]


async def _sent(n: int) -> None:
    layer = get_channel_layer()
    assert layer is not None
    await layer.group_send("log", numbered(n))


async def _send_all(layer: ChannelLayer, count: int) -> None:
    for n in range(count):
        await layer.group_send("log", numbered(n))
