"""What the official clients get after a break: everything, or the word that something is missing."""

from __future__ import annotations

from typing import Any

from antiphon.testing.faults import Proxy
from tests.clients.conftest import Enter, Name
from tests.clients.players import Player
from tests.clients.site import Site


def away(wire: Proxy) -> None:
    """Cut the network, and keep it cut."""
    wire.refuse()
    wire.cut()


def back(player: Player, wire: Proxy, channel: str) -> dict[str, Any]:
    """Mend the network; return what the client hears when it has subscribed again."""
    wire.refuse(False)
    return player.next("subscribed", channel)


def through(wire: Proxy) -> int:
    """Return the port of a network."""
    assert isinstance(wire.address, tuple)
    return wire.address[1]


def test_everything_comes_after_a_cut_in_order_and_once(enter: Enter, site: Site, wire: Proxy, name: Name) -> None:
    log, player = name("log"), enter(port=through(wire))
    player.connect()
    first = player.subscribe(log)
    assert (first["recoverable"], first["positioned"], first["wasRecovering"]) == (True, True, False)
    site.publish(log, 1, 2)
    assert player.data(log, 2) == [1, 2]
    away(wire)
    site.publish(log, 3, 4, 5)
    again = back(player, wire, log)
    assert (again["wasRecovering"], again["recovered"]) == (True, True)
    site.publish(log, 6)
    told = [player.next("publication", log) for _ in range(4)]
    assert [(each["data"], each["offset"]) for each in told] == [(3, 3), (4, 4), (5, 5), (6, 6)]
    assert player.came("publication") == []


def test_cuts_while_messages_come_lose_and_double_nothing(enter: Enter, site: Site, wire: Proxy, name: Name) -> None:
    logs, player, count = [name("log"), name("log2")], enter(port=through(wire)), 40
    player.connect()
    for log in logs:
        player.subscribe(log)
    for n in range(count):
        for log in logs:
            site.publish(log, n)
        if n % 10 == 5:
            wire.cut()
    for log in logs:
        assert player.data(log, count) == list(range(count))
        site.publish(log, "end")
        assert player.data(log, 1) == ["end"]
    assert player.came("publication") == []


def test_nothing_was_missed_by_a_client_that_missed_nothing(enter: Enter, site: Site, wire: Proxy, name: Name) -> None:
    log, player = name("log"), enter(port=through(wire))
    site.publish(log, 1)
    player.connect()
    player.subscribe(log)
    away(wire)
    again = back(player, wire, log)
    assert (again["wasRecovering"], again["recovered"]) == (True, True)
    site.publish(log, 2)
    assert player.data(log, 1) == [2]
    assert player.came("publication") == []


def test_a_client_hears_that_the_history_was_too_short(enter: Enter, site: Site, wire: Proxy, name: Name) -> None:
    log, player = name("brief"), enter(port=through(wire))
    player.connect()
    player.subscribe(log)
    site.publish(log, 1)
    assert player.data(log, 1) == [1]
    away(wire)
    site.publish(log, 2, 3, 4, 5, 6)
    again = back(player, wire, log)
    assert (again["wasRecovering"], again["recovered"]) == (True, False)
    site.publish(log, 7)
    assert player.data(log, 1) == [7]
    away(wire)
    site.publish(log, 8, 9)
    assert back(player, wire, log)["recovered"] is True  # from where it then was
    assert player.data(log, 2) == [8, 9]


def test_a_group_without_history_begins_anew(enter: Enter, site: Site, wire: Proxy, name: Name) -> None:
    room, player = name("room"), enter(port=through(wire))
    player.connect()
    player.subscribe(room)
    away(wire)
    site.publish(room, "lost")
    assert back(player, wire, room)["recovered"] is False
    site.publish(room, "heard")
    assert player.data(room, 1) == ["heard"]


def test_of_a_cache_the_newest_alone_comes(enter: Enter, site: Site, wire: Proxy, name: Name) -> None:
    last, player = name("last"), enter(port=through(wire))
    player.connect()
    player.subscribe(last)
    site.publish(last, 1)
    assert player.data(last, 1) == [1]
    for values in ([2, 3, 4], list(range(5, 25))):  # more than is kept, too
        away(wire)
        site.publish(last, *values)
        again = back(player, wire, last)
        assert (again["wasRecovering"], again["recovered"]) == (True, True)
        assert player.data(last, 1) == [values[-1]]
    away(wire)
    assert back(player, wire, last)["recovered"] is True
    site.publish(last, "next")
    assert player.data(last, 1) == ["next"]
    assert player.came("publication") == []


def test_of_a_cache_the_newest_comes_after_an_epoch_has_ended(
    enter: Enter, site: Site, wire: Proxy, name: Name
) -> None:
    last, player = name("last"), enter(port=through(wire))
    player.connect()
    player.subscribe(last)
    site.publish(last, 1)
    assert player.data(last, 1) == [1]
    away(wire)
    site.order("forget_logs")
    site.publish(last, 2, 3)
    assert back(player, wire, last)["recovered"] is True
    assert player.data(last, 1) == [3]


def test_2500_a_new_epoch_is_told_while_the_client_is_there(enter: Enter, site: Site, name: Name) -> None:
    log, player = name("log"), enter()
    player.connect()
    old = player.subscribe(log)["streamPosition"]["epoch"]
    site.publish(log, 1)
    assert player.data(log, 1) == [1]
    player.next("subscribing", log)
    site.order("forget_logs")
    site.publish(log, 2)
    told = player.next("subscribing", log)
    assert (told["code"], told["reason"]) == (2500, "insufficient state")
    again = player.next("subscribed", log)
    assert (again["wasRecovering"], again["recovered"]) == (True, False)
    assert again["streamPosition"]["epoch"] != old
    site.publish(log, 3)
    assert player.data(log, 1) == [3]
    assert len(player.came("connecting")) == 1


def test_a_new_epoch_is_told_to_a_client_that_was_away(enter: Enter, site: Site, wire: Proxy, name: Name) -> None:
    log, player = name("log"), enter(port=through(wire))
    player.connect()
    player.subscribe(log)
    site.publish(log, 1)
    assert player.data(log, 1) == [1]
    away(wire)
    site.order("forget_logs")
    site.publish(log, 2, 3, 4)
    assert back(player, wire, log)["recovered"] is False
    site.publish(log, 5)
    assert player.data(log, 1) == [5]
    away(wire)
    site.publish(log, 6)
    assert back(player, wire, log)["recovered"] is True  # in the new epoch
    assert player.data(log, 1) == [6]


def test_a_page_begins_where_its_data_was_read(enter: Enter, site: Site, name: Name) -> None:
    log, player = name("log"), enter()
    site.publish(log, 1, 2)
    epoch, offset = site.order("top", group=log)
    site.publish(log, 3, 4)
    player.connect()
    player.subscription(log, state=True)
    player.answer("get_state", {"offset": offset, "epoch": epoch}, channel=log)
    assert player.next("subscribed", log)["recovered"] is True
    site.publish(log, 5)
    assert player.data(log, 3) == [3, 4, 5]


def test_a_client_that_comes_back_by_itself_gets_what_it_missed(enter: Enter, site: Site, name: Name) -> None:
    log, player = name("log"), enter()
    player.connect()
    player.subscribe(log)
    site.publish(log, 1)
    assert player.data(log, 1) == [1]
    player.call("disconnect")
    player.next("disconnected")
    site.publish(log, 2)
    player.connect()
    assert player.next("subscribed", log)["recovered"] is True
    assert player.data(log, 1) == [2]


def test_who_asks_for_deltas_gets_whole_publications(enter: Enter, site: Site, name: Name) -> None:
    log, player = name("log"), enter()
    player.connect()
    player.subscribe(log, delta="fossil")
    site.publish(log, {"n": 1}, {"n": 2})
    assert player.data(log, 2) == [{"n": 1}, {"n": 2}]
