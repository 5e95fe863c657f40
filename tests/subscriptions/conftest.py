"""The layer that the tests of subscriptions share: groups with and without history, with presence."""

from __future__ import annotations

import pytest

from antiphon.layers import InMemoryChannelLayer, channel_layers

GROUPS = {
    "log*": {"history_size": 50},
    "brief": {"history_size": 3},
    "last": {"history_size": 5, "recovery": "cache"},
    "here*": {"presence": True, "presence_grace_s": 0.0},
}


@pytest.fixture
def layer() -> InMemoryChannelLayer:
    """The default layer."""
    layer = InMemoryChannelLayer(groups=GROUPS)
    channel_layers.set("default", layer)
    return layer
