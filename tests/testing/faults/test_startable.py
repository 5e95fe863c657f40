"""What all that is started here shares: a ``with`` block starts what does not run, and closes it, whatever happens."""

from __future__ import annotations

import pytest

from antiphon.testing.faults import Proxy, ValkeyCluster, ValkeySentinel, ValkeyServer


def test_a_block_takes_over_what_was_started_before_it_and_closes_it() -> None:
    server = ValkeyServer()
    server.start()
    proxy = Proxy(server)
    proxy.start()
    before = server.pid, proxy.address
    with server, proxy:
        assert (server.pid, proxy.address) == before
        assert proxy.running
    assert not server.running
    assert not proxy.running
    assert not server.folder.exists()


def test_what_cannot_start_leaves_nothing_behind() -> None:
    cluster = ValkeyCluster(no_such_option=1)
    with pytest.raises(RuntimeError, match="ended with"), cluster:
        raise AssertionError("unreachable")
    assert not cluster.running
    assert not any(server.folder.exists() for server in cluster.servers)


def test_a_service_starts_again_after_its_end() -> None:
    service = ValkeySentinel()
    for _ in range(2):
        with service:
            assert service.running
            assert len(service.hosts[0]["sentinels"]) == 3
            assert service.primary.command("SET", "key", 1) == "OK"
    assert not service.running


def test_a_cluster_with_a_password_moves_its_keys_and_fails_over() -> None:
    with ValkeyCluster(replicas=3, requirepass="se cret") as cluster:
        assert cluster.command("key", "SET", "key", "value") == "OK"
        source = cluster.node_of("key")
        target = next(each for each in cluster.primaries if each is not source)
        cluster.move_slot(cluster.slot_of("key"), target)
        assert cluster.command("key", "GET", "key") == b"value"
        replica = cluster.failover(target)
        assert cluster.node_of("key") is replica
