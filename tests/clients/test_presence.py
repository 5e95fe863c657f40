"""Who is in a group: asked for, and told as they come and go."""

from __future__ import annotations

from typing import Any

from tests.clients.conftest import Enter, Name
from tests.clients.players import Player
from tests.clients.site import Site
from tests.waiting import eventually


def told_of(user: str, player: Player, event: str, channel: str) -> dict[str, Any]:
    """Take what a client is told of a user; what comes before is of those whom nobody knows: itself, and others."""
    while (told := player.next(event, channel))["info"]["user"] != user:
        assert told["info"]["user"] == ""
    return told


def test_a_client_asks_who_is_there(enter: Enter, site: Site, user: int, name: Name) -> None:
    here = name("here")
    token = site.order("token", user=user, info={"name": "Ann"})
    players = [enter(token=token), enter(token=token), enter("foreign", token="bob")]
    clients = []
    for player in players:
        clients.append(player.connect()["client"])
        player.subscribe(here)
    present = players[0].call("presence", channel=here)["clients"]
    assert set(present) == set(clients)
    for client, key, info in zip(clients, [str(user), str(user), "bob"], ["Ann", "Ann", "Bob"], strict=True):
        assert (present[client]["client"], present[client]["user"]) == (client, key)
        assert present[client]["connInfo"] == {"name": info}
    assert players[2].call("presenceStats", here) == {"numClients": 3, "numUsers": 2}
    players[0].call("unsubscribe", channel=here)
    players[0].next("unsubscribed", here)
    assert eventually(lambda: players[1].call("presenceStats", channel=here) == {"numClients": 2, "numUsers": 2})
    assert players[0].refused("presence", here).code == 103


def test_who_asks_for_it_is_told_who_comes_and_goes(enter: Enter, name: Name) -> None:
    here, host, guest, deaf = name("here"), enter(), enter("foreign", token="ann"), enter()
    host.connect()
    host.subscribe(here, joinLeave=True)
    deaf.connect()
    deaf.subscribe(here)
    client = guest.connect()["client"]
    guest.subscribe(here)
    joined = told_of("ann", host, "join", here)["info"]
    assert (joined["client"], joined["connInfo"]) == (client, {"name": "Ann"})
    guest.call("disconnect")
    told_of("ann", host, "leave", here)
    assert deaf.came("join") == deaf.came("leave") == []


def test_two_tabs_are_one_user(enter: Enter, name: Name) -> None:
    here, host, tabs = name("here"), enter(), [enter("foreign", token="ann") for _ in range(2)]
    host.connect()
    host.subscribe(here, joinLeave=True)
    for tab in tabs:
        tab.connect()
        tab.subscribe(here)
    told_of("ann", host, "join", here)
    tabs[0].call("disconnect")
    tabs[1].call("unsubscribe", channel=here)
    told_of("ann", host, "leave", here)
    late = enter("foreign", token="bob")
    late.connect()
    late.subscribe(here)
    told_of("bob", host, "join", here)
    assert host.came("join") == []
    assert host.came("leave") == []
