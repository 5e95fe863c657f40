"""The layer as an object: flush and close, its recorders, its mapping of channels, its base class and its names."""

from __future__ import annotations

import pytest

from antiphon import Receipt
from antiphon.engines.memory import MemoryBus
from antiphon.layer.capture import Sent, recorders
from antiphon.layers import BaseChannelLayer, ChannelLayer, InMemoryChannelLayer
from tests.layer.members import HELLO, connection, members, numbered, waits


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


async def test_a_receipt_says_nothing_it_does_not_know(layer: InMemoryChannelLayer) -> None:
    assert Receipt() == (None, None, "sent", None, None)
    assert (await layer.send("worker", HELLO)).delivered == 1
    channel = await layer.new_channel()
    assert await layer.send(channel, HELLO) == Receipt(1, None, "sent", 1, 0)


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
