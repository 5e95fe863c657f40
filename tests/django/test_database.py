from __future__ import annotations

import threading
from typing import Any
from unittest import mock

import pytest

from antiphon import db, framework
from antiphon.db import aclose_old_connections, database_sync_to_async
from antiphon.django import database
from tests.waiting import until


@pytest.fixture
def closed(monkeypatch: pytest.MonkeyPatch) -> list[str]:
    """Names of the threads on which old connections were closed."""
    names: list[str] = []
    monkeypatch.setattr(db, "close_old_connections", lambda: names.append(threading.current_thread().name))
    monkeypatch.setattr(database, "_threads", threading.local())
    return names


async def test_old_connections_are_closed_at_most_once_a_second(closed: list[str]) -> None:
    call = database_sync_to_async(lambda: 1)
    assert [await call() for _ in range(5)] == [1] * 5
    assert len(closed) == 1


async def test_they_are_closed_once_more_when_the_work_is_over(
    closed: list[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(database, "CLOSE_INTERVAL_S", 0.05)
    name = await database_sync_to_async(lambda: threading.current_thread().name)()
    await until(lambda: len(closed) >= 2)
    assert closed == [name, name]


@pytest.mark.usefixtures("compat")
async def test_under_compat_they_are_closed_before_and_after_each_call(closed: list[str]) -> None:
    call = database_sync_to_async(lambda: len(closed))
    assert [await call(), await call()] == [1, 3]
    assert len(closed) == 4


async def test_on_a_thread_of_nobody_in_particular_they_are_closed_around_each_call(closed: list[str]) -> None:
    call = database_sync_to_async(lambda: None, thread_sensitive=False)
    await call()
    await call()
    assert len(closed) == 4


async def test_the_connections_of_a_test_are_left_alone(closed: list[str]) -> None:
    token = framework.keep_connections.set(True)
    try:
        await database_sync_to_async(lambda: None)()
        await aclose_old_connections()
    finally:
        framework.keep_connections.reset(token)
    assert closed == []


async def test_an_error_reaches_the_caller(closed: list[str]) -> None:
    def fail() -> None:
        raise LookupError("of the function")

    with pytest.raises(LookupError, match="of the function"):
        await database_sync_to_async(fail)()


async def test_it_decorates_methods_and_passes_arguments(closed: list[str]) -> None:
    class Reader:
        @database_sync_to_async
        def read(self, one: int, *, two: int) -> Any:
            return self, one, two

    reader: Any = Reader()
    assert await reader.read(1, two=2) == (reader, 1, 2)


async def test_the_function_that_closes_is_looked_up_at_each_call() -> None:
    with mock.patch("antiphon.db.close_old_connections") as patched:
        await aclose_old_connections()
    patched.assert_called_once_with()
