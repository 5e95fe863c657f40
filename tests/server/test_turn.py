"""The end of a turn: every socket in line is written once, and a long line leaves the loop to others in between."""

from __future__ import annotations

import asyncio
import os
from collections.abc import Iterator

import pytest

from antiphon.server import writer
from antiphon.server.writer import Turn
from antiphon.wire.prebuilt import Prebuilt


class Socket:
    straight = -1
    turn: Turn

    def __init__(self, written: list[object]) -> None:
        self.written = written

    def write(self, message: Prebuilt) -> bool:
        raise AssertionError("nothing is sent to this one")

    def pass_on(self, data: bytes) -> None:
        raise AssertionError("nothing is sent to this one")

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


class Plain(Socket):
    """A socket on a pipe, with nothing in its way."""

    full = False

    def __init__(self, written: list[object]) -> None:
        super().__init__(written)
        self.reading, self.straight = os.pipe()
        self.held: list[bytes] = []

    def write(self, message: Prebuilt) -> bool:
        self.held.append(message.frame)
        self.turn.add(self)
        return True

    def flush(self) -> None:
        super().flush()
        os.write(self.straight, b"".join(self.held))
        self.held.clear()

    def pass_on(self, data: bytes) -> None:
        raise AssertionError("a pipe takes all")

    @property
    def got(self) -> bytes:
        return os.read(self.reading, 1000)


@pytest.fixture
def pipes() -> Iterator[list[Plain]]:
    made = [Plain([]) for _ in range(40)]
    yield made
    for each in made:
        os.close(each.reading)
        os.close(each.straight)


async def test_one_message_is_written_to_all_straight(pipes: list[Plain]) -> None:
    turn = Turn(asyncio.get_running_loop())
    turn.add_all(Prebuilt("hi"), pipes)
    await asyncio.sleep(0)
    assert [each.got for each in pipes] == [b"\x81\x02hi"] * 40
    assert [each.written for each in pipes] == [[]] * 40


async def test_messages_that_meet_in_a_turn_are_held_by_each_socket_and_leave_together(pipes: list[Plain]) -> None:
    turn = Turn(asyncio.get_running_loop())
    for each in pipes:
        each.turn = turn
    turn.add_all(Prebuilt("1"), pipes)
    turn.add_all(Prebuilt("2"), pipes[:20])
    assert [len(each.held) for each in pipes] == [2] * 20 + [1] * 20
    while turn.waiting:  # noqa: ASYNC110  # turns are what is tested
        await asyncio.sleep(0)
    assert [each.got for each in pipes] == [b"\x81\x011\x81\x012"] * 20 + [b"\x81\x011"] * 20


async def test_a_message_of_many_is_written_in_slices_and_keeps_its_place(
    monkeypatch: pytest.MonkeyPatch, pipes: list[Plain]
) -> None:
    monkeypatch.setattr(writer, "SLICE_S", -1.0)
    turn = Turn(asyncio.get_running_loop())
    for each in pipes:
        each.turn = turn
    turn.add_all(Prebuilt("1"), pipes)
    await asyncio.sleep(0)
    assert turn.batch is not None
    assert len(turn.batch[1]) == 24
    turn.add_all(Prebuilt("2"), pipes)
    while turn.waiting:  # noqa: ASYNC110  # turns are what is tested
        await asyncio.sleep(0)
    assert [each.got for each in pipes] == [b"\x81\x011\x81\x012"] * 40
