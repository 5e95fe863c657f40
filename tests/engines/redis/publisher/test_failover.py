"""Sentinels and clusters: primaries that fail, hang and hand over, and slots that move."""

from __future__ import annotations

from contextlib import ExitStack

import pytest

from antiphon.envelope import MESSAGE, pack
from antiphon.testing.faults import ValkeyCluster, ValkeySentinel
from tests.engines.redis.publisher.publishing import KEYS, Listener, Lua, publishing
from tests.waiting import eventually


@pytest.mark.timeout(60)
def test_sentinels_lead_to_the_new_primary_and_away_from_the_old() -> None:
    with ValkeySentinel() as trio, publishing(*trio.hosts, timeout_s=30, retry_s=30) as publisher:
        assert publisher.publish("g:a", b"0") == 0
        old = trio.primary
        trio.failover("stop")
        with Listener(trio.primary, "g:a") as listener:
            payload = pack(MESSAGE, 1, 2, 3, b"body")
            # Written to the hung one, or not at all: either way it goes to the new one.
            publisher.timeout_s = 1
            assert publisher.publish("g:a", payload) == 1
            old.resume()  # and takes itself for the primary still
            for number in range(5):
                assert publisher.publish("g:a", b"%d" % number) == 1
            heard = listener.heard()
            assert heard[-5:] == [b"0", b"1", b"2", b"3", b"4"]
            assert len(heard) == 6


@pytest.mark.timeout(60)
def test_a_message_written_to_a_primary_that_hung_goes_to_its_successor() -> None:
    payload = pack(MESSAGE, 1, 2, 3, b"body")
    with ValkeySentinel() as trio, publishing(*trio.hosts, timeout_s=0.5, retry_s=40) as publisher:
        publisher.publish("g:a", payload)
        replica = trio.replica
        trio.primary.stop()
        publisher.publish("g:a", payload)  # raises unless some server has taken it
        (line,) = publisher._pool._lines
        assert line.address.port == replica.port
        assert line.sent == 1


@pytest.mark.timeout(60)
def test_an_ordered_failover_is_followed_within_seconds_though_the_old_primary_goes_on() -> None:
    with ValkeySentinel() as trio, publishing(*trio.hosts, timeout_s=30) as publisher:
        publisher.publish("g:a", b"0")
        new = trio.failover("command")
        with Listener(new, "g:a"):
            assert eventually(lambda: publisher.publish("g:a", b"1") == 1)
            assert publisher.publish("g:a", b"2") == 1


def test_a_cluster_gets_each_topic_on_its_own_server(cluster: ValkeyCluster) -> None:
    with publishing(cluster.hosts[0], cluster=True) as publisher:
        topics = [f"g:{number}" for number in range(12)]
        with ExitStack() as listeners:
            for topic in topics:
                listeners.enter_context(Listener(cluster.node_of(KEYS.channel(topic)), topic, sharded=True))
            for topic in topics * 2:
                assert publisher.publish(topic, b"x") == 1
        assert publisher.connections_made == 3


def test_a_moved_slot_is_followed_within_the_call(cluster: ValkeyCluster) -> None:
    with publishing(*cluster.hosts, cluster=True, timeout_s=30) as publisher:
        channel = KEYS.channel("g:moving")
        publisher.publish("g:moving", b"0")
        old = cluster.node_of(channel)
        new = next(each for each in cluster.primaries if each is not old)
        cluster.move_slot(cluster.slot_of(channel), new)
        with Listener(new, "g:moving", sharded=True):
            assert publisher.publish("g:moving", b"1") == 1
            assert publisher.publish("g:moving", b"2") == 1
        key = KEYS.queue("moving")
        owner = cluster.node_of(key)
        cluster.move_slot(cluster.slot_of(key), next(each for each in cluster.primaries if each is not owner))
        assert publisher.script(Lua("return redis.call('INCR', KEYS[1])"), key, [key], []) == 1


@pytest.mark.timeout(60)
def test_a_killed_primary_of_a_cluster_is_waited_for_until_its_replica_serves() -> None:
    with (
        ValkeyCluster(replicas=3) as cluster,
        publishing(*cluster.hosts, cluster=True, timeout_s=40, retry_s=40) as publisher,
    ):
        publisher.publish("g:a", b"0")
        cluster.node_of(KEYS.channel("g:a")).kill()
        assert publisher.publish("g:a", b"1") == 0
        other = next(f"g:{n}" for n in range(99) if cluster.slot_of(KEYS.channel(f"g:{n}")) > 16000)
        assert publisher.publish(other, b"2") == 0
