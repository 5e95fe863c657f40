"""The pytest plug-in: fixtures for a layer of one test and for what the test sends.

Loaded by pytest wherever Antiphon is installed, so it must not load settings, Django or any other plug-in by itself.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import TYPE_CHECKING

import pytest

if TYPE_CHECKING:
    from ..layers import InMemoryChannelLayer
    from .capture import CapturedMessages

__all__ = ["async_db", "channel_layer", "group_messages"]


@pytest.fixture
def channel_layer() -> Iterator[InMemoryChannelLayer]:
    """Put a new in-memory layer under the alias "default" for the test; it is flushed and closed at the end."""
    from .layer import fresh_layer

    with fresh_layer() as layer:
        yield layer


@pytest.fixture
def group_messages() -> Iterator[CapturedMessages]:
    """Record what the test sends, to groups, users and channels.

    ``group_messages.to("chat_lobby")`` returns messages; inside a transaction of Django ``group_messages.commit()``
    sends what waits for it.
    """
    from .capture import capture_messages

    with capture_messages() as captured:
        yield captured


@pytest.fixture
def async_db(request: pytest.FixtureRequest) -> Iterator[None]:
    """Give an asynchronous test the database of pytest-django's ``db``, inside its transaction, on every thread.

    Under a plain ``db`` the transaction belongs to the thread of the loop, and what runs in other threads, as
    synchronous handlers and the ORM's asynchronous methods do, neither sees its rows nor is undone by its rollback.
    """
    request.getfixturevalue("db")
    from .connections import shared_connections

    with shared_connections(lambda connection: True):
        yield
