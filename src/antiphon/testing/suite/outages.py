"""The server dies and comes back: consumers go on, publishers are told, and so is what may be lost."""

# ruff: noqa: S101, D102 -- tests that are shipped are tests: they assert, and their names say what

from __future__ import annotations

import asyncio
import contextlib
import time

from ...exceptions import EngineUnavailable, NodeUnreachable
from ...layer.layer import ChannelLayer
from .base import Resident, SuiteBase, needs, numbered, scenario, until

TIMEOUT_S = 1.0
# After the server is back.
TOLD_WITHIN_S = 10.0


class OutageTests(SuiteBase):
    """Needs ``faults``, and ``processes``."""

    @needs("faults")
    @needs("processes")
    @scenario
    async def test_after_the_death_and_return_of_the_server_both_processes_go_on_and_are_told(self) -> None:
        layer, resident = self.make_layer(timeout_s=TIMEOUT_S), await self.resident(timeout_s=TIMEOUT_S)
        mine, theirs = await self.member(layer, "g"), await resident.do("member", "g")
        assert (await layer.group_send("g", numbered(0))).nodes in (2, None)
        await asyncio.to_thread(self.kill_engine)
        began = time.monotonic()
        calls = layer.group_send("g", numbered(1)), layer.group_add("h", mine.channel), layer.group_count("g")
        for failure in await asyncio.gather(*calls, return_exceptions=True):
            assert isinstance(failure, EngineUnavailable), f"a dead engine did as it was told: {failure!r}"
        assert time.monotonic() - began < TIMEOUT_S + 10.0
        assert await layer.group_channels("g", scope="node") == [mine.channel]
        await asyncio.to_thread(self.restart_engine)
        back_s = time.monotonic()
        await self._both_again(layer)
        await until(
            lambda: layer.stats()["lost"] >= 1, TOLD_WITHIN_S + back_s - time.monotonic(), "the loss to be told"
        )
        await until(lambda: self._spans(resident), TOLD_WITHIN_S, "the loss to be told to the other process")
        await layer.group_send("g", numbered(2))
        await until(lambda: 2 in mine.numbers)
        await until(lambda: self._heard(resident, theirs, 2))
        assert mine.numbers[0] == 0
        assert await layer.group_count("g") == 2
        # The loss is told once, not at every message.
        assert len(await self._spans(resident)) == 1

    @needs("faults")
    @needs("processes")
    @scenario
    async def test_every_message_of_an_outage_is_delivered_or_its_publisher_or_its_receiver_told(self) -> None:
        layer = self.make_layer(timeout_s=TIMEOUT_S, capacity=100_000)
        resident = await self.resident(timeout_s=TIMEOUT_S, capacity=100_000)
        theirs = await resident.do("member", "g")
        await self.member(layer, "g")
        sent: dict[int, tuple[float, float]] = {}
        failed: set[int] = set()
        over = False

        async def send(start: int) -> None:
            n = start
            while not over:
                began = time.time()
                try:
                    await layer.group_send("g", numbered(n))
                except EngineUnavailable:
                    failed.add(n)
                    await asyncio.sleep(0.01)
                sent[n] = (began, time.time())
                n += 10
                await asyncio.sleep(0.002)

        senders = [asyncio.ensure_future(send(start)) for start in range(10)]
        await asyncio.sleep(0.2)
        await asyncio.to_thread(self.kill_engine)
        await asyncio.sleep(0.2)
        await asyncio.to_thread(self.restart_engine)
        await self._both_again(layer)
        await asyncio.sleep(0.2)
        over = True
        await asyncio.gather(*senders)
        await layer.group_send("g", numbered(-7))
        await until(lambda: self._heard(resident, theirs, -7), what="the last message")
        heard = [n for n in await resident.do("heard", theirs, 0) if n >= 0]
        assert len(heard) == len(set(heard)), "a message was delivered twice"
        await until(lambda: self._spans(resident), TOLD_WITHIN_S, "the outage to be told")
        spans = await self._spans(resident)
        unexplained = [
            n
            for n in sent.keys() - set(heard) - failed
            if not any(since <= sent[n][1] and sent[n][0] <= until_ for since, until_ in spans)
        ]
        assert unexplained == [], f"lost in silence; of {len(sent)} sent, {len(failed)} failed, {len(heard)} were heard"
        assert len(heard) > 20

    @needs("faults")
    @needs("worker_channels")
    @scenario
    async def test_a_worker_that_waits_goes_on_after_the_return_of_the_server(self) -> None:
        layer = self.make_layer(timeout_s=TIMEOUT_S)
        worker = self.listen(layer, "worker")
        await layer.send("worker", numbered(0))
        await worker.hears(1)
        await asyncio.to_thread(self.kill_engine)
        await asyncio.sleep(0.2)
        await asyncio.to_thread(self.restart_engine)

        async def sent() -> bool:
            with contextlib.suppress(EngineUnavailable):
                await layer.send("worker", numbered(1))
                return True
            return False

        await until(sent, 20.0, "a worker channel to take a message")
        assert 1 in await worker.hears(2)

    async def _both_again(self, layer: ChannelLayer) -> None:
        """Wait until a message reaches both processes again."""

        async def reached() -> bool:
            with contextlib.suppress(EngineUnavailable, NodeUnreachable):
                return (await layer.group_send("g", numbered(-1))).nodes in (2, None)
            return False

        await until(reached, 20.0, "both processes to be members again")

    async def _spans(self, resident: Resident) -> list[tuple[float, float]]:
        """Of the group's losses, since when and until when."""
        losses = await resident.do("losses")
        return [(since, until_) for kind, name, since, until_ in losses if (kind, name) == ("group", "g")]

    async def _heard(self, resident: Resident, channel: str, n: int) -> bool:
        return n in await resident.do("heard", channel, 0)
