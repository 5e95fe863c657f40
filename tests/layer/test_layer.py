"""The channel layer on one loop: every method, its results, and its errors at the call."""

from __future__ import annotations

import asyncio
import re
import time
from collections.abc import Awaitable
from typing import Any

import pytest

from antiphon import Receipt
from antiphon.engines.memory import MemoryBus
from antiphon.envelope import MESSAGE, pack
from antiphon.exceptions import ChannelFull, MessageTooLarge, OptionError
from antiphon.layer.capture import Sent, recorders
from antiphon.layers import BaseChannelLayer, ChannelLayer, InMemoryChannelLayer
from antiphon.names import user_topic
from tests.layer.conftest import Make

HELLO = {"type": "hello"}


def numbered(n: int) -> dict[str, Any]:
    return {"type": "t", "n": n}


async def waits(layer: InMemoryChannelLayer, channel: str) -> bool:
    """Say whether nothing is there to be received."""
    try:
        await asyncio.wait_for(layer.receive(channel), 0.02)
    except TimeoutError:
        return True
    return False


async def members(layer: InMemoryChannelLayer, group: str, count: int) -> list[str]:
    channels = [await layer.new_channel() for _ in range(count)]
    for channel in channels:
        await layer.group_add(group, channel)
    return channels


# send and receive


async def test_what_is_sent_to_a_channel_is_received_in_order(layer: InMemoryChannelLayer) -> None:
    channel = await layer.new_channel()
    for n in range(5):
        await layer.send(channel, numbered(n))
    assert [(await layer.receive(channel))["n"] for _ in range(5)] == list(range(5))
    assert await waits(layer, channel)


async def test_a_worker_channel_keeps_what_is_sent_before_anybody_reads(layer: InMemoryChannelLayer) -> None:
    await layer.send("worker", numbered(1))
    await layer.send("worker", numbered(2))
    assert [(await layer.receive("worker"))["n"] for _ in range(2)] == [1, 2]


async def test_two_readers_of_a_worker_channel_share_its_messages(layer: InMemoryChannelLayer) -> None:
    async def read() -> list[int]:
        found = []
        while (message := await layer.receive("worker")).get("n") is not None:
            found.append(message["n"])
            await asyncio.sleep(0.001)  # work: meanwhile the next message is the other reader's
        return found

    readers = [asyncio.create_task(read()) for _ in range(2)]
    await asyncio.sleep(0)
    for n in range(40):
        await layer.send("worker", numbered(n))
        await asyncio.sleep(0)
    for _ in readers:
        await layer.send("worker", HELLO)
    first, second = await asyncio.gather(*readers)
    assert sorted(first + second) == list(range(40))
    assert first == sorted(first)
    assert second == sorted(second)
    assert first
    assert second


async def test_two_readers_of_one_specific_channel_each_get_messages(layer: InMemoryChannelLayer) -> None:
    channel = await layer.new_channel()
    readers = [asyncio.create_task(layer.receive(channel)) for _ in range(2)]
    await asyncio.sleep(0)
    await layer.send(channel, numbered(1))
    await layer.send(channel, numbered(2))
    assert sorted(message["n"] for message in await asyncio.gather(*readers)) == [1, 2]


async def test_new_channels_have_names_of_their_own_under_the_prefix(layer: InMemoryChannelLayer) -> None:
    names = [await layer.new_channel() for _ in range(50)]
    assert len(set(names)) == 50
    assert all(re.fullmatch(r"specific\.[0-9a-f]{12}!x[0-9a-f]+", name) for name in names)
    assert (await layer.new_channel("mine")).startswith("mine.")
    assert (await layer.new_channel("my.own.")).startswith("my.own.")
    channel = await layer.new_channel("my.own")
    await layer.send(channel, HELLO)
    assert await layer.receive(channel) == HELLO


async def test_a_specific_name_that_nobody_made_belongs_to_its_first_reader(layer: InMemoryChannelLayer) -> None:
    reader = asyncio.create_task(layer.receive("specific.mine!a"))
    await asyncio.sleep(0)
    await layer.send("specific.mine!a", HELLO)
    assert await reader == HELLO
    await layer.group_add("g", "specific.mine!b")
    await layer.group_send("g", HELLO)
    assert await layer.receive("specific.mine!b") == HELLO


async def test_each_receiver_has_its_own_copy(layer: InMemoryChannelLayer) -> None:
    channels = await members(layer, "g", 3)
    sent = {"type": "t", "list": [1]}
    await layer.group_send("g", sent)
    sent["list"] = "changed after the send"
    first = await layer.receive(channels[0])
    first["list"].append(2)
    assert await layer.receive(channels[1]) == {"type": "t", "list": [1]}
    assert await layer.receive(channels[2]) == {"type": "t", "list": [1]}


# Capacity


async def test_a_full_channel_refuses_the_next_message_and_takes_it_after_a_receive(make: Make) -> None:
    layer = make(capacity=3)
    for channel in ("worker", await layer.new_channel()):
        for n in range(3):
            await layer.send(channel, numbered(n))
        with pytest.raises(ChannelFull):
            await layer.send(channel, numbered(3))
        await layer.receive(channel)
        await layer.send(channel, numbered(4))
        assert [(await layer.receive(channel))["n"] for _ in range(3)] == [1, 2, 4]


async def test_capacity_is_set_by_glob_and_by_pattern_and_the_first_match_wins(make: Make) -> None:
    layer = make(
        capacity=9,
        channel_capacity={"http.request": 1, re.compile(r"^worker-\d+$"): 2, "worker*": 3, "specific.*": 4},
    )
    for channel, capacity in {
        "http.request": 1,
        "http.request2": 9,
        "worker-12": 2,
        "worker-x": 3,
        "specific.abc!1": 4,
        "other": 9,
    }.items():
        assert layer.get_capacity(channel) == capacity
    for n in range(2):
        await layer.send("worker-1", numbered(n))
    with pytest.raises(ChannelFull):
        await layer.send("worker-1", numbered(2))
    mine = await layer.new_channel()
    for n in range(4):
        await layer.send(mine, numbered(n))
    with pytest.raises(ChannelFull):
        await layer.send(mine, numbered(4))


async def test_group_send_never_raises_channel_full(make: Make) -> None:
    layer = make(capacity=1)
    full, free = await members(layer, "g", 2)
    await layer.send(full, numbered(0))
    await layer.group_add("g", "worker")
    await layer.send("worker", numbered(0))
    receipt = await layer.group_send("g", numbered(1))
    assert (receipt.delivered, receipt.dropped) == (1, 1)
    assert await layer.receive(free) == numbered(1)
    assert await layer.receive(full) == numbered(0)
    assert await layer.receive("worker") == numbered(0)
    assert await waits(layer, "worker")
    await asyncio.sleep(0)
    assert layer.stats()["drops"]["over_capacity"] == 2


# Expiry


async def test_a_message_that_nobody_reads_in_time_is_gone_and_counted(make: Make) -> None:
    layer = make(expiry=0.12)
    mine = await layer.new_channel()
    await layer.send(mine, numbered(1))
    await layer.send("worker", numbered(1))
    await asyncio.sleep(0.17)
    await layer.send(mine, numbered(2))
    await layer.send("worker", numbered(2))
    assert await layer.receive(mine) == numbered(2)
    assert await layer.receive("worker") == numbered(2)
    assert layer.stats()["drops"]["expired"] == 2


async def test_an_expired_message_makes_room(make: Make) -> None:
    layer = make(expiry=0.12, capacity=1)
    await layer.send("worker", numbered(1))
    with pytest.raises(ChannelFull):
        await layer.send("worker", numbered(2))
    await asyncio.sleep(0.15)
    await layer.send("worker", numbered(2))
    assert await layer.receive("worker") == numbered(2)


async def test_an_expired_message_makes_room_in_a_channel_of_this_node_too(make: Make) -> None:
    layer = make(expiry=0.12, capacity=1)
    mine = await layer.new_channel()
    await layer.send(mine, numbered(1))
    await asyncio.sleep(0.15)
    await layer.send(mine, numbered(2))
    assert await layer.receive(mine) == numbered(2)


async def test_what_expired_in_the_full_mailbox_of_a_stuck_consumer_makes_room(make: Make) -> None:
    layer = make(expiry=0.12, capacity=2)
    node, mailbox = layer.open_mailbox("Chat", capacity=None, overflow=None)
    await node.join("g:g", mailbox)
    for n in range(3):
        await layer.group_send("g", numbered(n))
    await asyncio.sleep(0.15)
    assert (await layer.group_send("g", numbered(3))).delivered == 1
    await asyncio.sleep(0)
    assert layer.stats()["drops"] == {"over_capacity": 1, "expired": 2}
    assert await layer.receive(mailbox.channel) == numbered(3)


async def test_a_worker_channel_leaves_its_group_after_group_expiry(make: Make) -> None:
    layer = make(group_expiry=0.12)
    await layer.group_add("g", "worker")
    await layer.group_send("g", numbered(1))
    assert await layer.group_channels("g") == ["worker"]
    await asyncio.sleep(0.17)
    await layer.group_send("g", numbered(2))
    assert await layer.group_channels("g") == []
    assert await layer.group_count("g") == 0
    assert await layer.receive("worker") == numbered(1)
    assert await waits(layer, "worker")


async def test_group_add_again_renews_the_membership_of_a_worker_channel(make: Make) -> None:
    layer = make(group_expiry=0.38)
    await layer.group_add("g", "worker")
    await asyncio.sleep(0.2)
    await layer.group_add("g", "worker")
    await asyncio.sleep(0.2)
    await layer.group_send("g", HELLO)
    assert await layer.receive("worker") == HELLO


async def test_a_channel_that_nobody_reads_for_expiry_seconds_leaves_its_groups_and_is_counted(make: Make) -> None:
    layer = make(expiry=0.12)
    [gone] = await members(layer, "g", 1)
    [read] = await members(layer, "g", 1)
    reader = asyncio.create_task(layer.receive(read))
    await layer.group_send("other", HELLO)
    async with asyncio.timeout(2):
        while layer.stats()["idle_channels"] == 0:  # noqa: ASYNC110  -- a counter has no event
            await asyncio.sleep(0.02)
    assert await layer.group_channels("g") == [read]
    assert gone not in await layer.group_channels("g")
    assert layer.stats()["idle_channels"] == 1
    await layer.group_send("g", HELLO)
    assert await reader == HELLO


# Groups


async def test_a_group_reaches_its_members_and_nobody_else(layer: InMemoryChannelLayer) -> None:
    ours = await members(layer, "g", 3)
    [other] = await members(layer, "h", 1)
    receipt = await layer.group_send("g", HELLO)
    assert (receipt.state, receipt.nodes, receipt.delivered, receipt.dropped) == ("sent", 1, 3, 0)
    assert [await layer.receive(channel) for channel in ours] == [HELLO] * 3
    assert await waits(layer, other)


async def test_adding_twice_gives_one_message_and_one_discard_ends_it(layer: InMemoryChannelLayer) -> None:
    [channel] = await members(layer, "g", 1)
    await layer.group_add("g", channel)
    await layer.group_send("g", HELLO)
    assert await layer.receive(channel) == HELLO
    assert await waits(layer, channel)
    await layer.group_discard("g", channel)
    await layer.group_discard("g", channel)
    await layer.group_discard("never", channel)
    await layer.group_send("g", HELLO)
    assert await waits(layer, channel)


async def test_what_was_sent_before_group_add_does_not_arrive(layer: InMemoryChannelLayer) -> None:
    channel = await layer.new_channel()
    await layer.group_send("g", numbered(1))
    await layer.group_add("g", channel)
    await layer.group_send("g", numbered(2))
    assert await layer.receive(channel) == numbered(2)


async def test_sending_to_a_group_without_members_reaches_nobody_and_is_no_error(layer: InMemoryChannelLayer) -> None:
    receipt = await layer.group_send("nobody", HELLO)
    assert receipt.state == "sent"
    assert not receipt.nodes
    assert not receipt.dropped


async def test_excluded_channels_get_nothing(layer: InMemoryChannelLayer) -> None:
    a, b, c = await members(layer, "g", 3)
    receipt = await layer.group_send("g", HELLO, exclude=[a, c, "not.in!it"])
    assert receipt.delivered == 1
    assert await layer.receive(b) == HELLO
    assert await waits(layer, a)
    assert await waits(layer, c)
    await layer.group_send("g", numbered(2), exclude=(channel for channel in (a, b)))
    assert await layer.receive(c) == numbered(2)
    assert await waits(layer, a)


async def test_groups_send_reaches_a_channel_once_however_many_of_the_groups_it_is_in(
    layer: InMemoryChannelLayer,
) -> None:
    both, first, second, excluded = [await layer.new_channel() for _ in range(4)]
    for group, channels in {"a": [both, first, excluded], "b": [both, second, excluded]}.items():
        for channel in channels:
            await layer.group_add(group, channel)
    await layer.groups_send(["a", "b", "a", "empty"], numbered(1), exclude=[excluded])
    await layer.groups_send(["b", "a"], numbered(2), exclude=[excluded])
    for channel in (both, first, second):
        assert [(await layer.receive(channel))["n"] for _ in range(2)] == [1, 2]
        assert await waits(layer, channel)
    assert await waits(layer, excluded)


async def test_groups_send_to_no_group_or_one(layer: InMemoryChannelLayer) -> None:
    [channel] = await members(layer, "g", 1)
    assert (await layer.groups_send([], HELLO)).nodes == 0
    await layer.groups_send(["g"], HELLO)
    assert await layer.receive(channel) == HELLO


async def test_send_many_sends_in_order_with_a_receipt_for_each(layer: InMemoryChannelLayer) -> None:
    [one] = await members(layer, "a", 1)
    await layer.group_add("b", one)
    receipts = await layer.send_many([("a", numbered(1)), ("b", numbered(2)), ("none", HELLO), ("a", numbered(3))])
    assert [receipt.delivered or 0 for receipt in receipts] == [1, 1, 0, 1]
    assert [(await layer.receive(one))["n"] for _ in range(3)] == [1, 2, 3]
    assert await layer.send_many([]) == []


@pytest.mark.parametrize("wrong", [("a b", HELLO), ("a", {"type": "t", "v": object()}), ("a", {"n": 1}), ("a", None)])
async def test_one_wrong_message_of_send_many_leaves_nothing_half_done(
    layer: InMemoryChannelLayer, wrong: tuple[str, Any]
) -> None:
    [one] = await members(layer, "a", 1)
    seen: list[Sent] = []
    recorders.append(seen.append)
    with pytest.raises(TypeError):
        await layer.send_many([("a", HELLO), wrong])
    assert await waits(layer, one)
    assert seen == []


async def test_the_members_of_a_group_are_listed_and_counted(layer: InMemoryChannelLayer) -> None:
    ours = await members(layer, "g", 3)
    await layer.group_add("g", "worker")
    everyone = await layer.group_channels("g")
    assert sorted(everyone) == sorted([*ours, "worker"])
    assert everyone.complete
    count = await layer.group_count("g")
    assert count == 4
    assert count.complete
    assert sorted(await layer.group_channels("g", scope="node")) == sorted(ours)
    assert await layer.group_count("g", scope="node") == 3
    assert await layer.group_channels("nobody") == []
    assert await layer.group_count("nobody") == 0
    with pytest.raises(ValueError, match="scope: expected 'all' or 'node'; got 'world'"):
        await layer.group_count("g", scope="world")


async def test_group_discard_all_leaves_every_group(layer: InMemoryChannelLayer) -> None:
    channel, other = [await layer.new_channel() for _ in range(2)]
    for name in (channel, "worker"):
        for group in ("a", "b", "c"):
            await layer.group_add(group, name)
            await layer.group_add(group, other)
        await layer.group_discard_all(name)
        assert [await layer.group_channels(group) for group in ("a", "b", "c")] == [[other]] * 3
    await layer.group_discard_all("specific.000000000000!1")
    assert set(layer.groups) == {"a", "b", "c"}


# Users and the end of connections


async def connection(layer: InMemoryChannelLayer, user: str | None, session: str | None) -> tuple[str, list[str]]:
    """Open the mailbox of a connection as a consumer with ``user_channel`` does; return its channel and closes."""
    node, mailbox = layer.open_mailbox("Chat", capacity=None, overflow=None)
    node.hub.identify(mailbox, user, session)
    closes: list[str] = []
    mailbox.on_close = closes.append
    if user is not None:
        await node.join(user_topic(user), mailbox)
    return mailbox.channel, closes


async def test_user_send_reaches_all_connections_of_that_user(layer: InMemoryChannelLayer) -> None:
    one, _ = await connection(layer, "7", "s1")
    two, _ = await connection(layer, "7", "s2")
    other, _ = await connection(layer, "8", "s3")
    receipt = await layer.user_send(7, HELLO)
    assert receipt.delivered == 2
    assert await layer.receive(one) == HELLO
    assert await layer.receive(two) == HELLO
    await layer.user_send("7", numbered(2), exclude=[one])
    assert await layer.receive(two) == numbered(2)
    assert await waits(layer, one)
    assert await waits(layer, other)
    with pytest.raises(TypeError, match="primary key"):
        await layer.user_send(None, HELLO)


async def test_a_channel_a_user_or_a_session_is_closed_with_a_reason(layer: InMemoryChannelLayer) -> None:
    one, one_closes = await connection(layer, "7", "s1")
    _, two_closes = await connection(layer, "7", "s2")
    _, other_closes = await connection(layer, "8", "s2")
    assert await layer.close_channel(one, "slow") is True
    assert (one_closes, two_closes) == (["slow"], [])
    assert await layer.close_session("s2") == 2
    assert two_closes == other_closes == ["unauthenticated"]
    assert await layer.close_user(7) == 2  # the first reason stands
    assert (one_closes, two_closes) == (["slow"], ["unauthenticated"])
    assert await layer.close_user(99) == 0
    assert await layer.close_session("none") == 0
    assert await layer.close_channel("specific.000000000000!1") is False
    assert await layer.close_channel("worker") is False


async def test_an_unknown_close_reason_is_told_at_the_call(layer: InMemoryChannelLayer) -> None:
    for call in (layer.close_channel("a!b", "bored"), layer.close_user(1, "bored"), layer.close_session("s", "bored")):
        with pytest.raises(ValueError, match="reason: expected one of slow, restart.*got 'bored'"):
            await call


async def test_what_reaches_a_closing_connection_is_dropped_and_counted(layer: InMemoryChannelLayer) -> None:
    one, _ = await connection(layer, "7", None)
    await layer.close_channel(one)
    receipt = await layer.user_send(7, HELLO)
    assert (receipt.delivered, receipt.dropped) == (0, 1)
    await asyncio.sleep(0)
    assert layer.stats()["drops"] == {"closed": 1}


async def test_a_message_for_a_channel_that_is_gone_is_counted(layer: InMemoryChannelLayer) -> None:
    node, mailbox = layer.open_mailbox("Chat", capacity=None, overflow=None)
    node.close(mailbox)
    await layer.send(mailbox.channel, HELLO)
    await layer.send("specific.0123456789ab!1", HELLO)  # of a node that never was, or is gone
    await layer.group_add("g", mailbox.channel)
    assert await layer.group_channels("g") == []
    await asyncio.sleep(0)
    stats = layer.stats()
    assert stats["drops"] == {"no_channel": 2}
    assert stats["dropped"] == 2


# flush, close


async def test_flush_forgets_groups_and_waiting_messages_and_keeps_connections_open(
    layer: InMemoryChannelLayer,
) -> None:
    [channel] = await members(layer, "g", 1)
    mine, closes = await connection(layer, "7", None)
    await layer.group_add("g", "worker")
    for name in (channel, mine, "worker"):
        await layer.send(name, HELLO)
    await layer.flush()
    assert layer.groups == {}
    assert layer.stats()["waiting"] == 0
    assert await waits(layer, "worker")
    assert await waits(layer, mine)
    assert closes == []
    await layer.send(mine, numbered(2))
    assert await layer.receive(mine) == numbered(2)
    await layer.group_add("g", channel)
    await layer.group_send("g", numbered(3))
    assert await layer.receive(channel) == numbered(3)


async def test_a_closed_layer_may_be_used_again_and_keeps_its_totals(layer: InMemoryChannelLayer) -> None:
    [channel] = await members(layer, "g", 1)
    await layer.group_send("g", HELLO)
    await layer.close()
    await layer.close()
    assert layer.stats()["nodes"] == 0
    assert await layer.group_channels("g") == []
    [again] = await members(layer, "g", 1)
    assert again != channel
    await layer.group_send("g", numbered(1))
    assert await layer.receive(again) == numbered(1)
    stats = layer.stats()
    assert (stats["sent"], stats["arrived"], stats["delivered"], stats["nodes"]) == (2, 2, 2, 1)


# stats


async def test_stats_count_what_happened(make: Make) -> None:
    layer = make(capacity=2)
    a, _ = await members(layer, "g", 2)
    await layer.send("worker", HELLO)
    for n in range(3):
        await layer.group_send("g", numbered(n))
    await layer.receive(a)
    await asyncio.sleep(0)
    stats = layer.stats()
    assert stats["nodes"] == 1
    assert stats["channels"] == 2
    assert stats["groups"] == 1
    assert stats["waiting"] == 3
    assert stats["sent"] == 4
    assert stats["arrived"] == 3
    assert stats["delivered"] == 4
    assert stats["dropped"] == 2
    assert stats["undecodable"] == 0
    assert stats["drops"] == {"over_capacity": 2}
    assert stats["drops_by_group"] == {"g:over_capacity": 2}
    assert stats["worker_channels"] == {"worker": 1}
    assert set(stats["lag_s"]) == {"last", "mean", "max"}


async def test_the_lag_is_the_time_from_the_send_to_the_take(layer: InMemoryChannelLayer) -> None:
    [channel] = await members(layer, "g", 1)
    await layer.group_send("g", HELLO)
    await asyncio.sleep(0.05)
    await layer.receive(channel)
    lag = layer.stats()["lag_s"]
    assert 0.05 <= lag["last"] < 1
    assert lag["max"] == lag["last"]
    assert 0 < lag["mean"] < lag["max"]


async def test_a_clock_that_runs_ahead_never_makes_a_negative_lag(layer: InMemoryChannelLayer) -> None:
    [channel] = await members(layer, "g", 1)
    body = layer.encode(HELLO)
    layer._bus.publish("g:g", pack(MESSAGE, 1, 1, int((time.time() + 3600) * 1e6), body))
    assert await layer.receive(channel) == HELLO
    assert layer.stats()["lag_s"]["last"] == 0.0


# Bytes from elsewhere


@pytest.mark.parametrize(
    "junk",
    [
        b"",
        b"junk",
        b"\xa7\x02\0\0" + b"\0" * 30,
        b"\xa7\x01\0\x01" + b"\0" * 24 + b"\xff\xff\xff\xff",
        pack(MESSAGE, 1, 1, 1, b"\xc0", {"c": ["a"]}),
        pack(MESSAGE, 1, 1, 1, b"\xc0", {"x": 5}),
        pack(MESSAGE, 1, 1, 1, b"\xc1"),  # a fine envelope around a body that does not decode
        pack(MESSAGE, 1, 1, 1, b"\xc1", {"x": ["a"]}),
    ],
)
async def test_undecodable_bytes_on_a_group_are_counted_and_kill_nothing(
    layer: InMemoryChannelLayer, junk: bytes, caplog: pytest.LogCaptureFixture
) -> None:
    [channel] = await members(layer, "g", 1)
    layer._bus.publish("g:g", junk)
    layer._bus.publish("g:g", junk)
    await layer.group_send("g", HELLO)
    assert await layer.receive(channel) == HELLO
    await asyncio.sleep(0)
    stats = layer.stats()
    assert stats["undecodable"] == 2
    assert stats["drops"] == {"undecodable": 2}
    assert len([record for record in caplog.records if record.levelname == "WARNING"]) == 1


@pytest.mark.parametrize("junk", [b"junk", pack(MESSAGE, 1, 1, 1, b"\xc1")])
async def test_undecodable_bytes_on_a_worker_channel_are_counted_and_kill_nothing(
    layer: InMemoryChannelLayer, junk: bytes
) -> None:
    layer._bus.put_now("worker", junk, 10, 60)
    await layer.send("worker", HELLO)
    assert await layer.receive("worker") == HELLO
    assert layer.stats()["undecodable"] == 1


async def test_junk_on_an_inbox_reaches_nobody(layer: InMemoryChannelLayer) -> None:
    channel = await layer.new_channel()
    node = channel.partition("!")[0].rpartition(".")[2]
    for junk in (b"junk", pack(MESSAGE, 1, 1, 1, b"\xc0", {"c": 5}), pack(MESSAGE, 1, 1, 1, b"\xc0", {"c": "gone"})):
        layer._bus.publish(f"n:{node}", junk)
    await layer.send(channel, HELLO)
    assert await layer.receive(channel) == HELLO
    await asyncio.sleep(0)
    assert layer.stats()["drops"] == {"undecodable": 2, "no_channel": 1}


# Wrong arguments


WRONG_NAMES: list[Any] = ["", "a b", "a\n", "a" * 100, "é", None, 3, b"a", ["a"]]


@pytest.mark.parametrize("name", WRONG_NAMES)
async def test_a_wrong_name_is_a_type_error_at_every_door(layer: InMemoryChannelLayer, name: Any) -> None:
    calls: list[Awaitable[Any]] = [
        layer.group_add(name, "c"),
        layer.group_discard(name, "c"),
        layer.group_send(name, HELLO),
        layer.groups_send(["fine", name], HELLO),
        layer.send_many([(name, HELLO)]),
        layer.group_channels(name),
        layer.group_count(name),
    ]
    for call in calls:
        with pytest.raises(TypeError, match="Group name must be"):
            await call
    calls = [
        layer.send(name, HELLO),
        layer.receive(name),
        layer.group_add("g", name),
        layer.group_discard("g", name),
        layer.group_discard_all(name),
        layer.close_channel(name),
        layer.group_send("g", HELLO, exclude=[name]),
        layer.groups_send(["g"], HELLO, exclude=[name]),
        layer.user_send(1, HELLO, exclude=[name]),
    ]
    for call in calls:
        with pytest.raises(TypeError, match="Channel name must be"):
            await call


@pytest.mark.parametrize("message", [None, "text", 3, b"", [], [("type", "t")], object()])
async def test_a_message_that_is_no_dict_is_a_type_error(layer: InMemoryChannelLayer, message: Any) -> None:
    for call in (layer.send("c", message), layer.group_send("g", message), layer.user_send(1, message)):
        with pytest.raises(TypeError, match="message: expected a dict; got"):
            await call


@pytest.mark.parametrize("message", [{}, {"type": None}, {"type": 3}, {"Type": "t"}, {"type": b"t"}])
async def test_a_message_without_a_type_is_a_type_error(layer: InMemoryChannelLayer, message: Any) -> None:
    for call in (layer.send("c", message), layer.group_send("g", message), layer.groups_send(["g"], message)):
        with pytest.raises(TypeError, match='expected a str under "type", which names the handler'):
            await call


async def test_what_cannot_be_sent_fails_at_the_sender_with_its_path(layer: InMemoryChannelLayer) -> None:
    with pytest.raises(TypeError, match=r"message\['user'\]: expected a value that a message can carry"):
        await layer.group_send("g", {"type": "t", "user": object()})


async def test_a_message_over_the_bound_is_refused_and_one_at_the_bound_is_not(make: Make) -> None:
    layer = make(max_message_bytes=200)
    room = 200 - len(layer.encode({"type": "t", "v": "x" * 100})) + 100
    assert len(layer.encode({"type": "t", "v": "x" * room})) == 200
    with pytest.raises(MessageTooLarge, match="message 't': 201 bytes encoded, max_message_bytes is 200"):
        await layer.group_send("g", {"type": "t", "v": "x" * (room + 1)})
    with pytest.raises(MessageTooLarge):
        await layer.send("worker", {"type": "t", "v": b"x" * 300})


async def test_a_str_in_the_place_of_a_list_of_names_is_told(layer: InMemoryChannelLayer) -> None:
    with pytest.raises(TypeError, match="exclude: expected a list of channels; got the str 'abc'"):
        await layer.group_send("g", HELLO, exclude="abc")
    with pytest.raises(TypeError, match="groups: expected a list of groups; got the str 'abc'"):
        await layer.groups_send("abc", HELLO)


@pytest.mark.parametrize(
    ("options", "says"),
    [
        ({"capacity": 0}, "capacity: expected a positive int; got 0"),
        ({"capacity": "100"}, "capacity: expected a positive int; got '100'"),
        ({"capacity": True}, "capacity"),
        ({"capacity": 1.5}, "capacity"),
        ({"expiry": 0}, "expiry: expected a number of seconds above 0; got 0"),
        ({"expiry": "60"}, "expiry"),
        ({"group_expiry": -1}, "group_expiry"),
        ({"timeout_s": None}, "timeout_s"),
        ({"max_message_bytes": 0}, "max_message_bytes"),
        ({"overflow": "explode"}, "overflow: expected 'drop_new' or 'drop_old' or 'close'; got 'explode'"),
        ({"channel_overflow": {"a*": "no"}}, "overflow"),
        ({"channel_capacity": {"a*": 0}}, "channel_capacity: expected positive ints; got 0"),
    ],
)
def test_a_wrong_option_is_refused_when_the_layer_is_made(options: dict[str, Any], says: str) -> None:
    with pytest.raises(OptionError, match=re.escape(says)):
        InMemoryChannelLayer(**options)


def test_an_unknown_option_is_refused_with_the_nearest_known_one() -> None:
    with pytest.raises(TypeError, match="unknown option of InMemoryChannelLayer 'capcity'; did you mean 'capacity'?"):
        InMemoryChannelLayer(capcity=3)
    with pytest.raises(TypeError, match="unknown option of InMemoryChannelLayer 'hosts'"):
        InMemoryChannelLayer(hosts=["redis://localhost"])


# What remains


async def test_every_send_is_shown_to_the_recorders_at_the_call(layer: InMemoryChannelLayer) -> None:
    seen: list[Sent] = []
    recorders.append(seen.append)
    await layer.group_send("g", HELLO, exclude=(name for name in ["a!b"]))
    await layer.groups_send(["a", "b", "a"], HELLO)
    await layer.user_send(7, HELLO)
    await layer.send("worker", HELLO)
    await layer.send_many([("g", HELLO)])
    assert [(sent.kind, sent.target, sent.exclude) for sent in seen] == [
        ("group", "g", ("a!b",)),
        ("group", ("a", "b"), ()),
        ("user", "7", ()),
        ("channel", "worker", ()),
        ("group", "g", ()),
    ]
    assert all(sent.message is HELLO and not sent.deferred for sent in seen)


async def test_the_mapping_of_channels_shows_what_holds_messages(layer: InMemoryChannelLayer) -> None:
    assert not layer.channels
    channel = await layer.new_channel()
    await layer.send("worker", HELLO)
    assert set(layer.channels) == {channel, "worker"}
    assert len(layer.channels["worker"]) == 1
    assert channel in layer.channels
    del layer.channels["worker"]
    del layer.channels[channel]
    assert not layer.channels
    with pytest.raises(KeyError):
        del layer.channels["worker"]
    with pytest.raises(TypeError):
        layer.channels["a"] = 1


async def test_nothing_is_left_of_a_worker_channel_that_was_read_to_its_end(layer: InMemoryChannelLayer) -> None:
    for n in range(50):
        await layer.send(f"job-{n}", HELLO)
        await layer.receive(f"job-{n}")
        assert await waits(layer, f"idle-{n}") if n < 3 else True
    assert len(layer.channels) == 0


async def test_a_receipt_says_nothing_it_does_not_know(layer: InMemoryChannelLayer) -> None:
    assert Receipt() == (None, None, "sent", None, None)
    assert (await layer.send("worker", HELLO)).delivered == 1
    channel = await layer.new_channel()
    assert await layer.send(channel, HELLO) == Receipt(1, None, "sent", 1, 0)


async def test_a_large_group_is_woken_in_slices_and_everybody_gets_everything_in_order(
    layer: InMemoryChannelLayer,
) -> None:
    channels = await members(layer, "g", 700)

    async def read(channel: str) -> list[int]:
        return [(await layer.receive(channel))["n"] for _ in range(5)]

    readers = [asyncio.create_task(read(channel)) for channel in channels]
    await asyncio.sleep(0)
    for n in range(5):
        assert (await layer.group_send("g", numbered(n))).delivered == 700
    assert await asyncio.gather(*readers) == [list(range(5))] * 700


def test_a_layer_of_ones_own_over_the_base_says_what_it_does_not_have() -> None:
    base = BaseChannelLayer()
    for call in (
        lambda: base.send("c", HELLO),
        lambda: base.receive("c"),
        lambda: base.new_channel(),
        lambda: base.flush(),
        lambda: base.group_add("g", "c"),
        lambda: base.group_discard("g", "c"),
        lambda: base.group_send("g", HELLO),
    ):
        with pytest.raises(NotImplementedError):
            call().send(None)


async def test_the_names_of_the_base_are_those_of_channels(layer: InMemoryChannelLayer) -> None:
    assert layer.require_valid_channel_name("a!b")
    assert layer.require_valid_group_name("a")
    assert layer.valid_channel_names(["a", "b!"], receive=True)
    assert layer.non_local_name("specific.a!b") == "specific.a!"
    assert layer.non_local_name("worker") == "worker"
    assert layer.match_type_and_length("a" * 99)
    assert not layer.match_type_and_length("a" * 100)
    with pytest.raises(TypeError):
        layer.valid_channel_names([])
    with pytest.raises(TypeError):
        layer.require_valid_channel_name("a\n")
    with pytest.warns(DeprecationWarning, match="require_valid_channel_name"):
        assert layer.valid_channel_name("a")
    with pytest.warns(DeprecationWarning, match="require_valid_group_name"):
        assert layer.valid_group_name("a")
    assert {"groups", "flush"} <= set(layer.extensions)


async def test_representations_show_state(layer: InMemoryChannelLayer) -> None:
    channel = await layer.new_channel()
    await layer.send(channel, HELLO)
    assert repr(layer) == "<InMemoryChannelLayer 1 nodes>"
    assert repr(layer.channels[channel]) == f"<Mailbox {channel!r} 1/100>"
    assert "1 nodes" in repr(layer._bus)


async def test_a_layer_over_an_engine_without_nodes_of_its_own_says_so() -> None:
    with pytest.raises(NotImplementedError):
        await ChannelLayer(MemoryBus()).new_channel()
