"""Whatever a wire and an engine do: no client sees a gap, a repetition or a wrong order without having been told."""

from __future__ import annotations

import asyncio
import os
from typing import Any

from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from tests.layer.logs.simulated import SimulatedLoop
from tests.layer.logs.wire import TOPIC, Client, Room

CLIENTS = 3
EXAMPLES = int(os.environ.get("RECOVERY_EXAMPLES", "150"))

STEPS = st.one_of(
    st.tuples(st.just("send"), st.integers(1, 4)),
    st.tuples(st.sampled_from(["connect", "drop", "blink", "read"]), st.integers(0, CLIENTS - 1)),
    st.tuples(st.sampled_from(["lose", "fail", "let through"]), st.integers(1, 3)),
    st.tuples(st.sampled_from(["delay", "go", "break", "repeat", "forget", "check", "turn", "wait"]), st.just(0)),
)


async def act(room: Room, step: tuple[str, int]) -> None:  # one branch a step
    what, n = step
    engine = room.engine
    if what == "send":
        for _ in range(n):
            room.send()
    elif what == "connect":
        room.clients[n].connect()
    elif what == "drop":
        room.clients[n].drop()
    elif what == "blink":
        room.clients[n].drop()
        room.clients[n].connect()
    elif what == "read":
        room.clients[n].read()
    elif what == "lose":
        engine.loses += n
    elif what == "fail":
        engine.fails += n
    elif what == "let through":
        engine.let_through(n)
    elif what == "delay":
        engine.delays = True
    elif what == "go":
        engine.delays = False
        engine.let_through()
    elif what == "break":
        engine.break_link()
    elif what == "repeat":
        engine.repeat()
    elif what == "forget":
        room.bus.forget_logs()
    elif what == "check":
        room.logs._check()
    elif what == "turn":
        await asyncio.sleep(0)
    else:
        await asyncio.sleep(0.5)


async def run(size: int, steps: list[tuple[str, int]]) -> None:
    room = Room(size)
    for _ in range(CLIENTS):
        Client(room).connect()
    await asyncio.sleep(1)
    for step in steps:
        await act(room, step)
    # All is well again: then everybody has everything, or knows that it has not.
    engine = room.engine
    engine.delays, engine.loses, engine.fails = False, 0, 0
    engine.let_through()
    for client in room.clients:
        client.connect()
    await asyncio.sleep(5)
    room.logs._check()
    await asyncio.sleep(5)
    room.send()
    await asyncio.sleep(5)
    for client in room.clients:
        assert client.mailbox is not None
        client.read()
        assert client.told or client.last == room.sent, f"{client.last} of {room.sent}, and nobody was told"
    log = room.logs.logs[TOPIC]
    assert not log.filling
    assert not log.starts
    for client in room.clients:
        client.drop()
    assert room.logs.logs == {}
    room.node.end()
    await asyncio.sleep(0)


def simulate(main: Any) -> None:
    loop = SimulatedLoop()
    try:
        loop.run_until_complete(main)
    finally:
        loop.close()


@settings(max_examples=EXAMPLES, deadline=None, suppress_health_check=[HealthCheck.too_slow])
@given(size=st.integers(1, 12), steps=st.lists(STEPS, max_size=60))
def test_nothing_is_missing_twice_or_out_of_order_without_a_word(size: int, steps: list[tuple[str, int]]) -> None:
    simulate(run(size, steps))
