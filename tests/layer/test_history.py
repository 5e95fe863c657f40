"""The history of groups, on the memory layer: what is kept, read, refused and counted."""

from __future__ import annotations

import asyncio
import threading
from collections.abc import Iterable
from typing import Any

import pytest

from antiphon import group_send
from antiphon.exceptions import OptionError
from antiphon.layers import InMemoryChannelLayer
from antiphon.types import Position
from tests.layer.conftest import Make
from tests.layer.members import members, numbered

GROUPS = {"chat_*": {"history_size": 3, "history_ttl": 60}, "wide_*": {"history_size": 500}}


def numbers(history: Any) -> list[int]:
    return [publication.message["n"] for publication in history]


@pytest.fixture
def logged(make: Make) -> InMemoryChannelLayer:
    return make(groups=GROUPS)


async def test_the_last_messages_are_kept_each_with_its_place(logged: InMemoryChannelLayer) -> None:
    start = await logged.position("chat_1")
    assert start.offset == 0
    receipts = [await logged.group_send("chat_1", numbered(n)) for n in range(1, 6)]
    assert [receipt.position for receipt in receipts] == [Position(start.epoch, n) for n in range(1, 6)]
    history = await logged.history("chat_1")
    assert numbers(history) == [3, 4, 5]
    assert [publication.position.offset for publication in history] == [3, 4, 5]
    assert (history.position, history.complete, len(history)) == (Position(start.epoch, 5), True, 3)
    assert numbers(await logged.history("chat_1", limit=2)) == [4, 5]
    assert numbers(await logged.history("chat_1", limit=2, reverse=True)) == [5, 4]
    assert numbers(await logged.history("chat_1", limit=0)) == []
    assert numbers(await logged.history("chat_2")) == []
    assert (await logged.history("chat_2")).position.epoch != start.epoch


@pytest.mark.parametrize(("offset", "found", "complete"), [(5, [], True), (3, [4, 5], True), (2, [3, 4, 5], True),
                                                          (1, [3, 4, 5], False), (6, [], False)])  # fmt: skip
async def test_reading_since_a_position_says_whether_that_is_all(
    logged: InMemoryChannelLayer, offset: int, found: list[int], complete: bool
) -> None:
    for n in range(1, 6):
        await logged.group_send("chat_1", numbered(n))
    epoch = (await logged.position("chat_1")).epoch
    history = await logged.history("chat_1", since=Position(epoch, offset))
    assert (numbers(history), history.complete) == (found, complete)
    assert not (await logged.history("chat_1", since=Position("another", offset))).complete


async def test_what_expired_is_gone_and_its_place_stays_good(make: Make) -> None:
    layer = make(groups={"chat": {"history_size": 3, "history_ttl": 0.05}})
    await layer.group_send("chat", numbered(1))
    position = (await layer.group_send("chat", numbered(2))).position
    assert position is not None
    await asyncio.sleep(0.06)
    assert numbers(await layer.history("chat")) == []
    assert (await layer.history("chat", since=position)).complete
    assert not (await layer.history("chat", since=position._replace(offset=1))).complete
    assert (await layer.group_send("chat", numbered(3))).position == position._replace(offset=3)


async def test_a_retry_with_the_same_key_is_published_once(logged: InMemoryChannelLayer) -> None:
    (channel,) = await members(logged, "chat_1", 1)
    first = await logged.group_send("chat_1", numbered(1), idempotency_key="order-1")
    again = await logged.group_send("chat_1", numbered(1), idempotency_key="order-1")
    other = await logged.group_send("chat_1", numbered(2), idempotency_key="order-2")
    assert (first.state, again.state, other.state) == ("sent", "duplicate", "sent")
    assert again.position == first.position
    assert [(await logged.receive(channel))["n"] for _ in range(2)] == [1, 2]
    assert numbers(await logged.history("chat_1")) == [1, 2]


async def test_an_older_version_is_suppressed(logged: InMemoryChannelLayer) -> None:
    states = [
        (await logged.group_send("chat_1", numbered(n), version=version, version_epoch=epoch)).state
        for n, (version, epoch) in enumerate([(2, ""), (1, ""), (2, ""), (3, ""), (1, "next")])
    ]
    assert states == ["sent", "suppressed", "suppressed", "sent", "sent"]
    assert numbers(await logged.history("chat_1")) == [0, 3, 4]


async def test_threads_and_loops_see_one_order(logged: InMemoryChannelLayer) -> None:
    (channel,) = await members(logged, "wide_1", 1)
    threads = [threading.Thread(target=group_sends, args=(logged, range(50))) for _ in range(4)]
    for thread in threads:
        thread.start()
    for number in range(50):
        await logged.group_send("wide_1", numbered(1000 + number))
    for thread in threads:
        await asyncio.to_thread(thread.join)
    got = [(await logged.receive(channel))["n"] for _ in range(100)]  # what the channel holds
    assert got == numbers(await logged.history("wide_1"))[:100]
    assert logged.stats()["history"]["holes"] == 0


def group_sends(layer: InMemoryChannelLayer, numbers: Iterable[int]) -> None:
    for number in numbers:
        layer.publish_blocking(["g:wide_1"], layer.encode(numbered(number)), None, [layer.keep("g:wide_1")])


def test_synchronous_code_gets_the_position_too(logged: InMemoryChannelLayer) -> None:
    from antiphon.layers import channel_layers

    channel_layers.set("default", logged)
    first = group_send("chat_1", numbered(1), idempotency_key="k")
    assert (first.state, first.position) == ("sent", logged.positions_blocking(["chat_1"])["chat_1"])
    assert group_send("chat_1", numbered(1), idempotency_key="k").state == "duplicate"


async def test_the_author_of_what_excludes_a_channel_is_noted(logged: InMemoryChannelLayer) -> None:
    node, mailbox = logged.open_mailbox("Chat", capacity=None, overflow=None)
    node.hub.identify(mailbox, "7", None)
    await logged.group_send("chat_1", numbered(1), exclude=[mailbox.channel])
    await logged.group_send("chat_1", numbered(2), exclude=[mailbox.channel], exclude_author="")
    await logged.group_send("chat_1", numbered(3), exclude=[mailbox.channel], exclude_author="tab-1")
    assert [publication.author for publication in await logged.history("chat_1")] == ["7", None, "tab-1"]


async def test_a_flush_begins_a_new_epoch(logged: InMemoryChannelLayer) -> None:
    before = (await logged.group_send("chat_1", numbered(1))).position
    assert before is not None
    await logged.flush()
    after = await logged.position("chat_1")
    assert (after.offset, after.epoch == before.epoch) == (0, False)
    assert not (await logged.history("chat_1", since=before)).complete


async def test_without_a_history_the_error_says_what_to_set(logged: InMemoryChannelLayer) -> None:
    for call in (
        lambda: logged.history("news"),
        lambda: logged.position("news"),
        lambda: logged.positions(["chat_1", "news"]),
        lambda: logged.group_send("news", numbered(1), idempotency_key="k"),
        lambda: logged.group_send("news", numbered(1), version=1),
        lambda: logged.groups_send(["chat_1", "news"], numbered(1), idempotency_key="k"),
    ):
        with pytest.raises(OptionError, match="'news' has no history.*set history_size"):
            await call()
    with pytest.raises(OptionError, match="'news' has no history"):
        logged.positions_blocking(["news"])
    assert (await logged.group_send("news", numbered(1))).position is None


@pytest.mark.parametrize(
    ("options", "error"),
    [
        ({"since": ("epoch",)}, TypeError),
        ({"since": Position("e", -1)}, TypeError),
        ({"since": "e:1"}, TypeError),
        ({"limit": -1}, ValueError),
        ({"limit": True}, ValueError),
        ({"limit": 10_001}, ValueError),
    ],
)
async def test_wrong_arguments_of_a_read(
    logged: InMemoryChannelLayer, options: dict[str, Any], error: type[Exception]
) -> None:
    with pytest.raises(error, match=r"expected|is Position"):
        await logged.history("chat_1", **options)


@pytest.mark.parametrize(
    "options", [{"idempotency_key": ""}, {"idempotency_key": 5}, {"idempotency_key": "x" * 201}, {"version": -1},
                {"version": 1.5}, {"version": 1 << 53}, {"version": 1, "version_epoch": None}],
)  # fmt: skip
async def test_wrong_terms_of_a_send(logged: InMemoryChannelLayer, options: dict[str, Any]) -> None:
    with pytest.raises(TypeError, match=r"(idempotency_key|version|version_epoch): expected"):
        await logged.group_send("chat_1", numbered(1), **options)
    assert numbers(await logged.history("chat_1")) == []


@pytest.mark.parametrize(
    ("groups", "said"),
    [
        ([("chat", {})], "expected a dict of group patterns"),
        ({5: {}}, "expected a glob or a compiled pattern"),
        ({"chat": 5}, "expected a dict of options"),
        ({"chat": {"history_sizes": 5}}, "did you mean .history_size"),
        ({"chat": {"history": 5}}, "did you mean 'history_size' or 'history_ttl'"),
        ({"chat": {"history_size": -1}}, r"groups\['chat'\]: history_size: expected an int, 0 or more; got -1"),
        ({"chat": {"history_size": True}}, "history_size"),
        ({"chat": {"history_ttl": 0}}, "history_ttl: expected seconds above 0"),
        ({"chat": {"recovery": "all"}}, "recovery: expected 'stream' or 'cache'"),
        ({"chat": {"presence": 1}}, "presence: expected True or False"),
        ({"chat": {"presence_grace_s": -1}}, "presence_grace_s: expected seconds, 0 or more"),
    ],
)
def test_wrong_options_of_groups(make: Make, groups: Any, said: str) -> None:
    with pytest.raises(OptionError, match=said):
        InMemoryChannelLayer(groups=groups)


def test_the_first_pattern_that_matches_decides() -> None:
    layer = InMemoryChannelLayer(groups={"chat_vip_*": {"history_size": 9}, "chat_*": {"history_size": 3}})
    sizes = [layer.group_options(group).history_size for group in ("chat_vip_1", "chat_1", "other")]
    assert sizes == [9, 3, 0]
