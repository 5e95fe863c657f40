"""Where primaries are, asked from real sentinels and clusters; slots and shards."""

from __future__ import annotations

import asyncio
import socket
from collections.abc import Iterator
from dataclasses import replace

import pytest

from antiphon.engines.redis.hosts import Address, SentinelHost, SingleHost, parse_hosts
from antiphon.engines.redis.topology import (
    ClusterMap,
    _from_shards,
    find_primary,
    find_primary_blocking,
    read_cluster,
    read_cluster_blocking,
    shard_of,
    slot_of,
)
from antiphon.exceptions import EngineUnavailable
from antiphon.testing.faults import ValkeyCluster, ValkeySentinel, ValkeyServer
from tests.waiting import until

REDIS = "/usr/bin/redis-server"


@pytest.fixture(scope="module")
def trio() -> Iterator[ValkeySentinel]:
    with ValkeySentinel(requirepass="s3cret") as trio:
        yield trio


def sentinel_host(trio: ValkeySentinel) -> SentinelHost:
    (host,) = parse_hosts([{**trio.hosts[0], "password": "s3cret", "db": 2, "socket_connect_timeout": 3}])
    assert isinstance(host, SentinelHost)
    return host


async def both(host: SentinelHost) -> Address:
    """Ask in both ways, which must agree."""
    asked = await find_primary(host)
    assert await asyncio.to_thread(find_primary_blocking, host) == asked
    return asked


async def test_a_single_host_is_its_own_primary() -> None:
    address = Address("nowhere", 1)
    assert await find_primary(SingleHost(address)) is address
    assert find_primary_blocking(SingleHost(address)) is address


async def test_sentinels_name_the_primary_and_it_keeps_the_hosts_credentials(trio: ValkeySentinel) -> None:
    found = await both(sentinel_host(trio))
    assert found == Address("127.0.0.1", trio.primary.port, password="s3cret", db=2, connect_timeout_s=3)


async def test_a_dead_and_a_hung_sentinel_are_passed_over(trio: ValkeySentinel) -> None:
    host = sentinel_host(trio)
    with socket.create_server(("127.0.0.1", 0)) as hung:  # accepts, and never answers
        crippled = replace(host, sentinels=(Address("127.0.0.1", 1), Address(*hung.getsockname()), host.sentinels[2]))
        assert (await find_primary(crippled)).port == trio.primary.port
        assert (await asyncio.to_thread(find_primary_blocking, crippled)).port == trio.primary.port


async def test_what_most_sentinels_say_counts(trio: ValkeySentinel) -> None:
    host = sentinel_host(trio)
    # A sentinel that was cut off and still tells of a primary long gone: whatever its place, it is outvoted.
    with socket.create_server(("127.0.0.1", 0)) as liar:
        task = asyncio.create_task(_tell(liar, ip=b"10.9.9.9", port=1))
        for place in range(3):
            sentinels = [*host.sentinels[:2]]
            sentinels.insert(place, Address(*liar.getsockname()))
            assert (await both(replace(host, sentinels=tuple(sentinels)))).port == trio.primary.port
        task.cancel()


async def _tell(listener: socket.socket, *, ip: bytes, port: int) -> None:
    """Answer as a sentinel would, in RESP3."""

    async def serve(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        while data := await reader.read(65536):
            if b"HELLO" in data:
                writer.write(b"%1\r\n+proto\r\n:3\r\n")
            else:
                writer.write(b"*6\r\n+ip\r\n+%b\r\n+port\r\n+%d\r\n+config-epoch\r\n+99\r\n" % (ip, port))
        writer.close()

    server = await asyncio.start_server(serve, sock=listener.dup())
    async with server:
        await server.serve_forever()


async def test_an_unknown_service_is_an_error_that_names_it_and_every_sentinel(trio: ValkeySentinel) -> None:
    host = replace(sentinel_host(trio), service="other")
    with pytest.raises(EngineUnavailable, match="'other'.*No such master") as error:
        await find_primary(host)
    assert all(str(sentinel.port) in str(error.value) for sentinel in trio.sentinels)
    with pytest.raises(EngineUnavailable, match="'other'.*No such master"):
        await asyncio.to_thread(find_primary_blocking, host)


async def test_a_question_leaves_no_connection_behind(trio: ValkeySentinel) -> None:
    sentinel = trio.sentinels[0]
    before = int(sentinel.info("clients")["connected_clients"])
    for _ in range(5):
        await both(sentinel_host(trio))
    with pytest.raises(TimeoutError):
        async with asyncio.timeout(0.001):
            await find_primary(sentinel_host(trio))
    await until(lambda: int(sentinel.info("clients")["connected_clients"]) <= before)


@pytest.mark.timeout(60)
async def test_after_a_failover_the_new_primary_is_found_at_the_next_question() -> None:
    with ValkeySentinel() as trio:
        (host,) = parse_hosts(trio.hosts)
        before = await find_primary(host)
        new = await asyncio.to_thread(trio.failover)
        assert (await find_primary(host)).port == new.port != before.port


# --- cluster


@pytest.fixture(scope="module", params=["valkey", "redis"])
def cluster(request: pytest.FixtureRequest) -> Iterator[ValkeyCluster]:
    with ValkeyCluster(binary=None if request.param == "valkey" else REDIS) as cluster:
        yield cluster


def seeds_of(cluster: ValkeyCluster) -> list[Address]:
    return [host.address for host in parse_hosts(cluster.hosts) if isinstance(host, SingleHost)]


async def test_a_cluster_tells_every_slots_owner_and_compares(cluster: ValkeyCluster) -> None:
    seeds = seeds_of(cluster)
    maps = [await read_cluster([seed]) for seed in seeds]
    assert maps[0] == maps[1] == maps[2] == await asyncio.to_thread(read_cluster_blocking, seeds)
    assert {address.port for address in maps[0].masters} == {server.port for server in cluster.servers}
    for key in (b"asgi:a1:{g:room}", b"asgi:a1:{q:thumbs}s", b"x"):
        assert slot_of(key) == cluster.slot_of(key)
        assert maps[0].owner_of(key).port == cluster.node_of(key).port


async def test_a_map_differs_when_a_slot_has_moved(cluster: ValkeyCluster) -> None:
    before = await read_cluster(seeds_of(cluster))
    slot = slot_of(b"moving")
    old = cluster.node_of(slot)
    new = next(each for each in cluster.primaries if each is not old)
    await asyncio.to_thread(cluster.move_slot, slot, new)
    after = await read_cluster(seeds_of(cluster))
    assert after != before
    assert after.owner(slot).port == new.port
    assert (await asyncio.to_thread(read_cluster_blocking, seeds_of(cluster))) == after


async def test_seeds_that_are_dead_or_hung_or_no_cluster_are_passed_over(cluster: ValkeyCluster) -> None:
    with socket.create_server(("127.0.0.1", 0)) as hung, ValkeyServer() as loner:
        seeds = [Address("127.0.0.1", 1), Address(*hung.getsockname()), Address("127.0.0.1", loner.port)]
        good = replace(seeds_of(cluster)[0], db=3, connect_timeout_s=2)
        for seen in (
            await read_cluster([*seeds, good]),
            await asyncio.to_thread(read_cluster_blocking, [*seeds, good], 3.0),
        ):
            assert all(address.db == 0 and address.connect_timeout_s == 2 for address in seen.masters)
        with pytest.raises(EngineUnavailable, match="cluster support disabled"):
            await read_cluster(seeds)
        with pytest.raises(EngineUnavailable, match="cluster support disabled"):
            await asyncio.to_thread(read_cluster_blocking, seeds, 3.0)


@pytest.mark.timeout(60)
async def test_a_killed_primary_gives_way_to_its_replica_in_the_map() -> None:
    with ValkeyCluster(replicas=3) as cluster:
        owner = cluster.node_of(b"key")
        await asyncio.to_thread(cluster.failover, owner)
        seen = await read_cluster(seeds_of(cluster))
        assert seen.owner_of(b"key").port == cluster.node_of(b"key").port != owner.port
        assert len(seen.masters) == 3


def test_an_answer_without_a_host_means_the_seeds_own_and_health_decides_between_two_primaries() -> None:
    seed = Address("entry.example", 7000, password="x")

    def node(port: int, endpoint: bytes, health: bytes) -> dict[bytes, object]:
        return {b"port": port, b"ip": b"", b"endpoint": endpoint, b"role": b"master", b"health": health}

    reply = [
        {b"slots": [0, 8191], b"nodes": [node(1, b"old", b"fail"), node(2, b"", b"online")]},
        {b"slots": [b"8192", b"16383"], b"nodes": [node(3, b"?", b"online")]},
        {b"slots": [], b"nodes": [node(4, b"empty", b"online")]},
    ]
    seen = ClusterMap(_from_shards(seed, reply))
    assert seen.masters == (replace(seed, port=2), replace(seed, port=3))


def test_a_slot_that_nobody_serves_is_an_error() -> None:
    seen = ClusterMap([(0, 99, Address("a"))])
    assert "without 16284 slots" in repr(seen)
    with pytest.raises(EngineUnavailable, match="slot 100"):
        seen.owner(100)


# --- slots and shards


def test_slots_are_those_of_the_cluster_specification() -> None:
    assert slot_of(b"123456789") == 12739
    assert slot_of(b"{user1000}.following") == slot_of(b"{user1000}.followers") == slot_of(b"user1000")


def test_shards_are_stable_and_those_of_channels_redis() -> None:
    # The values that channels_redis' own tests pin.
    assert [shard_of(key, ring) for ring in (2, 10) for key in (b"key_one", b"key_two")] == [1, 0, 6, 4]
    assert shard_of(b"key_one", 1) == 0
    counts = [0] * 4
    for number in range(4000):
        counts[shard_of(b"asgi:a1:{g:%d}" % number, 4)] += 1
    assert min(counts) > 850


def test_keys_of_one_hash_tag_share_a_shard() -> None:
    assert len({shard_of(b"a{t}" + bytes([65 + n]), 5) for n in range(20)}) == 1
    assert len({shard_of(b"a{}%d" % n, 5) for n in range(20)}) == 5
