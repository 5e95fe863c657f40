"""Deadlines of many on one timer: each falls due once, in its time, unless it was renewed or ended."""

from __future__ import annotations

import asyncio

from antiphon.server.clock import Clock, clock_of
from tests.waiting import until


class Watched:
    deadline_s = 0.0

    def __init__(self, name: str, said: list[str]) -> None:
        self.name = name
        self.said = said

    def overdue(self) -> None:
        self.said.append(self.name)


async def test_deadlines_fall_due_in_their_order_whatever_their_length() -> None:
    clock, said = Clock(asyncio.get_running_loop()), list[str]()
    clock.watch(Watched("long", said), 0.06)
    clock.watch(Watched("short", said), 0.01)
    clock.watch(Watched("short too", said), 0.01)
    clock.watch(Watched("middle", said), 0.03)
    await until(lambda: len(said) == 4)
    assert said == ["short", "short too", "middle", "long"]


async def test_one_that_was_ended_or_renewed_does_not_fall_due() -> None:
    clock, said = Clock(asyncio.get_running_loop()), list[str]()
    ended, renewed, last = Watched("ended", said), Watched("renewed", said), Watched("last", said)
    clock.watch(ended, 0.01)
    clock.watch(renewed, 0.01)
    clock.forget(ended)
    clock.watch(renewed, 0.03)
    clock.watch(last, 0.03)
    await until(lambda: "last" in said)
    assert said == ["renewed", "last"]
    clock.forget(ended)  # nothing runs: nothing happens
    clock.watch(last, None)
    assert repr(clock) == "<Clock 0 deadlines>"


async def test_one_that_is_ended_by_another_in_the_same_moment_does_not_fall_due() -> None:
    clock, said = Clock(asyncio.get_running_loop()), list[str]()
    other = Watched("other", said)

    class Ending(Watched):
        def overdue(self) -> None:
            super().overdue()
            clock.forget(other)

    clock.watch(Ending("first", said), 0.01)
    clock.watch(other, 0.01)
    clock.watch(Watched("last", said), 0.05)
    await until(lambda: "last" in said)
    assert said == ["first", "last"]


async def test_one_may_set_its_next_deadline_when_it_falls_due() -> None:
    clock, said = Clock(asyncio.get_running_loop()), list[str]()

    class Pinging(Watched):
        def overdue(self) -> None:
            super().overdue()
            if len(said) < 3:
                clock.watch(self, 0.005)

    clock.watch(Pinging("ping", said), 0.005)
    await until(lambda: len(said) == 3)
    assert clock_of(asyncio.get_running_loop()) is clock_of(asyncio.get_running_loop())
