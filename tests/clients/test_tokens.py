"""Tokens of connections and of subscriptions: fetched, renewed, refused, and not renewed in time."""

from __future__ import annotations

import time

import pytest

from tests.clients.conftest import Enter, Name
from tests.clients.players import Player
from tests.clients.site import Site


def test_a_token_says_who_a_connection_is(enter: Enter, site: Site, user: int) -> None:
    player = enter(token=site.order("token", user=user, info={"name": "Ann"}))
    player.connect()
    said = player.call("rpc", "who.am.i", None)["data"]
    assert (said["user"], said["info"]) == (str(user), {"name": "Ann"})


def test_a_client_fetches_its_token(enter: Enter, site: Site, user: int) -> None:
    player = enter("members", asks=True)
    player.start()
    player.answer("get_token", refuse="later")
    player.next("error")
    player.answer("get_token", site.order("token", user=user))
    player.next("connected")
    assert player.call("rpc", "who.am.i", None)["data"]["user"] == str(user)


def test_a_client_that_gets_no_token_stays_away(enter: Enter) -> None:
    player = enter("members", asks=True)
    player.start()
    player.answer("get_token", refuse="unauthorized")
    told = player.next("disconnected")
    assert (told["code"], told["reason"]) == (1, "unauthorized")


def test_109_an_expired_token_has_the_client_fetch_a_new_one(
    enter: Enter, site: Site, user: int, old_tokens: tuple[str, str]
) -> None:
    player = enter(token=old_tokens[0], asks=True)
    player.start()
    player.answer("get_token", site.order("token", user=user))
    player.next("connected")
    assert player.call("rpc", "who.am.i", None)["data"]["user"] == str(user)


def test_109_an_expired_token_without_another_is_the_end(enter: Enter, old_tokens: tuple[str, str]) -> None:
    player = enter(token=old_tokens[0])
    player.start()
    told = player.next("disconnected")
    assert (told["code"], told["reason"]) == (1, "unauthorized")


@pytest.mark.parametrize("kind", ["nonsense", "of a subscription", "altered"])
def test_3500_a_token_that_is_none_ends_the_connection(enter: Enter, site: Site, user: int, kind: str) -> None:
    good = site.order("token", user=user)
    token = {
        "nonsense": "nonsense",
        "of a subscription": site.order("token", user=user, group="token_room"),
        "altered": good[:-3] + ("aaa" if good[-3:] != "aaa" else "bbb"),
    }[kind]
    player = enter(token=token)
    player.start()
    told = player.next("disconnected")
    assert (told["code"], told["reason"]) == (3500, "invalid token")


def test_a_token_is_renewed_while_the_connection_lasts(enter: Enter, site: Site, name: Name) -> None:
    room, player = name("room"), enter("brief", token=f"for ann {name('token')}", asks=True)
    player.connect()
    player.subscribe(room)
    player.answer("get_token", f"for ann {name('token')}")
    player.answer("get_token", "for ann")
    site.publish(room, 1)
    assert player.data(room, 1) == [1]
    assert len(player.came("connecting")) == 1


def test_110_a_token_is_not_renewed_by_one_that_has_expired(enter: Enter, name: Name) -> None:
    token = f"for ann {name('token')}"
    player = enter("brief", token=token, asks=True)
    player.connect()
    player.answer("get_token", token)
    told = player.next("disconnected")
    assert (told["code"], told["reason"]) == (110, "expired")


@pytest.mark.parametrize("other", ["for bob", "nonsense"])
def test_3500_a_token_is_not_renewed_by_another_users_or_by_none(enter: Enter, name: Name, other: str) -> None:
    player = enter("brief", token=f"for ann {name('token')}", asks=True)
    player.connect()
    player.answer("get_token", other)
    assert player.next("disconnected")["code"] == 3500


def answering(player: Player, token: str, until: str, channel: str | None = None) -> None:
    """Answer each question for a token, those from before, too, until something has come."""
    while not any(told.get("channel") == channel for told in player.came(until)):
        if player.came("get_token"):
            player.answer("get_token", token, channel=channel)
        time.sleep(0.01)


def test_3005_a_token_that_is_not_renewed_in_time(enter: Enter, name: Name) -> None:
    player = enter("strict", token=f"for ann {name('token')}", asks=True)
    player.connect()
    told = player.next("connecting", code=3005)
    assert told["reason"] == "connection expired"
    answering(player, "for ann", "connected")  # the old one was refused with 109


def test_a_client_that_cannot_renew_its_token_goes(enter: Enter, name: Name) -> None:
    player = enter("strict", token=f"for ann {name('token')}")
    player.connect()
    told = player.next("disconnected")
    assert (told["code"], told["reason"]) == (1, "unauthorized")


# Of subscriptions


def test_a_token_lets_into_a_group(enter: Enter, site: Site, user: int, name: Name) -> None:
    room, player = name("token"), enter(token=site.order("token", user=user))
    player.connect()
    player.subscription(room)
    assert player.next("unsubscribed", room)["code"] == 103
    other = name("token2")
    player.subscribe(other, token=site.order("token", user=user, group=other))
    site.publish(other, 1)
    assert player.data(other, 1) == [1]


def test_a_client_fetches_a_token_for_a_group(enter: Enter, site: Site, user: int, name: Name) -> None:
    room, player = name("token"), enter(token=site.order("token", user=user))
    player.connect()
    player.subscription(room, asks=True)
    player.answer("get_token", channel=room, refuse="later")
    player.next("error", room)
    player.answer("get_token", site.order("token", user=user, group=room), channel=room)
    player.next("subscribed", room)


def test_a_client_that_gets_no_token_for_a_group_does_without(enter: Enter, name: Name) -> None:
    room, player = name("token"), enter()
    player.connect()
    player.subscription(room, asks=True)
    player.answer("get_token", channel=room, refuse="unauthorized")
    told = player.next("unsubscribed", room)
    assert (told["code"], told["reason"]) == (1, "unauthorized")
    assert player.state == "connected"


@pytest.mark.parametrize("kind", ["nonsense", "another group", "another user", "of a connection"])
def test_103_a_token_for_something_else(enter: Enter, site: Site, user: int, name: Name, kind: str) -> None:
    room, other = name("token"), site.order("user", name=name("other"))
    token = {
        "nonsense": "nonsense",
        "another group": site.order("token", user=user, group=room + "2"),
        "another user": site.order("token", user=other, group=room),
        "of a connection": site.order("token", user=user),
    }[kind]
    player = enter(token=site.order("token", user=user))
    player.connect()
    player.subscription(room, token=token)
    assert player.next("unsubscribed", room)["code"] == 103
    assert player.state == "connected"


def test_109_an_expired_token_of_a_group(enter: Enter, site: Site, user: int, old_tokens: tuple[str, str]) -> None:
    room = "token_old"
    player = enter(token=site.order("token", user=user))
    player.connect()
    player.subscription(room, token=old_tokens[1], asks=True)
    player.answer("get_token", site.order("token", user=user, group=room), channel=room)
    player.next("subscribed", room)
    poor = enter(token=site.order("token", user=user))
    poor.connect()
    poor.subscription(room, token=old_tokens[1])
    told = poor.next("unsubscribed", room)
    assert (told["code"], told["reason"]) == (1, "unauthorized")


def test_a_token_of_a_group_is_renewed(enter: Enter, site: Site, name: Name) -> None:
    room, player = name("token"), enter("brief", token="for ann")
    player.connect()
    player.subscribe(room, token=f"for ann {name('token')}", asks=True)
    player.answer("get_token", f"for ann {name('token')}", channel=room)
    player.answer("get_token", "for ann", channel=room)
    site.publish(room, 1)
    assert player.data(room, 1) == [1]
    assert len(player.came("subscribing")) == 1


def test_103_a_token_of_a_group_is_not_renewed_by_another(enter: Enter, name: Name) -> None:
    room, player = name("token"), enter("brief", token="for ann")
    player.connect()
    player.subscribe(room, token=f"for ann {name('token')}", asks=True)
    player.answer("get_token", "for bob", channel=room)
    assert player.next("unsubscribed", room)["code"] == 103
    player.call("rpc", "echo", 1)


def test_2501_a_token_of_a_group_that_is_not_renewed_in_time(enter: Enter, name: Name) -> None:
    room, player = name("token"), enter("strict", token="for ann")
    player.connect()
    player.subscribe(room, token=f"for ann {name('token')}", asks=True)
    told = player.next("subscribing", room, code=2501)
    assert told["reason"] == "subscription expired"
    answering(player, "for ann", "subscribed", room)
