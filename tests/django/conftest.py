from __future__ import annotations

from collections.abc import Iterator

import pytest

from antiphon import framework


@pytest.fixture
def compat() -> Iterator[None]:
    """Let Channels' way hold, as after install_as_channels()."""
    framework.compat = True
    yield
    framework.compat = False
