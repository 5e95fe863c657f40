"""The state of one client of the Centrifuge protocol: what it may do when, and what time does to it."""

from __future__ import annotations

import json
from typing import Any

import pytest

from antiphon.wire.centrifuge import tables
from antiphon.wire.centrifuge.commands import Connect, Publish, Subscribe, Unsubscribe
from antiphon.wire.centrifuge.session import Answer, Close, Lapsed, Limits, Session, Subscription
from antiphon.wire.codes import REASONS


def line(number: int, method: str, /, **fields: Any) -> str:
    return json.dumps({"id": number, method: fields})


def connected(limits: Limits | None = None, now: float = 0.0, ends_s: float | None = None) -> Session:
    session = Session(limits or Limits(), now)
    for _ in session.feed(line(1, "connect"), now):
        session.connected(now, ends_s)
    return session


def error(action: Any) -> int:
    assert isinstance(action, Answer)
    code: int = json.loads(action.text)["error"]["code"]
    return code


def test_each_action_is_decided_after_the_one_before_was_carried_out() -> None:
    session = Session(Limits(), 0.0)
    frame = [line(1, "connect"), line(2, "subscribe", channel="a"), line(3, "subscribe", channel="a")]
    frame += [line(4, "unsubscribe", channel="a"), line(5, "subscribe", channel="a")]
    seen = []
    for action in session.feed("\n".join(frame), 0.0):
        seen.append(type(action))
        if isinstance(action, Connect):
            session.connected(0.0)
        elif isinstance(action, Subscribe):
            session.subscribed(Subscription(action.channel, action.channel))
        elif isinstance(action, Unsubscribe):
            session.unsubscribed(action.channel)
    assert seen == [Connect, Subscribe, Answer, Unsubscribe, Subscribe]


def test_after_an_error_for_its_connect_the_rest_of_a_client_is_ignored() -> None:
    session = Session(Limits(), 0.0)
    actions = []
    for action in session.feed(line(1, "connect") + "\n" + line(2, "subscribe", channel="a"), 0.0):
        actions.append(action)
        session.refused()
    actions += session.feed("nonsense", 1.0)
    assert [type(action) for action in actions] == [Connect]
    assert session.overdue(25.0) == [Close(tables.DISCONNECTS["stale"])]


@pytest.mark.parametrize("second", [line(2, "connect"), '{"id":2}', "", b"{}", None, "x" * 65537, "{}\n" * 2049])
def test_what_breaks_the_rules_closes_and_nothing_follows(second: Any) -> None:
    session = connected()
    assert list(session.feed(second, 1.0)) == [Close(tables.DISCONNECTS["bad_request"])]
    assert list(session.feed(line(3, "rpc", method="m"), 1.0)) == []
    assert (session.overdue(1e9), session.next_s(), session.ping(1e9)) == ([], None, False)


def test_the_first_command_is_connect() -> None:
    for first in (line(1, "subscribe", channel="a"), line(1, "ping"), '{"send":{}}'):
        assert list(Session(Limits(), 0.0).feed(first, 0.0)) == [Close(tables.DISCONNECTS["bad_request"])]


def test_limits_are_errors_before_they_are_ends() -> None:
    session = connected(Limits(subscriptions=1, commands=(3, 3.0), channel_characters=5))
    (first,) = session.feed(line(2, "subscribe", channel="a"), 0.0)
    assert isinstance(first, Subscribe)
    session.subscribed(Subscription("a", "a"))
    frame = [line(3, "subscribe", channel="b"), line(4, "publish", channel="x" * 6, data=1)]
    frame += [line(5, "publish", channel="a", data=1), line(6, "unsubscribe", channel="b")]
    actions = list(session.feed("\n".join(frame), 0.0))
    assert [error(action) for action in actions[:3]] == [106, 107, 111]
    assert actions[3:] == [Answer('{"id":6,"unsubscribe":{}}')]
    assert [type(action) for action in session.feed(line(7, "publish", channel="a", data=1), 1.0)] == [Publish]


def test_without_a_rate_a_client_may_go_on() -> None:
    session = connected(Limits(commands=None))
    frame = "\n".join(line(n, "publish", channel="a", data=1) for n in range(2, 1002))
    assert {type(action) for action in session.feed(frame, 0.0)} == {Publish}


def test_time_brings_pings_and_their_absence_the_end() -> None:
    session = connected(Limits(ping_s=10.0, pong_s=4.0), now=100.0)
    assert (session.next_s(), session.ping(109.9), session.ping(110.0)) == (110.0, False, True)
    assert session.next_s() == 114.0
    assert (session.overdue(113.9), session.ping(110.1)) == ([], False)
    assert list(session.feed("{}", 113.0)) == []
    assert (session.overdue(114.0), session.next_s(), session.ping(120.0)) == ([], 120.0, True)
    assert list(session.feed(line(2, "publish", channel="a", data=1), 121.0)) != []  # any frame is a sign of life
    assert session.overdue(124.0) == []
    assert session.ping(130.0)
    assert session.overdue(134.0) == [Close(tables.DISCONNECTS["no_pong"])]


def test_without_pings_nobody_is_missed() -> None:
    session = connected(Limits(ping_s=0.0))
    assert (session.next_s(), session.ping(1e9), session.overdue(1e9)) == (None, False, [])


def test_a_token_ends_a_grace_after_its_time_unless_it_is_renewed() -> None:
    session = connected(Limits(ping_s=0.0, grace_s=25.0), ends_s=60.0)
    assert (session.next_s(), session.overdue(84.9)) == (85.0, [])
    session.ends_s = 100.0
    session.subscribed(Subscription("a", "a", ends_s=70.0))
    session.subscribed(Subscription("b", "b"))
    assert (session.next_s(), session.overdue(94.9)) == (95.0, [])
    assert session.overdue(95.0) == [Lapsed("a")]
    assert session.overdue(125.0) == [Close(tables.DISCONNECTS["expired"])]


def test_the_tables_hold_what_clients_expect() -> None:
    for error_ in tables.ERRORS.values():
        assert 100 <= error_.code < 400
        assert ("temporary" in error_.content()) is error_.temporary
    final = {name for name, why in tables.DISCONNECTS.items() if why.final}
    assert final == {"invalid_token", "bad_request", "stale", "inappropriate_protocol"}
    codes = [why.code for why in tables.DISCONNECTS.values()]
    assert len(set(codes)) == len(codes)
    for reason in [why.reason for why in tables.DISCONNECTS.values()]:
        with pytest.raises(ValueError, match="Expecting"):  # clients would read it as a word of an older protocol
            json.loads(reason)
    assert REASONS["unauthenticated"].centrifuge == tables.DISCONNECTS["invalid_token"].code
    assert REASONS["bad_frame"].centrifuge == tables.DISCONNECTS["bad_request"].code
