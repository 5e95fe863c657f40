"""Sentinels and clusters of real servers, and how they fail over."""

from __future__ import annotations

from typing import Any

import pytest

from antiphon.testing.faults import RespError, ValkeyCluster, ValkeySentinel
from tests.waiting import eventually


@pytest.mark.parametrize("how", ["kill", pytest.param("stop", marks=pytest.mark.soak)])
def test_sentinel_makes_the_replica_the_primary(how: Any) -> None:
    with ValkeySentinel() as service:
        old = service.primary
        old.command("SET", "key", "value")
        old.command("WAIT", 1, 2000)
        assert service.hosts[0]["master_name"] == "m"
        assert len(service.hosts[0]["sentinels"]) == 3
        new = service.failover(how)
        assert new is service.primary is not old
        assert service.replica is old
        assert new.command("GET", "key") == b"value"
        assert new.command("SET", "key", "another") == "OK"
        service.heal()
        assert eventually(lambda: old.command("GET", "key") == b"another")
        # Whichever it is now: Sentinels may have moved it meanwhile by themselves.
        again = service.failover(how)
        assert again is service.primary is not service.replica
        assert again.command("GET", "key") == b"another"


def test_a_cluster_serves_keys_on_each_node_and_moves_a_slot() -> None:
    with ValkeyCluster() as cluster:
        nodes = {cluster.node_of(slot).port: cluster.node_of(slot) for slot in (0, 8000, 16383)}
        assert set(nodes) == {each.port for each in cluster.primaries} == {each.port for each in cluster.servers}
        for number in range(20):
            assert cluster.command(f"key{number}", "SET", f"key{number}", number) == "OK"
        assert all(int(each.command("DBSIZE")) > 0 for each in cluster.primaries)
        source = cluster.node_of("key7")
        target = next(each for each in cluster.primaries if each is not source)
        with pytest.raises(RespError, match="MOVED"):
            target.command("GET", "key7")
        cluster.move_slot(cluster.slot_of("key7"), target)
        assert cluster.node_of("key7") is target
        assert target.command("GET", "key7") == b"7"
        with pytest.raises(RespError, match="MOVED"):
            source.command("GET", "key7")


def test_a_replica_of_the_cluster_takes_over_from_its_dead_primary() -> None:
    with ValkeyCluster(replicas=3) as cluster:
        primary = cluster.node_of("key")
        primary.command("SET", "key", "value")
        primary.command("WAIT", 1, 2000)
        replica = cluster.replica_of(primary)
        assert cluster.failover(primary) is replica is cluster.node_of("key")
        assert replica.command("GET", "key") == b"value"
        primary.restart()
        assert eventually(lambda: cluster.replica_of(replica) is primary)
