"""What happens when a mailbox is full: the three policies, the counters, the warnings, the hook."""

from __future__ import annotations

import asyncio
import logging
from typing import Any

import pytest

import antiphon
from antiphon.layer import drops
from antiphon.layer.drops import Drop, Drops
from antiphon.layer.mailbox import Mailbox
from antiphon.layers import InMemoryChannelLayer
from tests.layer.conftest import Make
from tests.layer.members import numbered
from tests.waiting import until


async def member(layer: InMemoryChannelLayer, group: str, **options: Any) -> Mailbox:
    """Open the mailbox of a connection of the consumer class Chat, in a group."""
    node, mailbox = layer.open_mailbox("Chat", **{"capacity": None, "overflow": None, **options})
    await node.join(f"g:{group}", mailbox)
    return mailbox


async def held(layer: InMemoryChannelLayer, mailbox: Mailbox) -> list[int]:
    return [(await layer.receive(mailbox.channel))["n"] for _ in range(len(mailbox))]


def warnings(caplog: pytest.LogCaptureFixture) -> list[str]:
    return [r.getMessage() for r in caplog.records if r.name == "antiphon.layer" and r.levelno == logging.WARNING]


async def test_drop_new_keeps_the_oldest(make: Make) -> None:
    layer = make(capacity=3)
    mailbox = await member(layer, "g")
    receipts = [await layer.group_send("g", numbered(n)) for n in range(5)]
    assert [(receipt.delivered or 0, receipt.dropped or 0) for receipt in receipts] == [(1, 0)] * 3 + [(0, 1)] * 2
    assert await held(layer, mailbox) == [0, 1, 2]
    await asyncio.sleep(0)
    assert layer.stats()["drops"] == {"over_capacity": 2}


async def test_drop_old_keeps_the_newest(make: Make) -> None:
    layer = make(capacity=3, overflow="drop_old")
    mailbox = await member(layer, "g")
    receipts = [await layer.group_send("g", numbered(n)) for n in range(5)]
    # Its own message was taken; the one that made room for it is counted beside it.
    assert (receipts[-1].delivered, receipts[-1].dropped) == (1, 0)
    assert await held(layer, mailbox) == [2, 3, 4]
    await asyncio.sleep(0)
    assert layer.stats()["drops"] == {"replaced": 2}


async def test_close_ends_the_slow_connection_with_its_reason_and_no_other(make: Make) -> None:
    layer = make(capacity=2, overflow="close")
    slow, quick = await member(layer, "g"), await member(layer, "g", capacity=10)
    closes: list[str] = []
    slow.on_close = closes.append
    for n in range(5):
        await layer.group_send("g", numbered(n))
    assert closes == ["slow"]
    assert quick.closing is None
    assert await held(layer, quick) == [0, 1, 2, 3, 4]
    await asyncio.sleep(0)
    assert layer.stats()["drops"] == {"slow": 1, "closed": 2}
    assert layer.stats()["dropped"] == 3


async def test_the_policy_is_chosen_by_pattern_and_by_class(make: Make) -> None:
    layer = make(capacity=1, overflow="close", channel_overflow={"mine.*": "drop_old", "mine*": "drop_new"})
    assert layer.get_overflow("mine.1!2") == "drop_old"
    assert layer.get_overflow("mine-1") == "drop_new"
    assert layer.get_overflow("specific.1!2") == "close"
    assert (await member(layer, "g", overflow="drop_new")).policy == "drop_new"
    assert (await member(layer, "g")).policy == "close"
    assert (await member(layer, "g", capacity=7)).capacity == 7
    by_hand = await layer.new_channel("mine")
    await layer.group_add("h", by_hand)
    for n in range(3):
        await layer.group_send("h", numbered(n))
    assert await layer.receive(by_hand) == numbered(2)


async def test_one_warning_names_group_and_consumer_however_many_are_dropped(
    make: Make, caplog: pytest.LogCaptureFixture
) -> None:
    layer = make(capacity=1)
    await member(layer, "lobby")
    await member(layer, "other")
    for n in range(30):
        await layer.group_send("lobby", numbered(n))
        await layer.group_send("other", numbered(n))
    await asyncio.sleep(0)
    said = warnings(caplog)
    assert len(said) == 2
    assert said[0].startswith("Dropped 1 message for Chat of group 'lobby': its mailbox is full (capacity)")
    assert "of group 'other'" in said[1]
    assert layer.stats()["drops_by_group"] == {"lobby:over_capacity": 29, "other:over_capacity": 29}


async def test_the_total_of_what_was_not_said_follows_after_the_interval(
    make: Make, caplog: pytest.LogCaptureFixture, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(drops, "LOG_INTERVAL_S", 0.3)
    monkeypatch.setattr("antiphon.layer.accounts.LOG_INTERVAL_S", 0.4)  # when the hub looks: a tenth of a second later
    layer = make(capacity=1)
    await member(layer, "lobby")
    for n in range(6):
        await layer.group_send("lobby", numbered(n))
    await until(lambda: len(warnings(caplog)) >= 2)
    assert [text.split(":")[0] for text in warnings(caplog)] == [
        "Dropped 1 message for Chat of group 'lobby'",
        "Dropped 4 messages for Chat of group 'lobby'",
    ]


async def test_a_dropped_direct_send_names_no_group(make: Make, caplog: pytest.LogCaptureFixture) -> None:
    layer = make(capacity=1)
    node, mailbox = layer.open_mailbox("Chat", capacity=None, overflow=None)
    node.close(mailbox)
    await layer.send(mailbox.channel, numbered(1))
    await asyncio.sleep(0)
    assert warnings(caplog) == [f"Dropped 1 message for {mailbox.channel}: there is no such channel any more."]


async def test_the_hook_is_offered_every_drop(make: Make) -> None:
    seen: list[Drop] = []
    antiphon.configure(on_drop=seen.append)
    layer = make(capacity=1)
    await member(layer, "lobby")
    for n in range(4):
        await layer.group_send("lobby", numbered(n))
    assert seen == []  # not in the middle of the fan-out
    await asyncio.sleep(0)
    assert seen == [Drop("over_capacity", "lobby", "Chat")] * 3


async def test_a_hook_that_raises_is_logged_and_harms_nobody(make: Make, caplog: pytest.LogCaptureFixture) -> None:
    def hook(drop: Drop) -> None:
        raise RuntimeError("the application's mistake")

    antiphon.configure(on_drop=hook)
    layer = make(capacity=1)
    mailbox = await member(layer, "lobby")
    for n in range(3):
        await layer.group_send("lobby", numbered(n))
    await asyncio.sleep(0)
    assert await held(layer, mailbox) == [0]
    assert layer.stats()["drops"] == {"over_capacity": 2}
    assert [r.getMessage() for r in caplog.records if r.exc_info] == ["on_drop raised"] * 2


def test_a_hook_may_be_a_dotted_path() -> None:
    antiphon.configure(on_drop="tests.layer.test_overflow.remember")
    Drops().add(Drop("expired", None, "worker"))
    from tests.layer import test_overflow

    assert test_overflow.remembered == [Drop("expired", None, "worker")]


remembered: list[Drop] = []


def remember(drop: Drop) -> None:
    remembered.append(drop)


async def test_a_hook_may_send_to_the_layer(make: Make) -> None:
    layer = make(capacity=1)
    channel = await layer.new_channel()
    antiphon.configure(on_drop=lambda drop: asyncio.ensure_future(layer.send(channel, {"type": "dropped"})))
    await member(layer, "lobby")
    for n in range(2):
        await layer.group_send("lobby", numbered(n))
    assert await layer.receive(channel) == {"type": "dropped"}


def test_the_names_of_groups_cannot_fill_the_memory() -> None:
    counted = Drops()
    logging.getLogger("antiphon.layer").disabled = True
    try:
        for n in range(drops.MAX_GROUPS + 500):
            counted.add(Drop("expired", f"g{n}", "Chat"))
    finally:
        logging.getLogger("antiphon.layer").disabled = False
    assert len(counted.by_group) <= drops.MAX_GROUPS + 1
    assert len(counted._log) <= drops.MAX_GROUPS + 1
    assert counted.by_group["expired", drops.OTHER_GROUPS] == 500
    assert counted.by_reason["expired"] == drops.MAX_GROUPS + 500


async def test_a_slow_reader_with_a_full_mailbox_slows_nobody(make: Make) -> None:
    layer = make(capacity=5)
    slow = await member(layer, "g")
    quick = await layer.new_channel()
    await layer.group_add("g", quick)

    async def read() -> list[int]:
        return [(await layer.receive(quick))["n"] for _ in range(50)]

    reader = asyncio.create_task(read())
    for n in range(50):
        await layer.group_send("g", numbered(n))
        await asyncio.sleep(0)
    assert await asyncio.wait_for(reader, 30) == list(range(50))
    assert await held(layer, slow) == [0, 1, 2, 3, 4]
    await layer.group_send("g", numbered(50))
    assert await held(layer, slow) == [50]


async def test_what_a_connection_leaves_unread_is_counted(make: Make) -> None:
    layer = make()
    node, mailbox = layer.open_mailbox("Chat", capacity=None, overflow=None)
    await node.join("g:g", mailbox)
    for n in range(3):
        await layer.group_send("g", numbered(n))
    node.close(mailbox)
    assert layer.stats()["drops"] == {"closed": 3}
    assert layer.stats()["dropped"] == 3
    assert layer.groups == {}
