"""The layer of one test, which is the default one and can be made to fail."""

from __future__ import annotations

from collections.abc import Iterator

import pytest
from asgiref.sync import async_to_sync

from antiphon.layers import channel_layers
from tests.layer.sync.flaky import Flaky


@pytest.fixture
def layer() -> Iterator[Flaky]:
    layer = Flaky()
    channel_layers.set("default", layer)
    yield layer
    async_to_sync(layer.close)()
