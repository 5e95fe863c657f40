"""Coming back: what was missed, once and in order, or the word that it is gone; epochs, losses, slow clients."""

from __future__ import annotations

import asyncio
from types import SimpleNamespace
from typing import Any

import pytest

from antiphon.engines.memory.history import MemoryLogs
from antiphon.layers import InMemoryChannelLayer
from antiphon.types import Page, Position
from tests.consumers.client import members
from tests.subscriptions.speaking import Open, speaker


async def publish(layer: InMemoryChannelLayer, group: str, *data: Any) -> None:
    for each in data:
        await layer.group_send(group, {"type": "publication", "data": each})


def pubs(first: int, last: int) -> list[dict[str, Any]]:
    return [{"data": n, "offset": n} for n in range(first, last + 1)]


async def test_the_gap_stands_in_the_reply_and_what_is_new_comes_after_it(layer: InMemoryChannelLayer) -> None:
    await publish(layer, "log", *range(1, 6))
    epoch = (await layer.position("log")).epoch
    async with speaker() as one:
        await one.begin()
        result = await one.do("subscribe", channel="log", recover=True, offset=2, epoch=epoch)
        assert result == {
            "recoverable": True,
            "positioned": True,
            "was_recovering": True,
            "recovered": True,
            "epoch": epoch,
            "offset": 2,  # where it asked from: each publication moves it on
            "publications": pubs(3, 5),
        }
        await publish(layer, "log", 6)
        assert await one.push() == ("log", {"data": 6, "offset": 6})


async def test_what_is_published_while_a_client_recovers_comes_once_and_in_its_place(
    layer: InMemoryChannelLayer,
) -> None:
    class Busy(Open):
        async def _antiphon_enter(self, group: str, since: Any = None) -> Any:
            joined = await super()._antiphon_enter(group, since)
            await publish(layer, group, 4)
            return joined

    await publish(layer, "log", 1, 2, 3)
    async with speaker(Busy) as one:
        await one.begin()
        result = await one.do("subscribe", channel="log", recover=True)
        offsets = [pub["offset"] for pub in result["publications"]]
        await publish(layer, "log", 5)
        while offsets[-1] < 5:
            offsets.append((await one.push())[1]["offset"])
        assert offsets == [1, 2, 3, 4, 5]


async def test_without_an_epoch_a_client_recovers_from_any(layer: InMemoryChannelLayer) -> None:
    await publish(layer, "log", 1, 2)
    for fields in ({}, {"offset": 0, "epoch": ""}):
        async with speaker() as one:
            await one.begin()
            result = await one.do("subscribe", channel="log", recover=True, **fields)
            assert (result["recovered"], result["offset"], result["publications"]) == (True, 0, pubs(1, 2))


@pytest.mark.parametrize(("epoch", "offset"), [("another", 1), ("_", 0), (None, 99), (None, 1)])
async def test_what_cannot_be_recovered_is_said_and_the_client_is_live_from_the_top(
    layer: InMemoryChannelLayer, epoch: str | None, offset: int
) -> None:
    await publish(layer, "brief", *range(1, 9))
    top = await layer.position("brief")
    asked = {"channel": "brief", "recover": True, "offset": offset, "epoch": epoch or top.epoch}
    async with speaker() as one:
        await one.begin()
        result = await one.do("subscribe", **asked)
        assert "recovered" not in result
        assert "publications" not in result
        assert (result["was_recovering"], result["epoch"], result["offset"]) == (True, top.epoch, 8)
        await publish(layer, "brief", 9)
        assert (await one.push())[1]["offset"] == 9
    async with speaker() as two:  # centrifuge's getState: an error in place of that
        await two.begin()
        assert (await two.do("subscribe", flag=2, **asked))["code"] == 112
        assert members("brief") == 0


async def test_a_client_that_missed_nothing_gets_nothing(layer: InMemoryChannelLayer) -> None:
    await publish(layer, "log", 1, 2)
    top = await layer.position("log")
    async with speaker() as one:
        await one.begin()
        result = await one.do("subscribe", channel="log", recover=True, offset=2, epoch=top.epoch)
        assert (result["recovered"], result["offset"]) == (True, 2)
        assert "publications" not in result


async def test_a_group_without_history_says_that_nothing_was_recovered(layer: InMemoryChannelLayer) -> None:
    async with speaker() as one:
        await one.begin()
        assert await one.do("subscribe", channel="room", recover=True, offset=3, epoch="e") == {"was_recovering": True}


async def test_cache_recovery_brings_the_newest_alone(layer: InMemoryChannelLayer) -> None:
    await publish(layer, "last", *range(1, 9))
    top = await layer.position("last")
    for since, expected in (
        ({"offset": 2, "epoch": top.epoch}, pubs(8, 8)),
        ({"offset": 300, "epoch": "old"}, pubs(8, 8)),
    ):
        async with speaker() as one:
            await one.begin()
            result = await one.do("subscribe", channel="last", recover=True, **since)
            assert (result["recovered"], result["publications"]) == (True, expected)
            assert (result["epoch"], result["offset"]) == (top.epoch, 7)
    async with speaker() as one:
        await one.begin()
        result = await one.do("subscribe", channel="last", recover=True, offset=8, epoch=top.epoch)
        assert (result["recovered"], result["offset"], result.get("publications")) == (True, 8, None)


async def test_authors_do_not_recover_what_they_sent_to_the_others(layer: InMemoryChannelLayer) -> None:
    ada, bob = (SimpleNamespace(pk=pk, is_authenticated=True) for pk in (1, 2))
    async with speaker(user=ada) as one:
        await one.begin()
        await one.do("subscribe", channel="log")
        (channel,) = await layer.group_channels("log")
        await layer.group_send("log", {"type": "publication", "data": 1}, exclude=[channel])
        await publish(layer, "log", 2)
        assert (await one.push())[1]["offset"] == 2
    for who, expected in ((ada, pubs(2, 2)), (bob, pubs(1, 2))):
        async with speaker(user=who) as back:
            await back.begin()
            assert (await back.do("subscribe", channel="log", recover=True))["publications"] == expected
            assert (await back.do("history", channel="log", limit=-1))["publications"] == expected


async def test_a_new_epoch_makes_the_client_ask_again_with_what_it_has(
    layer: InMemoryChannelLayer, monkeypatch: pytest.MonkeyPatch
) -> None:
    # An engine whose log goes on under another epoch, as after a failover: positions of the one before stay good.
    read = MemoryLogs.read
    earlier: set[str] = set()

    def reading(logs: Any, topic: str, since: Position | None, limit: int, *, reverse: bool) -> Page:
        if since is not None and since.epoch in earlier:
            since = Position(logs.top(topic).epoch, since.offset)
        return read(logs, topic, since, limit, reverse=reverse)

    monkeypatch.setattr(MemoryLogs, "read", reading)
    async with speaker() as one:
        await one.begin()
        old = (await one.do("subscribe", channel="log"))["epoch"]
        await publish(layer, "log", 1)
        assert await one.push() == ("log", pubs(1, 1)[0])
        earlier.add(old)
        layer._bus._logs._logs["g:log"].epoch = "new"
        await publish(layer, "log", 2, 3)
        assert await one.push("unsubscribe") == ("log", {"code": 2500, "reason": "insufficient state"})
        result = await one.do("subscribe", channel="log", recover=True, epoch=old, offset=1)
        assert (result["recovered"], result["epoch"], result["publications"]) == (True, "new", pubs(2, 3))
        await publish(layer, "log", 4)
        assert (await one.push())[1]["offset"] == 4


async def test_a_log_that_is_gone_makes_the_client_ask_again_and_hear_it(layer: InMemoryChannelLayer) -> None:
    heard: list[str] = []

    class Hearing(Open):
        async def on_unsubscribe(self, group: str) -> None:
            heard.append(group)

    async with speaker(Hearing) as one:
        await one.begin()
        old = (await one.do("subscribe", channel="log"))["epoch"]
        await publish(layer, "log", 1)
        assert (await one.push())[1]["offset"] == 1
        layer._bus.forget_logs()
        await publish(layer, "log", 2)
        assert await one.push("unsubscribe") == ("log", {"code": 2500, "reason": "insufficient state"})
        result = await one.do("subscribe", channel="log", recover=True, epoch=old, offset=1)
        assert "recovered" not in result
        assert heard == ["log"]
        await publish(layer, "log", 3)
        assert (await one.push())[1]["data"] == 3


async def test_a_slow_client_is_closed_and_loses_nothing(layer: InMemoryChannelLayer) -> None:
    started, gate = asyncio.Event(), asyncio.Event()

    class Slow(Open):
        capacity = 3

        async def rpc_wait(self, data: Any) -> None:
            started.set()
            await gate.wait()

    async with speaker(Slow) as one:
        await one.begin()
        epoch = (await one.do("subscribe", channel="log"))["epoch"]
        one.text(one.command("rpc", method="wait"))
        await started.wait()
        await publish(layer, "log", *range(1, 11))
        assert await one.closed() == (3008, "slow")
        gate.set()
    async with speaker(Slow) as two:
        await two.begin()
        result = await two.do("subscribe", channel="log", recover=True, epoch=epoch, offset=0)
        assert result["publications"] == pubs(1, 10)
