"""Worker channels that are members of groups: the publisher knows of them in time."""

from __future__ import annotations

import time

import pytest

from antiphon.engines.redis.hosts import parse_hosts
from antiphon.testing.faults import ValkeyCluster, ValkeyServer
from tests.engines.redis.publisher.publishing import KEYS, Lua, bind, noting, publishing
from tests.waiting import eventually


def test_a_binding_is_known_to_every_connection_at_the_publish_after_it(shared: ValkeyServer) -> None:
    shared.command("FLUSHALL")
    with publishing(shared.url) as publisher:
        noted = noting(publisher)
        lines = [publisher._pool.take(parse_hosts([shared.url])[0].address, 1.0) for _ in range(4)]  # type: ignore[union-attr]
        for line in lines:
            publisher._pool.give(line)
        for number in range(20):
            publisher.publish("g:a", b"before")
            bind(shared, "g:a", f"w{number}", 60)
            # Each time on another of the connections, some of which have not been used for a while.
            lent = [publisher._pool.take(lines[0].address, 1.0) for _ in range(number % 4)]
            publisher.publish("g:a", b"after")
            assert noted[-1] == ("g:a", b"after", sorted(f"w{n}" for n in range(number + 1)))
            for line in lent:
                publisher._pool.give(line)
        publisher.publish("g:b", b"other")
        assert noted[-1][1] == b"after"
        assert publisher.connections_made == 4


def test_a_binding_ends_by_the_servers_clock_and_by_removal_and_by_a_flush(shared: ValkeyServer) -> None:
    shared.command("FLUSHALL")
    with publishing(shared.url) as publisher:
        noted = noting(publisher)
        bind(shared, "g:a", "short", 1.5)
        bind(shared, "g:a", "long", 60)
        publisher.publish("g:a", b"1")
        time.sleep(1.6)
        publisher.publish("g:a", b"2")
        shared.command("ZREM", KEYS.bound, b"g:a\0long")
        publisher.publish("g:a", b"3")
        bind(shared, "g:a", "again", 60)
        publisher.publish("g:a", b"4")
        shared.command("FLUSHALL")
        publisher.publish("g:a", b"5")
        assert noted == [("g:a", b"1", ["long", "short"]), ("g:a", b"2", ["long"]), ("g:a", b"4", ["again"])]


def test_publishes_cost_one_round_trip_while_nothing_is_bound_anew(shared: ValkeyServer) -> None:
    shared.command("FLUSHALL")
    with publishing(shared.url) as publisher:
        noting(publisher)
        publisher.publish("g:a", b"x")
        before = int(shared.info("stats")["total_commands_processed"])
        for _ in range(100):
            publisher.publish("g:a", b"x")
        asked = int(shared.info("stats")["total_commands_processed"]) - before
        assert 100 <= asked <= 102  # and the INFO


def test_the_callback_may_publish_and_run_scripts_itself(shared: ValkeyServer) -> None:
    shared.command("FLUSHALL")
    bind(shared, "g:a", "w", 60)
    with publishing(shared.url) as publisher:
        answers: list[object] = []
        publisher.on_bound = lambda *_: answers.append(publisher.script(Lua("return 7"), KEYS.queue("w"), [], []))
        publisher.publish("g:a", b"x")
        assert answers == [7]
        assert publisher.connections_made == 1


def test_where_changes_are_not_announced_a_binding_is_known_after_a_look(caplog: pytest.LogCaptureFixture) -> None:
    users = [("default", "on", "nopass", "~*", "&*", "+@all", "-client|tracking")]
    with ValkeyServer(user=users) as server, publishing(server.url) as publisher:
        noted = noting(publisher)
        bind(server, "g:a", "old", 60)
        publisher.publish("g:a", b"1")
        assert noted == [("g:a", b"1", ["old"])]
        bind(server, "g:a", "new", 60)

        def known() -> bool:
            publisher.publish("g:a", b"2")
            return noted[-1][2] == ["new", "old"]

        assert eventually(known)
        assert len([record for record in caplog.records if "CLIENT TRACKING" in record.message]) == 1


def test_a_binding_on_another_host_is_known_after_a_look(shared: ValkeyServer) -> None:
    shared.command("FLUSHALL")
    with ValkeyServer() as other, publishing(shared.tcp_url, other.tcp_url) as publisher:
        noted = noting(publisher)
        pool = publisher._pool
        home = shared if pool.known_address_of(KEYS.bound) == parse_hosts([shared.tcp_url])[0].address else other  # type: ignore[union-attr]
        away = next(
            topic
            for topic in (f"g:{number}" for number in range(99))
            if pool.known_address_of(KEYS.channel(topic)) != pool.known_address_of(KEYS.bound)
        )
        publisher.publish(away, b"1")
        bind(home, away, "w", 60)

        def known() -> bool:
            publisher.publish(away, b"2")
            return bool(noted)

        assert eventually(known)
        assert noted[-1] == (away, b"2", ["w"])


def test_bindings_of_a_cluster_are_known_at_home_at_once_and_elsewhere_after_a_look(cluster: ValkeyCluster) -> None:
    home = cluster.node_of(KEYS.bound)
    topics = {cluster.node_of(KEYS.channel(f"g:{n}")).port: f"g:{n}" for n in range(40)}
    with publishing(*cluster.hosts, cluster=True) as publisher:
        noted = noting(publisher)
        for topic in topics.values():
            publisher.publish(topic, b"0")
        for topic in topics.values():
            bind(home, topic, "w", 60)
        publisher.publish(topics[home.port], b"1")
        assert noted == [(topics[home.port], b"1", ["w"])]
        away = next(topic for port, topic in topics.items() if port != home.port)

        def known() -> bool:
            publisher.publish(away, b"2")
            return len(noted) > 1

        assert eventually(known)
        assert noted[-1] == (away, b"2", ["w"])
