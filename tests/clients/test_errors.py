"""Each error that a command may be answered with, and what the official clients make of it."""

from __future__ import annotations

import pytest

from tests.clients.conftest import Enter, Name
from tests.clients.players import Player, Stage
from tests.clients.site import Site


@pytest.mark.parametrize("number", [1000, 1999])
def test_an_error_of_the_application_reaches_the_client(enter: Enter, number: int) -> None:
    player = enter()
    player.connect()
    error = player.refused("rpc", "refuse", {"code": number, "message": "a name is needed", "temporary": number > 1000})
    assert (error.code, error.message, error.temporary) == (number, "a name is needed", number > 1000)
    assert player.call("rpc", "echo", 1) == {"data": 1}


def test_100_a_method_that_raises_fails_alone(enter: Enter) -> None:
    player = enter()
    player.connect()
    error = player.refused("rpc", "crash", None)
    assert (error.code, error.message, error.temporary) == (100, "internal server error", True)
    assert player.call("rpc", "echo", 1) == {"data": 1}


def test_100_a_subscribe_that_failed_for_now_is_tried_again(enter: Enter, site: Site, name: Name) -> None:
    room, player = name("room"), enter()
    site.order("trick", group=room, what=["raise"] * 2)
    player.connect()
    player.subscription(room)
    for _ in range(2):
        assert player.next("error", room)["error"]["code"] == 100
    player.next("subscribed", room)
    site.publish(room, 1)
    assert player.data(room, 1) == [1]


@pytest.mark.parametrize("code", [100, 111, 1234])
def test_a_subscribe_that_the_application_refuses_is_over(enter: Enter, site: Site, name: Name, code: int) -> None:
    room, player = name("room"), enter()
    site.order("trick", group=room, what=[f"reply {code}"])
    player.connect()
    player.subscription(room)
    told = player.next("unsubscribed", room)
    assert (told["code"], told["reason"]) == (code, "as the test wants it")
    player.call("subscribe", channel=room)  # by hand it may
    player.next("subscribed", room)


def test_100_a_subscribe_is_answered_before_the_client_gives_up(enter: Enter, site: Site, name: Name) -> None:
    room, player = name("room"), enter("hasty")
    site.order("trick", group=room, what=["wait"])
    player.connect()
    player.subscription(room)
    assert player.next("error", room)["error"]["code"] == 100
    player.next("subscribed", room)
    assert player.came("connecting") == player.came("connecting")[:1]  # the connection has stayed


def test_100_a_connect_that_failed_for_now_is_tried_again(enter: Enter, site: Site, name: Name) -> None:
    room = name("connect")
    site.order("trick", group=room, what=["raise", "raise"])
    player = enter(data={"trick": room})
    player.start()
    for _ in range(2):
        assert player.next("error")["error"]["code"] == 100
    player.next("connected")


def test_101_who_may_not_connect_stays_away(enter: Enter) -> None:
    player = enter("members")
    player.start()
    told = player.next("disconnected")
    assert (told["code"], told["reason"]) == (101, "unauthorized")
    assert player.state == "disconnected"


@pytest.mark.parametrize("beginning", ["secret", "nowhere"])
def test_103_what_one_may_not_have_and_what_there_is_not_are_the_same(enter: Enter, name: Name, beginning: str) -> None:
    room, player = name("secret") if beginning == "secret" else "nowhere", enter()
    player.connect()
    player.subscription(room)
    told = player.next("unsubscribed", room)
    assert (told["code"], told["reason"]) == (103, "permission denied")
    for method, args in (("publish", [{"n": 1}]), ("history", [{"limit": 1}]), ("presence", []), ("presenceStats", [])):
        error = player.refused(method, room, *args)
        assert (error.code, error.message, error.temporary) == (103, "permission denied", False)
    assert player.state == "connected"


def test_103_the_history_of_a_group_is_for_its_subscribers(enter: Enter, name: Name) -> None:
    log, player = name("log"), enter()
    player.connect()
    assert player.refused("history", log, {"limit": 1}).code == 103


@pytest.mark.parametrize("method", ["no.such", "__init__", "echo ", "x" * 200, ""])
def test_104_there_is_no_such_method(enter: Enter, method: str) -> None:
    player = enter()
    player.connect()
    assert player.refused("rpc", method, None).code == 104


def test_105_one_group_by_two_names(enter: Enter, name: Name) -> None:
    room, player = name("room"), enter()
    player.connect()
    player.subscribe(room)
    player.subscription(f"alias:{room}")
    told = player.next("unsubscribed", f"alias:{room}")
    assert (told["code"], told["reason"]) == (105, "already subscribed")


def test_106_no_more_subscriptions_than_one_may_have(enter: Enter, name: Name) -> None:
    player, rooms = enter("tight"), [name(f"room{n}") for n in range(3)]
    player.connect()
    for room in rooms[:2]:
        player.subscribe(room)
    player.subscription(rooms[2])
    assert player.next("unsubscribed", rooms[2])["code"] == 106
    player.call("unsubscribe", channel=rooms[0])
    player.call("subscribe", channel=rooms[2])
    player.next("subscribed", rooms[2])


@pytest.mark.parametrize("channel", ["no blanks", "ü", "x" * 300])
def test_107_no_group_has_such_a_name(enter: Enter, channel: str) -> None:
    player = enter()
    player.connect()
    player.subscription(channel)
    assert player.next("unsubscribed", channel)["code"] == 107


def test_108_a_group_without_history_or_presence(enter: Enter, name: Name) -> None:
    room, player = name("room"), enter()
    player.connect()
    player.subscribe(room)
    for method, args in (("history", [{"limit": 1}]), ("presence", []), ("presenceStats", [])):
        error = player.refused(method, *args, channel=room)
        assert (error.code, error.message) == (108, "not available")


def test_111_too_many_commands_are_refused_and_far_too_many_end_it(enter: Enter) -> None:
    player = enter("tight", minReconnectDelay=20_000)
    player.connect()
    answers = [player.begin("call", method="rpc", args=["echo", n]) for n in range(6)]
    assert [player.stage.finish(number) for number in answers[:5]] == [{"data": n} for n in range(5)]
    error = player.refused("rpc", "echo", 6)
    assert (error.code, error.temporary) == (111, True)
    player.next("connecting")
    for n in range(60):
        player.begin("call", method="rpc", args=["echo", n])
    told = player.next("connecting")
    assert (told["code"], told["reason"]) == (3013, "too many requests")


def test_112_a_history_from_a_position_that_is_gone(enter: Enter, site: Site, name: Name) -> None:
    log, player = name("brief"), enter()
    site.publish(log, *range(6))
    player.connect()
    player.subscribe(log)
    epoch, _ = site.order("top", group=log)
    for since in ({"offset": 1, "epoch": epoch}, {"offset": 5, "epoch": "another"}, {"offset": 99, "epoch": epoch}):
        error = player.refused("history", {"limit": 10, "since": since}, channel=log)
        assert (error.code, error.message) == (112, "unrecoverable position")


def test_112_a_client_that_loads_its_state_itself_is_asked_for_it_anew(enter: Enter, site: Site, name: Name) -> None:
    log, player = name("brief"), enter()
    site.publish(log, *range(6))
    epoch, offset = site.order("top", group=log)
    player.connect()
    player.subscription(log, state=True)
    player.answer("get_state", {"offset": 1, "epoch": epoch}, channel=log)  # is gone: it is asked again
    player.answer("get_state", {"offset": offset - 1, "epoch": epoch}, channel=log)
    assert player.next("subscribed", log)["recovered"] is True
    assert player.data(log, 1) == [5]


def test_108_subscriptions_of_other_kinds(node_stage: Stage, site: Site, name: Name) -> None:
    player = Player(node_stage, "", f"ws://127.0.0.1:{site.port}/live")
    player.connect()
    room = name("room")
    player.order("subscription", channel=room, kind="map")
    player.call("subscribe", channel=room)
    assert player.next("unsubscribed", room)["code"] == 108
    player.close()
