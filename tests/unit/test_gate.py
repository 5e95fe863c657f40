"""The gate: each message once, in whichever order it and its repetition come."""

from __future__ import annotations

from antiphon.envelope import MESSAGE, mark_again, pack, unpack
from antiphon.layer.gate import LANES_MAX, Gate

TOPIC = "g:room"


def note(n: int, lane: int = 1) -> bytes:
    return pack(MESSAGE, lane, n, 0, b"body")


def admits(gate: Gate, payload: bytes, topic: str = TOPIC) -> bool:
    return gate.admit(unpack(payload, topic))


def test_a_message_that_is_sent_again_is_let_in_once() -> None:
    gate = Gate()
    assert admits(gate, note(1))
    assert not admits(gate, mark_again(note(1)))
    assert admits(gate, mark_again(note(2)))
    assert not admits(gate, mark_again(note(2)))
    assert gate.duplicates == 2


def test_the_first_one_may_come_after_its_repetition() -> None:
    gate = Gate()
    for n in (4, 5):
        assert admits(gate, mark_again(note(n)))
    assert admits(gate, note(6))
    for n in (4, 5):
        assert not admits(gate, note(n))
    assert admits(gate, note(4, lane=2))
    assert admits(gate, note(4), "g:elsewhere")
    assert gate.duplicates == 2


def test_what_was_not_sent_again_is_let_in_whatever_came_before() -> None:
    gate = Gate()
    assert admits(gate, note(6))
    assert admits(gate, note(5))
    assert gate.duplicates == 0


def test_a_topic_that_is_forgotten_and_lanes_beyond_the_bound_leave_nothing() -> None:
    gate = Gate()
    for lane in range(LANES_MAX * 4):
        assert admits(gate, mark_again(note(1, lane)))
    assert admits(gate, mark_again(note(1, 0)))  # forgotten: too long ago
    assert not admits(gate, mark_again(note(1, LANES_MAX * 4 - 1)))
    gate.forget(TOPIC)
    assert admits(gate, note(1, LANES_MAX * 4 - 1))
