"""The gate: each message once, in whichever order it and its repetition come."""

from __future__ import annotations

import random

import pytest

from antiphon.envelope import MESSAGE, HeadedEnvelope, mark_again, pack, unpack
from antiphon.layer import gate as gates
from antiphon.layer.gate import Gate

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


def test_what_comes_after_later_ones_of_its_lane_is_not_let_in_and_told() -> None:
    gate = Gate()
    assert admits(gate, note(6))
    assert admits(gate, note(5, lane=2))
    assert admits(gate, note(5), "g:elsewhere")
    assert gate.late == {}
    assert not admits(gate, pack(MESSAGE, 1, 5, 7_000_000, b"body"))
    assert not admits(gate, pack(MESSAGE, 1, 4, 3_000_000, b"body"))
    assert gate.late == {TOPIC: 3.0}
    # Nor does it hide a repetition of what had come before it.
    assert not admits(gate, mark_again(note(6)))
    assert (gate.duplicates, admits(gate, note(7))) == (1, True)


def test_a_late_one_is_known_when_its_lane_has_been_silent_for_a_generation() -> None:
    gate = Gate()
    assert all(gate.admit(at(lane, 2)) for lane in range(gates.LANES_MIN))
    assert all(gate.admit(at(lane, 2, 1000.0)) for lane in range(1000, 1002))
    assert not gate.admit(at(0, 1, 1001.0))


def at(lane: int, n: int, now: float = 0.0, *, again: bool = False) -> HeadedEnvelope:
    payload = note(n, lane)
    return unpack(mark_again(payload) if again else payload, TOPIC, now)


@pytest.mark.parametrize("lanes", [1, 64, 65, 128, 129, 5000])
def test_a_message_sent_again_is_known_however_many_lanes_have_spoken(lanes: int) -> None:
    gate = Gate()
    order = random.Random(lanes).sample(range(lanes), lanes)
    assert all(gate.admit(at(lane, 1)) for lane in range(lanes))
    assert all(gate.admit(at(lane, 2, 10.0)) for lane in order)
    assert not any(gate.admit(at(lane, 2, 20.0, again=True)) for lane in order)
    assert gate.duplicates == lanes


def test_the_first_ones_of_many_lanes_may_come_after_their_repetitions() -> None:
    gate, lanes = Gate(), 200
    assert all(gate.admit(at(lane, 1, again=True)) for lane in range(lanes))
    assert not any(gate.admit(at(lane, 1, 50.0)) for lane in range(lanes))
    assert all(gate.admit(at(lane, 2, 50.0)) for lane in range(lanes))


@pytest.mark.parametrize("keep_s", [60.0, 200.0])
def test_a_lane_is_remembered_for_as_long_as_a_repetition_may_take(keep_s: float) -> None:
    gate, now = Gate(keep_s=keep_s), 0.0
    for lane in range(3000):  # one thread after another
        now += 0.5
        assert gate.admit(at(lane, 1, now))
        earlier = lane - int(keep_s)  # half of the time ago
        if earlier >= 0:
            assert not gate.admit(at(earlier, 1, now, again=True))
    assert len(gate._lanes[TOPIC]) + len(gate._before[TOPIC]) < 3 * keep_s / 0.5 + gates.LANES_MIN


def test_lanes_that_say_nothing_more_are_forgotten() -> None:
    gate = Gate()
    for lane in range(1000):
        gate.admit(at(lane, 1, again=lane % 2 == 0))
    for now in (61.0, 122.0, 183.0):
        for lane in range(5000, 5100):
            gate.admit(at(lane, int(now), now, again=lane % 2 == 0))
    assert len(gate._lanes[TOPIC]) + len(gate._before[TOPIC]) <= 200
    assert len(gate._again[TOPIC]) <= 50


def test_no_topic_holds_more_than_the_most(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(gates, "LANES_MAX", 100)
    gate = Gate()
    for lane in range(1000):
        gate.admit(at(lane, 1, again=True))
    assert len(gate._lanes[TOPIC]) + len(gate._before[TOPIC]) <= 202
    assert len(gate._again[TOPIC]) <= 100
    gate.forget(TOPIC)
    assert not any((gate._lanes, gate._before, gate._again, gate._turned_s))
