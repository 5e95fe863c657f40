"""Nodes, loops and threads: whoever sends from wherever, the receiver gets it; and loops that end or hang."""

from __future__ import annotations

import asyncio
import gc
import threading
import time
from collections.abc import Callable, Iterator
from typing import Any

import pytest
from asgiref.sync import async_to_sync, sync_to_async

import antiphon
from antiphon.exceptions import NodeUnreachable
from antiphon.layer.background import background_loop, is_temporary
from antiphon.layers import InMemoryChannelLayer, channel_layers
from tests.layer.loop_thread import LoopThread
from tests.layer.members import HELLO
from tests.waiting import eventually


@pytest.fixture
def layer() -> Iterator[InMemoryChannelLayer]:
    layer = InMemoryChannelLayer(timeout_s=100)
    channel_layers.set("default", layer)
    yield layer
    async_to_sync(layer.close)()


@pytest.fixture
def two() -> Iterator[tuple[LoopThread, LoopThread]]:
    loops = LoopThread(), LoopThread()
    yield loops
    for loop in loops:
        loop.stop()


def test_a_message_crosses_from_one_loop_to_another(
    layer: InMemoryChannelLayer, two: tuple[LoopThread, LoopThread]
) -> None:
    here, there = two
    mine, theirs = here.run(layer.new_channel()), there.run(layer.new_channel())
    here.run(layer.group_add("g", mine))
    here.run(layer.group_add("g", theirs))  # the other loop's channel
    reader = there.start(layer.receive(theirs))
    receipt = here.run(layer.group_send("g", HELLO))
    assert receipt.nodes == 2
    assert receipt.delivered is None  # what the other loop made of it cannot be known here
    assert reader.result(30) == HELLO
    assert here.run(layer.receive(mine)) == HELLO
    assert here.run(layer.send(theirs, {"type": "direct"})).nodes == 1
    assert there.run(layer.receive(theirs)) == {"type": "direct"}
    assert sorted(here.run(layer.group_channels("g"))) == sorted([mine, theirs])
    assert here.run(layer.group_count("g", scope="node")) == 1
    here.run(layer.group_discard("g", theirs))
    assert there.run(layer.group_channels("g")) == [mine]
    there.run(layer.group_discard_all(mine))
    assert here.run(layer.group_count("g")) == 0


def test_a_channel_may_be_read_on_another_loop_than_its_own(
    layer: InMemoryChannelLayer, two: tuple[LoopThread, LoopThread]
) -> None:
    here, there = two
    mine = here.run(layer.new_channel())
    reader = there.start(layer.receive(mine))
    time.sleep(0.02)
    here.run(layer.send(mine, HELLO))
    assert reader.result(30) == HELLO


def test_groups_send_reaches_a_channel_once_from_another_loop_and_from_a_thread(
    layer: InMemoryChannelLayer, two: tuple[LoopThread, LoopThread]
) -> None:
    here, there = two
    theirs = there.run(layer.new_channel())
    for group in ("a", "b"):
        there.run(layer.group_add(group, theirs))
    here.run(layer.new_channel())
    here.run(layer.groups_send(["a", "b"], {"type": "t", "n": 1}))
    async_to_sync(layer.groups_send)(["a", "b"], {"type": "t", "n": 2})
    async_to_sync(layer.send)(theirs, {"type": "t", "n": 3})
    assert [there.run(layer.receive(theirs))["n"] for _ in range(3)] == [1, 2, 3]


def test_four_calls_of_async_to_sync_each_on_a_loop_of_its_own_work_together(layer: InMemoryChannelLayer) -> None:
    channel = async_to_sync(layer.new_channel)()
    async_to_sync(layer.group_add)("g", channel)
    receipt = async_to_sync(layer.group_send)("g", HELLO)
    assert receipt.nodes == 1
    assert async_to_sync(layer.receive)(channel) == HELLO
    async_to_sync(layer.send)(channel, {"type": "direct"})
    assert async_to_sync(layer.receive)(channel) == {"type": "direct"}
    assert async_to_sync(layer.group_channels)("g") == [channel]
    async_to_sync(layer.group_discard)("g", channel)
    assert async_to_sync(layer.group_count)("g") == 0
    assert layer.stats()["nodes"] == 1  # the background node alone


def test_a_hundred_calls_of_async_to_sync_leave_nothing_behind(layer: InMemoryChannelLayer) -> None:
    threads = threading.active_count()
    for n in range(100):
        async_to_sync(layer.send)("worker", {"type": "t", "n": n})
    assert [async_to_sync(layer.receive)("worker")["n"] for _ in range(100)] == list(range(100))
    assert layer.stats()["nodes"] == 0
    # asgiref's own threads end a moment after their call.
    assert eventually(lambda: threading.active_count() <= threads + 2)


async def test_async_to_sync_works_inside_the_worker_threads_of_a_running_loop(layer: InMemoryChannelLayer) -> None:
    mine = await layer.new_channel()
    await layer.group_add("g", mine)

    def view() -> str:
        async_to_sync(layer.group_send)("g", {"type": "t", "n": 1})
        channel: str = async_to_sync(layer.new_channel)()
        async_to_sync(layer.group_add)("g", channel)
        async_to_sync(layer.group_send)("g", {"type": "t", "n": 2})
        return channel

    for thread_sensitive in (True, False):
        theirs = await sync_to_async(view, thread_sensitive=thread_sensitive)()
        assert [(await layer.receive(mine))["n"] for _ in range(2)] == [1, 2]
        assert (await layer.receive(theirs))["n"] == 2


async def test_the_plain_functions_work_in_threads_beside_a_running_loop(layer: InMemoryChannelLayer) -> None:
    from antiphon.names import user_topic

    node, mailbox = layer.open_mailbox("Chat", capacity=None, overflow=None)
    node.hub.identify(mailbox, "7", "s")
    closes: list[str] = []
    mailbox.on_close = closes.append
    await node.join("g:g", mailbox)
    await node.join(user_topic("7"), mailbox)

    def view() -> list[Any]:
        return [
            antiphon.group_send("g", {"type": "t", "n": 1}),
            antiphon.user_send(7, {"type": "t", "n": 2}),
            antiphon.group_send("g", {"type": "t", "n": 3}, exclude=[mailbox.channel]),
            antiphon.group_send("g", {"type": "t", "n": 4}),
        ]

    receipts = await asyncio.to_thread(view)
    assert [(receipt.state, receipt.nodes) for receipt in receipts] == [("sent", 1)] * 4
    assert [(await layer.receive(mailbox.channel))["n"] for _ in range(3)] == [1, 2, 4]
    assert await asyncio.to_thread(antiphon.close_channel, mailbox.channel) is True
    assert await asyncio.to_thread(antiphon.close_user, 7, "slow") == 1
    assert await asyncio.to_thread(antiphon.close_session, "s") == 1
    assert await asyncio.to_thread(antiphon.close_channel, "specific.000000000000!1") is False
    assert closes == ["revoked"]


async def test_on_a_running_loop_the_plain_functions_name_the_awaitable(layer: InMemoryChannelLayer) -> None:
    calls: dict[str, Callable[[], object]] = {
        "group_send": lambda: antiphon.group_send("g", HELLO),
        "user_send": lambda: antiphon.user_send(7, HELLO),
        "close_channel": lambda: antiphon.close_channel("a!b"),
        "close_user": lambda: antiphon.close_user(7),
        "close_session": lambda: antiphon.close_session("s"),
    }
    for name, call in calls.items():
        with pytest.raises(
            RuntimeError, match=rf"antiphon\.{name}\(\) is for synchronous code.*await get_.*\.{name}\("
        ):
            call()


def test_a_loop_that_is_closed_takes_its_node_with_it(layer: InMemoryChannelLayer) -> None:
    async def member() -> str:
        channel = await layer.new_channel()
        await layer.group_add("g", channel)
        await layer.group_send("g", HELLO)
        return channel

    old = asyncio.run(member())
    new = asyncio.run(member())
    assert layer.stats()["nodes"] == 0
    assert async_to_sync(layer.group_channels)("g") == []
    assert async_to_sync(layer.close_channel)(old) is False

    async def use() -> list[str]:
        await layer.new_channel()
        await layer.send(old, HELLO)  # nobody is there
        await layer.group_send("g", HELLO)
        return await layer.group_channels("g")

    assert asyncio.run(use()) == []
    assert new != old
    assert len(layer._bus._engines) <= 1  # reaped at the next touch
    assert layer.stats()["delivered"] == 2  # totals outlive nodes
    assert layer.stats()["drops"] == {"no_channel": 1}


def test_a_closed_loop_is_not_kept_alive_by_the_layer(layer: InMemoryChannelLayer) -> None:
    for _ in range(20):
        asyncio.run(layer.new_channel())
    gc.collect()
    assert len(layer._nodes) <= 1
    assert len(layer._by_id) <= 1
    assert len(layer._bus._topics) <= 1


def test_a_name_of_ones_own_works_again_after_its_loop_is_gone(layer: InMemoryChannelLayer) -> None:
    async def use() -> Any:
        await layer.group_add("g", "specific.mine!1")
        await layer.group_send("g", HELLO)
        await layer.send("specific.mine!1", HELLO)
        return [await asyncio.wait_for(layer.receive("specific.mine!1"), 30) for _ in range(2)]

    assert asyncio.run(use()) == [HELLO, HELLO]
    assert asyncio.run(use()) == [HELLO, HELLO]


def test_a_loop_that_stands_still_gets_what_was_sent_once_it_runs(layer: InMemoryChannelLayer) -> None:
    loop = asyncio.new_event_loop()
    channel = loop.run_until_complete(layer.new_channel())
    async_to_sync(layer.group_add)("g", channel)
    async_to_sync(layer.group_send)("g", HELLO)
    async_to_sync(layer.send)(channel, {"type": "direct"})
    assert async_to_sync(layer.group_channels)("g") == [channel]
    assert [loop.run_until_complete(layer.receive(channel)) for _ in range(2)] == [HELLO, {"type": "direct"}]
    loop.close()


def test_a_loop_that_is_stuck_is_unreachable_within_the_time_out(
    layer: InMemoryChannelLayer, two: tuple[LoopThread, LoopThread]
) -> None:
    here, stuck = two
    channel = stuck.run(layer.new_channel())
    stuck.run(layer.group_add("g", channel))
    layer.timeout_s = 0.3
    free = stuck.hold()
    for call in (layer.group_add("h", channel), layer.close_channel(channel)):
        with pytest.raises(NodeUnreachable, match=r"did not answer within timeout_s \(0.3 s\)"):
            here.run(call)
    assert here.run(layer.group_send("g", HELLO)).nodes == 1  # sending waits for nobody
    assert here.run(layer.group_count("g")) == 1
    free.set()
    assert stuck.run(layer.receive(channel)) == HELLO


def test_the_background_loop_is_one_and_the_loops_of_async_to_sync_are_temporary() -> None:
    async def here() -> bool:
        return is_temporary(asyncio.get_running_loop())

    assert async_to_sync(here)() is True
    assert asyncio.run(here()) is False
    assert background_loop() is background_loop()
    assert not is_temporary(background_loop())
    assert background_loop().is_running()


def test_a_message_that_no_loop_can_drop_silently_is_counted_where_it_is_dropped(
    two: tuple[LoopThread, LoopThread],
) -> None:
    layer = InMemoryChannelLayer(capacity=2)
    here, there = two
    theirs = there.run(layer.new_channel())
    for _ in range(5):
        here.run(layer.send(theirs, HELLO))  # another loop's channel: no ChannelFull, but counted
    assert eventually(lambda: layer.stats()["drops"] == {"over_capacity": 3})
    here.run(layer.close())


async def test_a_stuck_loop_does_not_keep_the_others_from_closing_a_user() -> None:
    layer = InMemoryChannelLayer(timeout_s=0.2)
    began, go_on = threading.Event(), threading.Event()

    def elsewhere() -> None:
        async def main() -> None:
            node, mailbox = layer.open_mailbox("Stuck", capacity=None, overflow=None)
            node.hub.identify(mailbox, "42", None)
            began.set()
            go_on.wait(30)  # a loop that serves nothing
            await asyncio.sleep(0.05)

        asyncio.run(main())

    thread = threading.Thread(target=elsewhere)
    thread.start()
    began.wait(30)
    node, mine = layer.open_mailbox("Free", capacity=None, overflow=None)
    node.hub.identify(mine, "42", None)
    with pytest.raises(NodeUnreachable):
        await layer.close_user("42", "revoked")
    assert mine.closing == "revoked"
    go_on.set()
    await asyncio.to_thread(thread.join, 30)
