"""The end of a turn: every socket in line is written once, and a long line leaves the loop to others in between."""

from __future__ import annotations

import asyncio

import pytest

from antiphon.server import writer
from antiphon.server.writer import Turn


class Socket:
    def __init__(self, written: list[object]) -> None:
        self.written = written

    def flush(self) -> None:
        self.written.append(self)


async def test_sockets_are_written_at_the_turns_end_in_the_order_in_which_they_came() -> None:
    turn, written = Turn(asyncio.get_running_loop()), list[object]()
    sockets = [Socket(written) for _ in range(3)]
    for socket in sockets:
        turn.add(socket)
    assert written == []
    await asyncio.sleep(0)
    assert written == sockets
    await asyncio.sleep(0)
    assert written == sockets


async def test_a_long_line_is_written_in_slices(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(writer, "SLICE_S", -1.0)  # any time is too long
    turn, written = Turn(asyncio.get_running_loop()), list[object]()
    for _ in range(40):
        turn.add(Socket(written))
    seen = []
    while turn.waiting:
        await asyncio.sleep(0)
        seen.append(len(written))
    assert seen == [16, 32, 40]


async def test_what_is_added_while_it_is_written_has_its_turn() -> None:
    turn, written = Turn(asyncio.get_running_loop()), list[object]()

    class Echoing(Socket):
        def flush(self) -> None:
            super().flush()
            if len(written) < 3:
                turn.add(self)

    turn.add(Echoing(written))
    while turn.waiting:  # noqa: ASYNC110  # turns are what is tested
        await asyncio.sleep(0)
    assert len(written) == 3
