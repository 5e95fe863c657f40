"""Two server processes, one engine, no sticky sessions: sockets, and the ways without them."""

from __future__ import annotations

import os
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from antiphon.testing.faults import Proxy, ValkeyServer
from tests.clients.balancer import Balancer
from tests.clients.conftest import Name
from tests.clients.players import Player, Stage
from tests.clients.site import Site
from tests.waiting import eventually

Open = Callable[..., Player]


@pytest.fixture(scope="module")
def pair(database: Path, valkey: ValkeyServer) -> Iterator[list[Site]]:
    """Two servers that share an engine."""
    sites = [Site(database, valkey.url, f"pair{os.getpid()}") for _ in range(2)]
    for site in sites:
        site.start()
    yield sites
    for site in sites:
        site.close()


@pytest.fixture(scope="module")
def balancer(pair: list[Site]) -> Iterator[Balancer]:
    balancer = Balancer(*pair)
    yield balancer
    balancer.close()


@pytest.fixture
def enter_by(stage: Stage) -> Iterator[Open]:
    """Make clients that come by ways, the first that works: ``enter_by(port, "sse", token=…)``."""
    players: list[Player] = []

    def new(port: int, *ways: str, path: str = "live", **options: Any) -> Player:
        web, socket = f"http://127.0.0.1:{port}", f"ws://127.0.0.1:{port}"
        url: Any = f"{socket}/{path}"
        if ways != ("websocket",):
            endpoints = {"websocket": f"{socket}/nothing-here"}
            url = [{"transport": way, "endpoint": endpoints.get(way, f"{web}/{path}")} for way in ways]
            options["emulationEndpoint"] = f"{web}/{path}"
        player = Player(stage, f"{web}/page", url, **options)
        players.append(player)
        return player

    yield new
    for player in players:
        player.close()


def by(*cases: str) -> pytest.MarkDecorator:
    """Play a scenario by kinds of clients, each on a way of its own: "node sse"."""
    each = [pytest.param(*case.split(), id=case.replace(" ", "-")) for case in cases]
    return pytest.mark.parametrize(("stage", "way"), each, indirect=["stage"])


# The Python client knows WebSockets alone.
FALLBACKS = by("node http_stream", "node sse", "chromium http_stream", "chromium sse")


def test_clients_of_two_processes_hear_each_other(enter_by: Open, pair: list[Site], name: Name, database: Path) -> None:
    log, players = name("log"), [enter_by(site.port, "websocket") for site in pair]
    for player in players:
        player.connect()
        player.subscribe(log)
    for n, player in enumerate(players):
        player.call("publish", {"n": n}, channel=log)
    for player in players:
        assert sorted(each["n"] for each in player.data(log, 2)) == [0, 1]
    pair[0].publish(log, "out")
    for player in players:
        assert player.data(log, 1) == ["out"]


def test_a_user_is_closed_wherever_the_connections_are(enter_by: Open, pair: list[Site], name: Name) -> None:
    user = pair[0].order("user", name=name("user"))
    token, room = pair[0].order("token", user=user), name("room")
    players = [enter_by(site.port, "websocket", token=token) for site in pair]
    for player in players:
        player.connect()
        player.subscribe(room)
    pair[0].order("call", method="unsubscribe_user", args=[user, room])
    for player in players:
        assert player.next("unsubscribed", room)["code"] == 2000
    pair[1].order("call", method="close_user", args=[user])
    for player in players:
        assert player.next("disconnected")["code"] == 3503


@FALLBACKS
def test_a_fallback_does_all_that_a_socket_does(
    enter_by: Open, pair: list[Site], balancer: Balancer, name: Name, way: str
) -> None:
    log, other = name("log"), name("other")
    player = enter_by(balancer.port, way, data={"n": 1})
    connected = player.connect()
    assert (connected["transport"], connected["data"]) == (way, {"hello": {"n": 1}})
    balancer.asked()
    assert player.subscribe(log)["recoverable"] is True
    player.subscribe(other)
    for site in pair:
        site.publish(log, "line\nfeed")
    assert player.data(log, 2) == ["line\nfeed"] * 2
    player.call("publish", {"n": 1}, channel=log)
    assert player.data(log, 1) == [{"n": 1}]
    assert player.call("rpc", "echo", [1]) == {"data": [1]}
    assert player.refused("rpc", "no.such", None).code == 104
    assert player.call("history", {"limit": 1}, channel=log)["offset"] == 3
    player.call("send", "psst")
    assert player.next("message")["data"] == {"heard": "psst"}
    player.call("unsubscribe", channel=other)
    player.next("unsubscribed", other)
    player.subscription(name("secret"))
    asked = [port for line, port in balancer.asked() if line == "POST /live"]
    assert set(asked) == {site.port for site in pair}  # a request goes to either


@FALLBACKS
def test_a_client_falls_back_where_no_socket_passes(
    enter_by: Open, balancer: Balancer, pair: list[Site], name: Name, way: str
) -> None:
    room, player = name("room"), enter_by(balancer.port, "websocket", way)
    assert player.connect()["transport"] == way
    player.subscribe(room)
    pair[1].publish(room, 1)
    assert player.data(room, 1) == [1]


@FALLBACKS
def test_many_commands_of_a_fallback_keep_their_answers(enter_by: Open, balancer: Balancer, way: str) -> None:
    player = enter_by(balancer.port, way)
    player.connect()
    begun = [player.begin("call", method="rpc", args=["echo", n]) for n in range(30)]
    assert [player.stage.finish(number)["data"] for number in begun] == list(range(30))


@FALLBACKS
def test_pings_keep_a_fallback_alive(enter_by: Open, balancer: Balancer, way: str) -> None:
    player = enter_by(balancer.port, way, path="quick")
    player.connect()
    balancer.asked()
    pongs: list[Any] = []

    def answered() -> bool:
        pongs.extend(balancer.asked())
        return len(pongs) >= 2

    assert eventually(answered)
    assert player.state == "connected"
    assert len(player.came("connecting")) == 1


@FALLBACKS
def test_tokens_and_ends_are_told_over_a_fallback(
    enter_by: Open, balancer: Balancer, pair: list[Site], name: Name, way: str
) -> None:
    user = name("ann")
    player = enter_by(balancer.port, way, path="brief", token=f"for {user} {name('token')}", asks=True)
    player.connect()
    player.answer("get_token", f"for {user}")
    assert player.call("rpc", "who.am.i", None)["data"]["user"] == user
    pair[1].order("call", method="close_user", args=[user])
    told = player.next("disconnected")
    assert (told["code"], told["reason"]) == (3503, "revoked")
    forged = enter_by(balancer.port, way, token="nonsense")
    forged.start()
    assert forged.next("disconnected")["code"] == 3500


@FALLBACKS
def test_a_large_command_of_a_fallback_passes(enter_by: Open, balancer: Balancer, name: Name, way: str) -> None:
    room, player = name("room"), enter_by(balancer.port, way)
    player.connect()
    player.subscribe(room)
    player.call("publish", "x" * 60_000, channel=room)
    assert player.data(room, 1) == ["x" * 60_000]


@by("node http_stream", "chromium sse", "python websocket")
def test_a_process_dies_and_the_client_goes_on_in_the_other(
    enter_by: Open, database: Path, valkey: ValkeyServer, fresh_prefix: str, name: Name, way: str
) -> None:
    log, sites = name("log"), [Site(database, valkey.url, fresh_prefix) for _ in range(2)]
    for site in sites:
        site.start()
    balancer = Balancer(*sites)
    try:
        player = enter_by(balancer.port, way)
        player.connect()
        player.subscribe(log)
        sites[1].publish(log, 1, 2)
        assert player.data(log, 2) == [1, 2]
        opened = [port for line, port in balancer.asked() if line in ("GET /live", "POST /live")]
        dying, staying = sites if opened[0] == sites[0].port else sites[::-1]
        dying.close()
        staying.publish(log, 3, 4)
        assert player.next("subscribed", log)["recovered"] is True
        staying.publish(log, 5)
        assert player.data(log, 3) == [3, 4, 5]
        assert player.came("publication") == []
    finally:
        balancer.close()
        for site in sites:
            site.close()


@by("node websocket", "chromium http_stream", "python websocket")
def test_3001_a_server_that_is_replaced_loses_nothing(
    enter_by: Open, database: Path, valkey: ValkeyServer, fresh_prefix: str, name: Name, way: str
) -> None:
    log, sites = name("log"), [Site(database, valkey.url, fresh_prefix) for _ in range(2)]
    old, new = sites
    for site in sites:
        site.start()
    try:
        with Proxy(("127.0.0.1", old.port)) as front:
            assert isinstance(front.address, tuple)
            player = enter_by(front.address[1], way)
            player.connect()
            player.subscribe(log)
            new.publish(log, 1)
            assert player.data(log, 1) == [1]
            front.target = ("127.0.0.1", new.port)
            old.order("end")
            player.next("connecting", code=3001)
            new.publish(log, 2)
            assert player.next("subscribed", log)["recovered"] is True
            new.publish(log, 3)
            assert player.data(log, 2) == [2, 3]
            assert player.came("disconnected") == []
            player.close()
    finally:
        for site in sites:
            site.close()


@by("node sse", "python websocket")
def test_the_engine_restarts_empty_and_the_client_is_told(
    enter_by: Open, database: Path, own_valkey: ValkeyServer, fresh_prefix: str, name: Name, way: str
) -> None:
    log, site = name("log"), Site(database, own_valkey.url, fresh_prefix)
    site.start()
    try:
        player = enter_by(site.port, way)
        player.connect()
        player.subscribe(log)
        site.publish(log, 1)
        assert player.data(log, 1) == [1]
        player.next("subscribing", log)
        own_valkey.kill()
        own_valkey.restart()
        assert eventually(lambda: said(site, log))
        told = player.next("subscribing", log)
        assert (told["code"], told["reason"]) == (2500, "insufficient state")
        assert player.next("subscribed", log)["recovered"] is False
        site.publish(log, 3)
        player.next("publication", log, data=3)
        assert len(player.came("connecting")) == 1
    finally:
        site.close()


def said(site: Site, group: str) -> bool:
    """Publish something; False: it could not be."""
    try:
        site.publish(group, 2)
    except AssertionError:
        return False
    return True
