"""Each command of the official clients, and each error that one may be answered with."""

from __future__ import annotations

from tests.clients.conftest import Enter, Name
from tests.clients.players import Player, Stage
from tests.clients.site import Site


def test_a_client_connects_and_hears_what_the_application_says(enter: Enter) -> None:
    player = enter(data={"who": "me"})
    connected = player.connect()
    assert len(connected["client"]) == 36
    assert connected["data"] == {"hello": {"who": "me"}}
    assert player.state == "connected"
    player.call("disconnect")
    assert player.next("disconnected")["code"] == 0


def test_a_subscriber_gets_what_the_group_is_sent(enter: Enter, site: Site, name: Name) -> None:
    room, player = name("room"), enter()
    player.connect()
    subscribed = player.subscribe(room)
    assert (subscribed["recoverable"], subscribed["wasRecovering"]) == (False, False)
    site.publish(room, {"text": "é ☃ 𝄞"}, [1, 2.5, None, True], "", 0)
    assert player.data(room, 4) == [{"text": "é ☃ 𝄞"}, [1, 2.5, None, True], "", 0]
    site.order("send", group=room, message={"type": "whole", "n": 1})
    assert player.data(room, 1) == [{"type": "whole", "n": 1}]
    site.publish(room, 1, tags={"kind": "news"})
    assert player.next("publication", room)["tags"] == {"kind": "news"}


def test_a_client_publishes_and_says_who_it_is(enter: Enter, name: Name) -> None:
    room, one, two = name("room"), enter("foreign", token="ann"), enter()
    client = one.connect()["client"]
    two.connect()
    one.subscribe(room)
    two.subscribe(room)
    one.call("publish", {"n": 1}, channel=room)
    for player in (one, two):
        told = player.next("publication", room)
        assert told["data"] == {"n": 1}
        assert (told["info"]["client"], told["info"]["user"]) == (client, "ann")
        assert told["info"]["connInfo"] == {"name": "Ann"}
    two.call("publish", room, {"n": 2})  # without its subscription
    assert one.data(room, 1) == [{"n": 2}]


def test_an_unsubscribed_client_hears_nothing_and_may_come_back(enter: Enter, site: Site, name: Name) -> None:
    room, other, player = name("room"), name("other"), enter()
    player.connect()
    player.subscribe(room)
    player.subscribe(other)
    player.call("unsubscribe", channel=room)
    assert player.next("unsubscribed", room)["code"] == 0
    site.publish(room, "lost")
    site.publish(other, "heard")
    assert player.data(other, 1) == ["heard"]
    player.call("subscribe", channel=room)
    player.next("subscribed", room)
    site.publish(room, "back")
    assert player.data(room, 1) == ["back"]


def test_many_subscriptions_before_the_connect(enter: Enter, site: Site, name: Name) -> None:
    player, rooms = enter(), [name(f"room{n}") for n in range(30)]
    for room in rooms:
        player.subscription(room)
    player.connect()
    for room in rooms:
        player.next("subscribed", room)
        site.publish(room, room)
    assert [player.data(room, 1) for room in rooms] == [[room] for room in rooms]


def test_the_application_tells_something_with_the_subscription(enter: Enter, name: Name) -> None:
    room, player = name("told"), enter()
    player.connect()
    assert player.subscribe(room)["data"] == {"topic": room}


def test_a_call_has_its_answer(enter: Enter) -> None:
    player = enter("foreign", token="ann")
    client = player.connect()["client"]
    assert player.call("rpc", "echo", {"deep": [1, {"a": None}]}) == {"data": {"deep": [1, {"a": None}]}}
    said = player.call("rpc", "who.am.i", None)["data"]
    assert said == {"user": "ann", "client": client, "info": {"name": "Ann"}}


def test_a_message_without_an_answer_is_heard(node_stage: Stage, chromium_stage: Stage, site: Site) -> None:
    # The Python client sends no such messages, and takes none.
    for stage in (node_stage, chromium_stage):
        player = Player(stage, f"http://127.0.0.1:{site.port}/page", f"ws://127.0.0.1:{site.port}/live")
        player.connect()
        player.call("send", {"n": 1})
        assert player.next("message")["data"] == {"heard": {"n": 1}}
        player.close()


def test_a_history_is_read_in_pieces(enter: Enter, site: Site, name: Name) -> None:
    log, player = name("log"), enter()
    site.publish(log, *range(1, 8))
    player.connect()
    player.subscribe(log)
    epoch, _ = site.order("top", group=log)
    top = player.call("history", {"limit": 0}, channel=log)
    assert (top["publications"], top["offset"], top["epoch"]) == ([], 7, epoch)

    def read(**options: object) -> list[int]:
        return [each["data"] for each in player.call("history", log, options)["publications"]]

    assert read(limit=-1) == [1, 2, 3, 4, 5, 6, 7]
    assert read(limit=3) == [1, 2, 3]
    assert read(limit=3, reverse=True) == [7, 6, 5]
    assert read(limit=2, since={"offset": 3, "epoch": epoch}) == [4, 5]
    assert read(limit=2, since={"offset": 3, "epoch": epoch}, reverse=True) == [2, 1]
    found = player.call("history", {"limit": 1, "reverse": True}, channel=log)["publications"]
    assert (found[0]["offset"], found[0]["data"]) == (7, 7)
