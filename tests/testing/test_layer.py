"""A layer for one test."""

from __future__ import annotations

import asyncio

from antiphon import get_channel_layer
from antiphon.layers import channel_layers
from antiphon.testing import fresh_layer


def test_the_layer_before_is_back_after_the_block() -> None:
    before = get_channel_layer()
    with fresh_layer(capacity=3) as layer:
        assert get_channel_layer() is layer is not before
        assert layer.capacity == 3
    assert get_channel_layer() is before


def test_where_none_was_made_none_is_left() -> None:
    with fresh_layer("other") as layer:
        assert get_channel_layer("other") is layer
    assert "other" not in channel_layers.backends


def test_settings_that_change_inside_win() -> None:
    with fresh_layer():
        channel_layers._reset_backends("CHANNEL_LAYERS")
    assert channel_layers.backends == {}


def test_nothing_is_left_in_it() -> None:
    async def use() -> None:
        channel = await layer.new_channel()
        await layer.group_add("room", channel)
        await layer.group_send("room", {"type": "x"})

    with fresh_layer() as layer:
        asyncio.run(use())
    stats = layer.stats()
    assert (stats["nodes"], stats["channels"], stats["groups"], stats["waiting"]) == (0, 0, 0, 0)
