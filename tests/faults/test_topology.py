"""Row 18, and fail-over by Sentinel: another server is the right one now."""

from __future__ import annotations

import asyncio
import time
from collections.abc import AsyncIterator, Callable, Iterator
from typing import Literal

import pytest

from antiphon.testing.faults import ValkeyCluster, ValkeySentinel
from tests.faults.ledger import Opened, Row, Talker, Trial, span

NewRow = Callable[[str, str], Row]
# Groups on all three primaries.
GROUPS = [f"room{n}" for n in range(12)]


@pytest.fixture(scope="module")
def cluster() -> Iterator[ValkeyCluster]:
    with ValkeyCluster(replicas=3) as cluster:
        yield cluster


@pytest.fixture
async def service(valkey_sentinel: ValkeySentinel) -> AsyncIterator[ValkeySentinel]:
    yield valkey_sentinel
    await asyncio.to_thread(valkey_sentinel.heal)


def channel_of(prefix: str, group: str) -> str:
    return f"{prefix}:a1:{{g:{group}}}"


@pytest.mark.xdist_group("cluster")
async def test_a_primary_of_a_cluster_is_killed(
    cluster: ValkeyCluster, open_layer: Opened, new_row: NewRow, fresh_prefix: str
) -> None:
    row = new_row("18a", "cluster: a primary killed, its replica promoted")
    hearing, talking = (open_layer(cluster.hosts, cluster=True, publish_retry=retry) for retry in (0, 15))
    async with Trial(row, hearing, talking, groups=GROUPS, each=1) as trial:
        primary = cluster.node_of(channel_of(fresh_prefix, GROUPS[0]))
        await asyncio.to_thread(cluster.failover, primary)
        trial.back()
        await trial.during(span(10, 0.5))
    await asyncio.to_thread(primary.restart)
    assert row.told_s is not None
    assert row.acked == row.sent


@pytest.mark.xdist_group("cluster")
@pytest.mark.parametrize("how", ["SETSLOT", "MIGRATESLOTS"])
async def test_a_slot_moves(
    cluster: ValkeyCluster, open_layer: Opened, new_row: NewRow, fresh_prefix: str, how: str
) -> None:
    row = new_row("18b", f"cluster: a slot moved ({how})")
    hearing, talking, late = (open_layer(cluster.hosts, cluster=True) for _ in range(3))
    async with Trial(row, hearing, talking, groups=GROUPS, each=1) as trial:
        # One whose map is new at each moment of the move, beside one whose map is old.
        newcomer = Talker(late, GROUPS[:1], 0.005)
        trial.more_sends.append(newcomer)
        newcomer.start(1_000_000)
        await trial.during(0.3)
        slot = cluster.slot_of(channel_of(fresh_prefix, GROUPS[0]))
        source = cluster.node_of(slot)
        target = next(each for each in cluster.primaries if each is not source)
        if how == "SETSLOT":
            await asyncio.to_thread(cluster.move_slot, slot, target)
        else:
            identity = target.command("CLUSTER", "MYID")
            source.command("CLUSTER", "MIGRATESLOTS", "SLOTSRANGE", slot, slot, "NODE", identity)
            deadline = time.monotonic() + 30
            while cluster.node_of(slot) is not target:
                assert time.monotonic() < deadline
                await asyncio.sleep(0.02)
        trial.back()
        await trial.during(span(10, 1))
    assert row.acked == row.sent


@pytest.mark.xdist_group("cluster")
async def test_a_replica_of_a_cluster_takes_over_by_command(
    cluster: ValkeyCluster, open_layer: Opened, new_row: NewRow, fresh_prefix: str
) -> None:
    row = new_row("18c", "cluster: CLUSTER FAILOVER")
    hearing, talking = (open_layer(cluster.hosts, cluster=True) for _ in range(2))
    async with Trial(row, hearing, talking, groups=GROUPS, each=1) as trial:
        primary = cluster.node_of(channel_of(fresh_prefix, GROUPS[0]))
        replica = cluster.replica_of(primary)
        replica.command("CLUSTER", "FAILOVER")
        deadline = time.monotonic() + 30
        while cluster.node_of(channel_of(fresh_prefix, GROUPS[0])) is not replica:
            assert time.monotonic() < deadline
            await asyncio.sleep(0.02)
        trial.back()
        await trial.during(span(10, 1))
    assert row.acked >= row.sent - 3  # what was under way


@pytest.mark.xdist_group("cluster")
async def test_a_primary_of_a_cluster_is_wedged(
    cluster: ValkeyCluster, open_layer: Opened, new_row: NewRow, fresh_prefix: str
) -> None:
    row = new_row("18d", "cluster: a primary wedged (SIGSTOP), its replica promoted, then resumed")
    hearing, talking = (open_layer(cluster.hosts, cluster=True, publish_retry=retry) for retry in (0, 20))
    trial = Trial(
        row,
        hearing,
        talking,
        groups=GROUPS,
        each=1,
        pad=2000,
    )
    async with trial:
        primary = cluster.node_of(channel_of(fresh_prefix, GROUPS[0]))
        replica = cluster.replica_of(primary)
        primary.stop()
        try:
            await trial.during(0.2)
            deadline = time.monotonic() + 30
            while (await asyncio.to_thread(_owner, cluster, channel_of(fresh_prefix, GROUPS[0]))) is not replica:
                assert time.monotonic() < deadline
                await asyncio.sleep(0.05)
            trial.back()
            await trial.heard(30)
        finally:
            primary.resume()
        await trial.during(1)
    assert row.told_s is not None
    assert row.acked == row.sent


def _owner(cluster: ValkeyCluster, key: str) -> object:
    try:
        return cluster.node_of(key)
    except LookupError:
        return None


@pytest.mark.xdist_group("sentinel")
@pytest.mark.parametrize("how", ["kill", "stop"])
async def test_sentinel_fails_over(
    service: ValkeySentinel, open_layer: Opened, new_row: NewRow, how: Literal["kill", "stop"]
) -> None:
    row = new_row("2s" if how == "kill" else "5s", f"Sentinel: the primary {'killed' if how == 'kill' else 'wedged'}")
    hearing, talking = (open_layer(service.hosts, publish_retry=retry) for retry in (0, 20))
    async with Trial(row, hearing, talking, pad=2000) as trial:
        await asyncio.to_thread(service.failover, how)
        trial.back()
        await trial.heard(30)
        await asyncio.to_thread(service.heal)
        await trial.during(span(10, 1))
    assert row.told_s is not None
    assert row.acked == row.sent


@pytest.mark.xdist_group("sentinel")
async def test_sentinel_fails_over_by_command_while_the_old_primary_goes_on(
    service: ValkeySentinel, open_layer: Opened, new_row: NewRow
) -> None:
    """For some ten seconds there are two primaries: who comes new is sent to the other one."""
    row = new_row("7s", "Sentinel: fail-over by command, to an empty replica")
    hearing, talking, late = (open_layer(service.hosts) for _ in range(3))
    async with Trial(row, hearing, talking) as trial:
        await asyncio.to_thread(service.failover, "command")
        trial.back()
        newcomer = Talker(late, trial.groups)
        newcomer.start(1_000_000)
        trial.more_sends.append(newcomer)
        await trial.during(3)
        await asyncio.to_thread(service.heal)  # the old one becomes a replica, at the latest now
        await trial.during(span(12, 2))
