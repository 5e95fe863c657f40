"""Users, sessions and the end of connections: who is reached by a user's name, and who is closed by it."""

from __future__ import annotations

import asyncio

import pytest

from antiphon.layers import InMemoryChannelLayer
from tests.layer.members import HELLO, connection, numbered, waits


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
