"""How connections and subscriptions end, and which of them the official clients begin again."""

from __future__ import annotations

from collections.abc import Callable, Iterator

import pytest

from antiphon.testing.faults import Proxy
from tests.clients.conftest import Enter, Name, staged
from tests.clients.players import Player, Stage
from tests.clients.site import Site
from tests.waiting import eventually

NewUser = Callable[[], int]


@pytest.fixture
def new_user(site: Site, name: Name) -> NewUser:
    """Make a user that a test may do away with."""
    return lambda: int(site.order("user", name=name("user")))


def test_pings_are_answered_while_nothing_else_happens(enter: Enter, wire: Proxy) -> None:
    assert isinstance(wire.address, tuple)
    player = enter("quick", port=wire.address[1])
    player.connect()
    for _ in range(2):
        up, down = wire.bytes_up, wire.bytes_down
        assert eventually(lambda: wire.bytes_down > down and wire.bytes_up > up)  # noqa: B023
    assert player.state == "connected"
    assert len(player.came("connecting")) == 1


def test_a_client_that_hears_no_pings_comes_back(enter: Enter, site: Site, wire: Proxy, name: Name) -> None:
    log = name("log")
    assert isinstance(wire.address, tuple)
    player = enter("quick", port=wire.address[1], maxServerPingDelay=500)
    player.connect()
    player.subscribe(log)
    player.next("connecting")
    wire.black_hole()
    told = player.next("connecting")
    assert (told["code"], told["reason"]) == (2, "no ping")
    site.publish(log, 1)
    wire.cut()
    wire.black_hole(False)
    assert player.next("subscribed", log)["recovered"] is True
    assert player.data(log, 1) == [1]


@pytest.fixture(params=["node", "python"])
def own_stage(request: pytest.FixtureRequest) -> Iterator[Stage]:
    """A process of clients that may be stopped in its tracks."""
    yield from staged(request.param)


def test_3012_a_client_that_does_not_answer_pings_comes_back(own_stage: Stage, site: Site, name: Name) -> None:
    log, player = name("log"), Player(own_stage, "", f"ws://127.0.0.1:{site.port}/stern")
    player.connect()
    player.subscribe(log)
    player.next("connecting")
    before = len(site.order("ends"))
    own_stage.pause()
    try:
        site.publish(log, 1)
        assert eventually(lambda: len(site.order("ends")) > before)
        site.publish(log, 2)
    finally:
        own_stage.resume()
    told = player.next("connecting")
    assert (told["code"], told["reason"]) == (3012, "no pong")
    assert player.next("subscribed", log)["recovered"] is True
    assert player.data(log, 2) == [1, 2]
    player.close()


def test_3506_the_binary_protocol_is_refused(node_stage: Stage, python_stage: Stage, site: Site) -> None:
    for stage in (node_stage, python_stage):
        player = Player(stage, "", f"ws://127.0.0.1:{site.port}/live", binary=True)
        player.start()
        told = player.next("disconnected")
        assert (told["code"], told["reason"]) == (3506, "inappropriate protocol")
        player.close()


def test_3501_a_message_that_is_too_large(enter: Enter, name: Name) -> None:
    player = enter("tight")
    player.connect()
    player.call("publish", name("room"), "x" * 800)
    player.begin("call", method="publish", args=[name("room"), "x" * 1000])
    assert player.next("disconnected")["code"] == 3501


def test_3504_more_connections_than_a_user_may_have(enter: Enter, site: Site, new_user: NewUser) -> None:
    token = site.order("token", user=new_user())
    one, two = enter("tight", token=token), enter("tight", token=token)
    one.connect()
    two.start()
    assert two.next("disconnected")["code"] == 3504
    assert one.state == "connected"


def test_3503_a_user_who_is_closed_stays_away(enter: Enter, site: Site, new_user: NewUser, name: Name) -> None:
    user, room = new_user(), name("room")
    tokens = [site.order("token", user=user)] * 2 + [site.order("token", user=new_user())]
    players = [enter(token=token) for token in tokens]
    for player in players:
        player.connect()
        player.subscribe(room)
    site.order("call", method="close_user", args=[user])
    for player in players[:2]:
        told = player.next("disconnected")
        assert (told["code"], told["reason"]) == (3503, "revoked")
    assert players[2].state == "connected"
    players[0].connect()  # by hand it may: its token is still good
    players[0].next("subscribed", room)


def test_revoking_a_user_ends_connections_and_tokens(enter: Enter, site: Site, new_user: NewUser) -> None:
    user = new_user()
    player = enter(token=site.order("token", user=user))
    player.connect()
    site.order("revoke", user=user)
    assert player.next("disconnected")["code"] == 3503
    player.start()
    assert player.next("disconnected")["code"] == 3500
    again = enter(token=site.order("token", user=user))
    again.connect()


@pytest.mark.parametrize("change", [{"password": "another"}, {"is_active": False}], ids=["password", "inactive"])
def test_a_changed_password_and_a_dead_account_end_connections_and_tokens(
    enter: Enter, site: Site, new_user: NewUser, change: dict[str, object]
) -> None:
    user = new_user()
    player = enter(token=site.order("token", user=user))
    player.connect()
    site.order("change", user=user, **change)
    assert player.next("disconnected")["code"] in (3500, 3503)
    player.start()
    assert player.next("disconnected")["code"] == 3500


# Subscriptions


def test_2000_a_user_is_put_out_of_a_group(enter: Enter, site: Site, new_user: NewUser, name: Name) -> None:
    user, room, other = new_user(), name("room"), name("other")
    player, neighbour = enter(token=site.order("token", user=user)), enter()
    for each in (player, neighbour):
        each.connect()
        each.subscribe(room)
        each.subscribe(other)
    site.order("call", method="unsubscribe_user", args=[user, room])
    told = player.next("unsubscribed", room)
    assert (told["code"], told["reason"]) == (2000, "server unsubscribe")
    site.publish(room, 1)
    site.publish(other, 2)
    assert neighbour.data(room, 1) == [1]
    assert player.data(other, 1) == [2]
    player.call("subscribe", channel=room)  # by hand it may
    player.next("subscribed", room)
    site.publish(room, 3)
    assert player.data(room, 1) == [3]


@pytest.mark.parametrize("path", ["quick", "live"])
def test_2003_a_permission_that_was_lost_ends_the_subscription(
    enter: Enter, site: Site, new_user: NewUser, name: Name, path: str
) -> None:
    user, room, other = new_user(), name("room"), name("other")
    player = enter(path, token=site.order("token", user=user))
    player.connect()
    player.subscribe(room)
    player.subscribe(other)
    site.order("trick", group=room, what=["deny"])
    if path == "live":  # else it is asked again at intervals
        site.order("call", method="recheck_user", args=[user])
    told = player.next("unsubscribed", room)
    assert (told["code"], told["reason"]) == (2003, "permission denied")
    site.publish(room, 1)
    site.publish(other, 2)
    assert player.data(other, 1) == [2]


def test_a_recheck_that_fails_by_itself_ends_nothing(enter: Enter, site: Site, new_user: NewUser, name: Name) -> None:
    user, room = new_user(), name("room")
    player = enter(token=site.order("token", user=user))
    player.connect()
    player.subscribe(room)
    site.order("trick", group=room, what=["raise", "deny"])
    site.order("call", method="recheck_user", args=[user])
    assert eventually(lambda: site.order("tricks", group=room) == ["deny"])
    site.publish(room, 1)
    assert player.data(room, 1) == [1]
    site.order("call", method="recheck_user", args=[user])
    assert player.next("unsubscribed", room)["code"] == 2003
