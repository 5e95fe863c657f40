"""Calls between nodes: two layers on one engine stand for two processes, each with loops of its own."""

from __future__ import annotations

import asyncio
import logging
import time
from collections.abc import Iterator
from typing import Any

import pytest
from asgiref.sync import async_to_sync

from antiphon.codec import encode
from antiphon.engines.memory import MemoryBus, MemoryEngine
from antiphon.envelope import CONTROL, pack
from antiphon.exceptions import EngineUnavailable, NodeUnreachable
from antiphon.layer.remote import RemoteChannelLayer
from antiphon.names import control_topic, inbox_topic
from antiphon.types import Receipt
from tests.layer.members import HELLO
from tests.layer.places import FarLayer, Place
from tests.waiting import eventually


class Unsure(MemoryEngine):
    """A part of an engine that cannot say how many nodes it reached."""

    def publish(self, topic: str, payload: bytes) -> Receipt:
        return super().publish(topic, payload)._replace(nodes=None)


@pytest.fixture
def bus() -> MemoryBus:
    return MemoryBus()


@pytest.fixture
def here(bus: MemoryBus) -> Iterator[Place]:
    place = Place(FarLayer(bus, timeout_s=100))
    yield place
    place.stop()


@pytest.fixture
def there(bus: MemoryBus) -> Iterator[Place]:
    place = Place(FarLayer(bus, timeout_s=100))
    yield place
    place.stop()


def questions(layer: RemoteChannelLayer) -> int:
    return sum(len(control._questions) for control in layer._controls.values())


def counter(layer: RemoteChannelLayer, name: str) -> int:
    return sum(getattr(control, name) for control in layer._controls.values())


def test_a_channel_of_another_process_joins_and_leaves_groups(here: Place, there: Place) -> None:
    theirs = there.run(there.layer.new_channel())
    here.run(here.layer.group_add("a", theirs))
    here.run(here.layer.group_add("b", theirs))
    assert here.run(here.layer.group_send("a", HELLO)).nodes == 1  # the new member is reached at once
    assert there.run(there.layer.receive(theirs)) == HELLO
    assert here.run(here.layer.group_channels("a")) == [theirs]
    here.run(here.layer.group_discard("a", theirs))
    assert here.run(here.layer.group_send("a", HELLO)).nodes == 0
    here.run(here.layer.group_add("a", theirs))
    here.run(here.layer.group_discard_all(theirs))
    assert there.run(there.layer.group_count("a", scope="node")) == 0
    assert there.run(there.layer.group_count("b", scope="node")) == 0
    here.run(here.layer.group_discard("a", theirs))  # it is in none: nothing happens
    here.run(here.layer.group_discard_all("specific.{}!gone".format(theirs.partition(".")[2].partition("!")[0])))


def test_members_of_all_processes_are_counted_and_listed(here: Place, there: Place) -> None:
    mine, theirs = here.member("g")[0], there.member("g")[0]
    here.run(here.layer.group_add("g", "worker"))
    channels = here.run(here.layer.group_channels("g"))
    assert sorted(channels) == sorted([mine.channel, theirs.channel, "worker"])
    assert channels.complete is True
    count = there.run(there.layer.group_count("g"))
    assert (count, count.complete) == (3, True)
    assert there.run(there.layer.group_count("g", scope="node")) == 1
    assert here.run(here.layer.group_channels("g", scope="node")) == [mine.channel]
    nobody = here.run(here.layer.group_count("nobody"))
    assert (nobody, nobody.complete) == (0, True)
    assert len(here.layer._bus.queues) == 0  # no question went to the worker channel


def test_ten_thousand_channels_of_a_group_are_listed(here: Place, there: Place) -> None:
    async def fill() -> list[str]:
        channels = []
        for _ in range(10_000):
            node, mailbox = there.layer.open_mailbox("Chat", capacity=None, overflow=None)
            await node.join("g:g", mailbox)
            channels.append(mailbox.channel)
        return channels

    there.layer.max_message_bytes = 20_000
    filled = there.run(fill())
    for control in there.layer._controls.values():
        control.max_bytes = 20_000  # so that one answer cannot hold them
    listed = here.run(here.layer.group_channels("g"))
    assert listed == filled
    assert listed.complete
    assert here.run(here.layer.group_count("g")) == 10_000
    info = here.run(here.layer.nodes_info(limit=20_000))
    (described,) = [node for node in info if node["groups"]]
    assert described["truncated"] is True  # cut to what a message may hold
    assert 10 < len(described["channels"]) < 10_000
    assert described["groups"] == {"g": 10_000}
    assert questions(here.layer) == questions(there.layer) == 0


def test_connections_are_closed_wherever_they_are(here: Place, there: Place) -> None:
    (mine, _), (theirs, closes) = here.member(user="7"), there.member(user="7", session="s")
    other, other_closes = there.member(user="8", session="s2")
    assert here.run(here.layer.close_channel(theirs.channel, "slow")) is True
    assert closes == ["slow"]
    assert here.run(here.layer.close_channel(theirs.channel + "0")) is False
    let_in_s = time.monotonic()
    count = here.run(here.layer.close_user(7))
    assert (int(count), count.complete) == (2, True)
    assert mine.closing == "revoked"
    assert other.closing is None
    # Somebody who was let in over there just before, and is in no table yet, is closed too.
    assert there.layer.revoked_since("7", None, let_in_s) == "revoked"
    assert there.layer.revoked_since("7", None, time.monotonic() + 1) is None
    assert here.run(here.layer.close_session("s2")) == 1
    assert other_closes == ["unauthenticated"]
    assert here.run(here.layer.close_session("nobody")) == 0


def test_a_reason_that_another_version_knows_closes_all_the_same(here: Place, there: Place) -> None:
    theirs, closes = there.member()
    node_id = theirs.channel.partition(".")[2].partition("!")[0]
    ask = here.layer._ask_owner(theirs.channel, "close_channel", {"channel": theirs.channel, "reason": "bored"})
    assert here.run(ask) is True
    assert closes == ["revoked"]
    assert node_id in there.layer._controls


def test_a_node_that_is_gone_is_unreachable_at_once(here: Place, there: Place) -> None:
    theirs = there.member("g")[0].channel
    there.run(there.layer.close())
    for call in (
        here.layer.group_add("g", theirs),
        here.layer.group_discard("g", theirs),
        here.layer.group_discard_all(theirs),
        here.layer.close_channel(theirs),
    ):
        with pytest.raises(NodeUnreachable, match="is gone: nobody listens to its inbox"):
            here.run(call)
    assert here.run(here.layer.send(theirs, HELLO)).nodes == 0
    assert here.layer.stats()["drops"] == {"no_channel": 1}
    assert here.run(here.layer.group_count("g")).complete is True


def test_a_node_that_stands_still_is_unreachable_after_the_time_out(
    here: Place, there: Place, caplog: pytest.LogCaptureFixture
) -> None:
    (mine, _), (theirs, closes) = here.member("g", user="7"), there.member("g", user="7")
    here.layer.timeout_s = 0.5
    free = there.hold()
    began = time.monotonic()
    with pytest.raises(NodeUnreachable, match=r"did not answer within timeout_s \(0.5 s\)"):
        here.run(here.layer.group_add("h", theirs.channel))
    assert time.monotonic() - began > 0.4
    count = here.run(here.layer.group_count("g"))
    assert (count, count.complete) == (1, False)
    channels = here.run(here.layer.group_channels("g"))
    assert (channels, channels.complete) == ([mine.channel], False)
    assert here.run(here.layer.nodes_info(timeout_s=0.1)).complete is False
    caplog.clear()
    with caplog.at_level(logging.WARNING, "antiphon.layer"):
        closed = here.run(here.layer.close_user("7"))
    assert (closed, closed.complete) == (1, False)
    assert "Not every node answered 'close_identity' within 0.5 s: 1 did" in caplog.text
    assert questions(here.layer) == 0
    free.set()
    here.layer.timeout_s = 100
    # It goes on, and does what it was asked to: the close is not lost, nor does a late answer disturb anybody.
    assert eventually(lambda: closes == ["revoked"])
    count = here.run(here.layer.group_count("g"))
    assert (count, count.complete) == (2, True)
    assert counter(here.layer, "malformed") == 0


def test_a_caller_that_is_cancelled_leaves_nothing_behind(here: Place, there: Place) -> None:
    theirs = there.member("g")[0].channel
    here.member()
    (control,) = here.layer._controls.values()
    assert eventually(lambda: control._listens and not control._tasks)  # a new node has a question of its own
    free = there.hold()
    calls = [
        here.start(call)
        for call in (here.layer.group_add("h", theirs), here.layer.group_count("g"), here.layer.close_user(7))
    ]
    assert eventually(lambda: questions(here.layer) == 3)
    for call in calls:
        call.cancel()
    assert eventually(lambda: questions(here.layer) == 0)
    free.set()


def test_a_thousand_calls_at_once_are_answered_each(here: Place, there: Place) -> None:
    theirs = [there.member()[0].channel for _ in range(10)]

    async def many() -> list[Any]:
        adds = (here.layer.group_add(f"g{n}", theirs[n % 10]) for n in range(500))
        await asyncio.gather(*adds)
        return await asyncio.gather(*(here.layer.group_channels(f"g{n}") for n in range(500)))

    assert here.run(many()) == [[theirs[n % 10]] for n in range(500)]
    assert questions(here.layer) == questions(there.layer) == 0


def test_synchronous_code_calls_through_the_background_node(here: Place, there: Place) -> None:
    theirs, closes = there.member(user="7")
    layer = here.layer
    async_to_sync(layer.group_add)("g", theirs.channel)
    assert async_to_sync(layer.group_channels)("g") == [theirs.channel]
    assert async_to_sync(layer.group_count)("g") == 1
    async_to_sync(layer.group_discard)("g", theirs.channel)
    assert async_to_sync(layer.close_user)("7") == 1
    assert closes == ["revoked"]
    assert len(async_to_sync(layer.nodes_info)()) == 2
    assert layer.stats()["nodes"] == 1  # the background node alone

    layer.timeout_s = 0.5
    free = there.hold()
    with pytest.raises(NodeUnreachable, match=theirs.channel.partition(".")[2].partition("!")[0]):
        async_to_sync(layer.group_add)("g", theirs.channel)
    count = async_to_sync(layer.group_count)("h")
    assert (count, count.complete) == (0, True)  # the one that stands has no part in it
    assert async_to_sync(layer.nodes_info)().complete is False
    free.set()
    async_to_sync(layer.close)()


def test_flush_makes_every_node_forget_its_groups(here: Place, there: Place) -> None:
    mine, theirs = here.member("g")[0], there.member("g", "h")[0]
    here.run(here.layer.group_send("g", HELLO))
    here.run(here.layer.send("worker", HELLO))
    here.run(here.layer.flush())
    assert here.run(here.layer.group_channels("g")) == []
    assert there.run(there.layer.group_count("h", scope="node")) == 0
    assert (mine.queue, theirs.queue, here.layer._bus.queues) == ([], [], {})
    there.run(there.layer.send(theirs.channel, HELLO))
    assert len(theirs.queue) == 1  # its connection is still there


def test_nodes_say_what_they_are(here: Place, there: Place) -> None:
    theirs, _ = there.member("g", "h", user="7", session="s")
    there.run(there.layer.send(theirs.channel, HELLO))
    here.member()
    infos = here.run(here.layer.nodes_info())
    assert len(infos) == 2
    assert infos.complete is True
    (info,) = [info for info in infos if info["groups"]]
    assert info["groups"] == {"g": 1, "h": 1}
    assert info["channels"] == [
        {
            "channel": theirs.channel,
            "consumer": "Chat",
            "user": "7",
            "session": True,
            "groups": ["g", "h"],
            "waiting": 1,
            "capacity": 100,
        }
    ]
    assert info["truncated"] is False
    assert info["stats"]["channels"] == 1
    assert info["started_s"] <= time.time()
    assert {"id", "host", "pid", "process"} <= info.keys()
    assert there.run(there.layer.nodes_info(limit=0))[0]["channels"] == []


def test_an_engine_that_cannot_count_its_nodes_leaves_an_answer_incomplete(bus: MemoryBus, there: Place) -> None:
    layer = FarLayer(bus, timeout_s=0.5)
    layer.part = Unsure
    place = Place(layer)
    theirs = there.member("g")[0].channel
    count = place.run(layer.group_count("g"))
    assert (count, count.complete) == (1, False)
    place.run(layer.group_add("h", theirs))  # one node is asked, so one answer is all
    with pytest.raises(NodeUnreachable, match="did not answer"):
        place.run(layer.group_add("h", "specific.000000000000!1"))
    place.stop()


def test_what_a_node_could_not_do_is_told(here: Place, there: Place, caplog: pytest.LogCaptureFixture) -> None:
    theirs = there.member("g")[0].channel
    here.member()
    for call, args, text in (
        ("no_such_call", {}, "no call 'no_such_call': another version"),
        ("join", {"group": "not a name", "channel": theirs}, "Group name must be"),
        ("join", {"channel": theirs}, "KeyError"),
        ("leave", {"group": "g", "channel": 7}, "expected a str"),
    ):
        with pytest.raises(EngineUnavailable, match=text):
            here.run(here.layer._ask_owner(theirs, call, args))
    assert counter(there.layer, "malformed") == 0
    for control in there.layer._controls.values():
        control.max_bytes = 200  # an answer that cannot be sent
    with caplog.at_level(logging.WARNING, "antiphon.layer"):
        infos = here.run(here.layer.nodes_info())
    assert infos.complete is False
    assert len(infos) == 1
    assert "could not answer 'info': its answer has" in caplog.text


async def test_malformed_control_envelopes_are_counted_and_answer_nobody(bus: MemoryBus) -> None:
    layer = FarLayer(bus)
    await layer.new_channel()
    (control,) = layer._controls.values()
    good = {"call": "ping", "id": 1, "from": control.node.id, "args": {}}
    bodies: list[Any] = [
        [1, 2],
        {},
        {**good, "from": "a b"},
        {**good, "from": ["x"]},
        {**good, "args": 7},
        {**good, "id": "7"},
        {**good, "call": ["x"]},
        {"answer": 1},
        {"answer": ["x"], "node": "n", "value": 1},
        {"answer": 1, "node": 7, "value": 1},
    ]
    payloads = [pack(CONTROL, 1, n, 1, encode(body)) for n, body in enumerate(bodies)]
    payloads.append(pack(CONTROL, 1, 99, 1, b"\xc1"))
    for payload in payloads:
        bus.publish(inbox_topic(control.node.id), payload)
    assert control.malformed == len(payloads)
    await asyncio.sleep(0)
    assert layer.stats()["undecodable"] == len(payloads)
    assert layer.stats()["drops"] == {"undecodable": len(payloads)}
    bus.publish(inbox_topic(control.node.id), pack(CONTROL, 1, 100, 1, encode({"answer": 9, "node": "n", "value": 1})))
    assert control.malformed == len(payloads)  # an answer that comes too late is none
    await layer.close()


def test_a_node_that_was_cut_off_hears_whose_connections_were_closed_meanwhile(here: Place, there: Place) -> None:
    theirs, closes = there.member(user="7")
    bystander, _ = there.member(user="8")
    here.member()
    here.layer._revocations.add("user", "7", "revoked")  # while the other heard nothing
    here.layer._revocations.add("user", "9", "revoked")
    (control,) = there.layer._controls.values()
    hub = control.node.hub
    there.loop.call_soon_threadsafe(hub.lost, ["g:g"], "the link broke", time.time() - 1)
    there.loop.call_soon_threadsafe(hub.lost, [control_topic()], "the link broke", time.time() - 1)
    assert eventually(lambda: closes == ["revoked"])
    assert bystander.closing is None
    assert there.layer.revoked_since("9", None, time.monotonic() - 5) == "revoked"
    assert theirs.closing == "revoked"
