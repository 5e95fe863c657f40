"""The plain functions outside a transaction: each sends at once, and what fails is the caller's to see."""

from __future__ import annotations

from collections.abc import Callable

import pytest
from asgiref.sync import async_to_sync

import antiphon
from antiphon import group_send, groups_send, send, user_send
from antiphon.exceptions import ChannelFull, EngineUnavailable
from antiphon.layer.base import BaseChannelLayer
from antiphon.layer.capture import Sent, recorders
from antiphon.layers import channel_layers
from tests.layer.members import HELLO
from tests.layer.sync.flaky import Flaky, member


def test_outside_a_transaction_it_is_sent_at_once(layer: Flaky) -> None:
    antiphon.configure()  # no framework at all
    channel_layers.set("default", layer)
    channel = member(layer)
    assert group_send("g", HELLO).state == "sent"
    assert async_to_sync(layer.receive)(channel) == HELLO


def test_outside_a_transaction_a_failure_is_the_caller_s_to_see(layer: Flaky) -> None:
    antiphon.configure()
    channel_layers.set("default", layer)
    layer.failures = 1
    with pytest.raises(EngineUnavailable):
        group_send("g", HELLO)


def test_a_layer_of_somebody_else_is_told_with_what_to_do() -> None:
    antiphon.configure()
    channel_layers.set("default", BaseChannelLayer())
    with pytest.raises(TypeError, match=r"antiphon\.group_send\(\) needs a layer of Antiphon.*BaseChannelLayer"):
        group_send("g", HELLO)
    with pytest.raises(TypeError, match=r"antiphon\.close_channel\(\) needs a layer of Antiphon"):
        antiphon.close_channel("a!b")


def test_send_reaches_a_connection_and_a_worker_channel(layer: Flaky) -> None:
    antiphon.configure()
    channel_layers.set("default", layer)
    channel = member(layer)
    assert send(channel, HELLO).state == "sent"
    assert send("thumbs", {"type": "make", "n": 1}).delivered == 1
    assert async_to_sync(layer.receive)(channel) == HELLO
    assert async_to_sync(layer.receive)("thumbs") == {"type": "make", "n": 1}


def test_send_to_a_channel_that_is_gone_is_counted(layer: Flaky) -> None:
    antiphon.configure()
    channel_layers.set("default", layer)
    member(layer)
    assert send("specific.abc!1", HELLO).nodes == 0
    assert layer.stats()["drops"] == {"no_channel": 1}


def test_a_full_worker_channel_raises_where_the_sender_can_hear_it(layer: Flaky) -> None:
    antiphon.configure()
    channel_layers.set("default", layer)
    for _ in range(layer.capacity):
        send("thumbs", HELLO)
    with pytest.raises(ChannelFull):
        send("thumbs", HELLO)


def test_what_is_recorded_of_each(layer: Flaky) -> None:
    antiphon.configure()
    channel_layers.set("default", layer)
    seen: list[Sent] = []
    recorders.append(seen.append)
    send("thumbs", HELLO)
    groups_send(["a", "b"], HELLO)
    user_send(7, HELLO, exclude=["a!b"])
    assert [(sent.kind, sent.target, sent.exclude) for sent in seen] == [
        ("channel", "thumbs", ()),
        ("group", ("a", "b"), ()),
        ("user", "7", ("a!b",)),
    ]


async def test_on_a_running_loop_each_says_what_to_await(layer: Flaky) -> None:
    calls: tuple[Callable[[], object], ...] = (
        lambda: send("thumbs", HELLO),
        lambda: group_send("g", HELLO),
        lambda: groups_send(["g"], HELLO),
        lambda: user_send(7, HELLO),
    )
    for call in calls:
        with pytest.raises(RuntimeError, match=r"await get_channel_layer\(\)\.\w*send\("):
            call()
