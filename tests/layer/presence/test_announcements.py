"""How joins and leaves are told: one by one, many in one message, in order, later where the engine is away."""

from __future__ import annotations

import asyncio
import logging
from typing import Any

import pytest

from antiphon.engines.base import Present
from antiphon.exceptions import EngineUnavailable, MessageTooLarge
from antiphon.layer.presence import announcements
from antiphon.layer.presence.announcements import JOIN, LEAVE, Announcements, each_user
from tests.waiting import until


class Told:
    """Takes announcements; ``fails`` are raised first, one a message."""

    def __init__(self, *fails: Exception) -> None:
        self.fails = list(fails)
        self.messages: list[dict[str, Any]] = []
        self.largest = 10_000

    async def announce(self, group: str, kind: str, message: dict[str, Any]) -> None:
        await asyncio.sleep(0)
        if len(message["users"]) > self.largest:
            raise MessageTooLarge("too large")
        if self.fails:
            raise self.fails.pop(0)
        self.messages.append(message)

    @property
    def users(self) -> list[tuple[str, str, str]]:
        return [(each["group"], each["type"], each["user"]) for message in self.messages for each in each_user(message)]


def news(told: Told) -> Announcements:
    return Announcements(told.announce, lambda _, present: {"n": present.info.decode()})


def users(*numbers: int) -> list[Present]:
    return [Present(f"specific.a!{n}", f"u{n}", b"%d" % n) for n in numbers]


async def test_few_are_told_one_by_one_and_many_together_in_order() -> None:
    told = Told()
    line = news(told)
    line.add("g", JOIN, users(*range(20)))
    line.add("g", LEAVE, users(0))
    line.add("h", LEAVE, users(*range(450)))
    line.add("h", JOIN, [])
    await until(lambda: len(told.users) == 471)
    assert [each for each in told.users if each[0] == "g"] == [
        *(("g", JOIN, f"{n}") for n in range(20)),
        ("g", LEAVE, "0"),
    ]
    assert [each[2] for each in told.users if each[0] == "h"] == [f"{n}" for n in range(450)]
    sizes = {group: [len(m["users"]) for m in told.messages if m["group"] == group] for group in "gh"}
    assert sizes == {"g": [1] * 21, "h": [200, 200, 50]}
    first = next(message for message in told.messages if message["group"] == "g")
    said = {"user": "0", "channel": "specific.a!0", "info": {"n": "0"}}
    assert first == {"type": JOIN, "group": "g", "users": [said], **said}
    assert each_user(first) == [{"type": JOIN, "group": "g", **said}]


async def test_what_the_engine_does_not_take_is_told_later_in_order(
    caplog: pytest.LogCaptureFixture, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(announcements, "PAUSE_S", 0.01)
    told = Told(*[EngineUnavailable("away")] * 3)
    line = news(told)
    with caplog.at_level(logging.WARNING, "antiphon.layer"):
        line.add("g", JOIN, users(1, 2))
        line.add("g", LEAVE, users(1))
        await until(lambda: len(told.users) == 3)
    assert told.users == [("g", JOIN, "1"), ("g", JOIN, "2"), ("g", LEAVE, "1")]
    assert len(caplog.records) == 1


async def test_what_is_too_large_for_a_message_goes_in_several(monkeypatch: pytest.MonkeyPatch) -> None:
    told = Told()
    told.largest = 30
    line = news(told)
    line.add("g", LEAVE, users(*range(100)))
    await until(lambda: len(told.users) == 100)
    assert [each[2] for each in told.users] == [f"{n}" for n in range(100)]


async def test_one_that_cannot_be_told_does_not_stop_the_others(caplog: pytest.LogCaptureFixture) -> None:
    told = Told(LookupError("a mistake"), MessageTooLarge("even one"))
    line = news(told)
    with caplog.at_level(logging.ERROR, "antiphon.layer"):
        line.add("g", JOIN, users(1, 2, 3))
        await until(lambda: told.users)
    assert told.users == [("g", JOIN, "3")]
    assert len(caplog.records) == 2


async def test_who_sweeps_waits_while_many_are_to_be_told(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(announcements, "ROOM", 300)
    told = Told()
    line = news(told)
    line.add("g", LEAVE, users(*range(1000)))
    await line.room()
    assert len(told.users) >= 700
    await line.close(30)
    assert len(told.users) == 1000


async def test_more_than_can_be_kept_is_refused_and_logged(
    caplog: pytest.LogCaptureFixture, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(announcements, "WAITING_MAX", 5)
    told = Told()
    line = news(told)
    with caplog.at_level(logging.WARNING, "antiphon.layer"):
        line.add("g", LEAVE, users(*range(8)))
    await until(lambda: len(told.users) == 5)
    assert "3 of group 'g' are not told of" in caplog.text
