"""Whatever a client sends, the state machine answers by its tables and raises nothing.

For seconds here; ``make fuzz`` goes on for a minute (FUZZ_S).
"""

from __future__ import annotations

import json
import os
import random
import time
from collections.abc import Callable
from typing import Any

from antiphon.wire.centrifuge import tables
from antiphon.wire.centrifuge.commands import Command, Connect, Subscribe, Unsubscribe
from antiphon.wire.centrifuge.session import CLOSED, Answer, Close, Lapsed, Limits, Session, Subscription
from tests.unit.centrifuge_frames import frame

FUZZ_S = float(os.environ.get("FUZZ_S", "2"))
LIMITS = Limits(subscriptions=4, frame_characters=3000, frame_commands=40, commands=(30, 1.0), channel_characters=20)
ERRORS = {error.code for error in tables.ERRORS.values()}
DISCONNECTS = set(tables.DISCONNECTS.values())


def drive(rng: random.Random) -> Callable[[], int]:
    """Return a function that carries a session some frames further, beginning another when it has ended."""
    now = 0.0
    session = Session(LIMITS, now)

    def act(action: Any) -> None:
        if isinstance(action, Answer):
            reply = json.loads(action.text)
            assert "\n" not in action.text
            assert "unsubscribe" in reply or reply["error"]["code"] in ERRORS
        elif isinstance(action, Close):
            assert action.why in DISCONNECTS
            assert session.state == CLOSED
        elif isinstance(action, Connect):
            if rng.random() < 0.9:
                session.connected(now, rng.choice([None, now + 5.0]))
            else:
                session.refused()
        elif isinstance(action, Subscribe):
            assert action.channel not in session.subscriptions
            assert len(session.subscriptions) < LIMITS.subscriptions
            if rng.random() < 0.8:
                ends_s = rng.choice([None, now + 1.0])
                session.subscribed(Subscription(action.channel, action.channel, ends_s=ends_s))
        elif isinstance(action, Unsubscribe):
            assert session.unsubscribed(action.channel) is not None
        else:
            assert isinstance(action, Command)

    def go_on() -> int:
        nonlocal now, session
        if session.state == CLOSED or rng.random() < 0.01:
            session = Session(LIMITS, now)
            if rng.random() < 0.9:
                for action in session.feed('{"id":1,"connect":{}}', now):
                    act(action)
        for action in session.feed(frame(rng), now):
            act(action)
        now += rng.choice([0.0, 0.001, 0.1, 10.0])
        session.ping(now)
        for due in session.overdue(now):
            assert isinstance(due, Lapsed) or due.why in DISCONNECTS
            if isinstance(due, Lapsed):
                session.unsubscribed(due.channel)
        session.next_s()
        return 1

    return go_on


def test_nothing_a_client_sends_raises_and_every_answer_is_in_the_tables() -> None:
    seed = int(os.environ.get("FUZZ_SEED", time.time_ns()))
    print(f"FUZZ_SEED={seed}")
    step = drive(random.Random(seed))
    until, frames = time.monotonic() + FUZZ_S, 0
    while time.monotonic() < until or frames < 200:
        frames += step()
    print(f"{frames} frames")
