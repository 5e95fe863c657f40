"""Rows 17, 19 and 20: a half-open link, competing workers, hooks; and what breaks while subscriptions are restored."""

from __future__ import annotations

import asyncio
import json
import os
import shutil
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from antiphon import framework
from antiphon.framework import Framework
from antiphon.layer.losses import Loss
from antiphon.layer.node import Node
from antiphon.layer.redis import RedisChannelLayer
from antiphon.testing.faults import ChildProcess, Proxy, ServerProcess, ValkeyServer
from tests.consumers.client import until
from tests.faults.ledger import FULL, QUICK, Member, Opened, Row, Sent, Trial, reconcile, span
from tests.faults.sides import work

NewRow = Callable[[str, str], Row]
HALF_OPEN_S = span(70, 2.5)


@pytest.mark.parametrize("side", ["receiver", "sender", "both"])
async def test_a_half_open_link_is_given_up_and_freezes_nothing(
    valkey: ValkeyServer, open_layer: Opened, new_row: NewRow, side: str
) -> None:
    row = new_row("17", f"half-open for {HALF_OPEN_S:g} s ({side}: everything swallowed)")
    with Proxy(valkey.tcp_url) as proxy:
        hearing = open_layer(proxy.url if side != "sender" else valkey.url)
        talking = open_layer(proxy.url if side != "receiver" else valkey.url)
        async with Trial(row, hearing, talking) as trial:
            began = time.monotonic()
            proxy.black_hole()
            await until(lambda: (hearing if side != "sender" else talking).stats()["links"]["down"])
            noticed_s = time.monotonic() - began
            await trial.during(HALF_OPEN_S - noticed_s)
            proxy.black_hole(False)
            trial.back()
    assert noticed_s < (11 if FULL else 30)
    assert (row.told_s is not None) == (side != "sender")
    if side == "receiver":
        assert row.acked == row.sent


@pytest.mark.parametrize("direction", ["up", "down"])
async def test_a_link_that_is_deaf_one_way_is_given_up(
    valkey: ValkeyServer, open_layer: Opened, new_row: NewRow, direction: Any
) -> None:
    row = new_row("17b", f"half-open for {span(15, 2):g} s, {direction} alone")
    with Proxy(valkey.tcp_url) as proxy:
        async with Trial(row, open_layer(proxy.url), open_layer(proxy.url, publish_retry=20)) as trial:
            proxy.black_hole(direction=direction)
            await trial.during(span(15, 2))
            proxy.black_hole(False)
            trial.back()
    assert row.acked == row.sent


# --- the kernel's own loopback goes away: in a network namespace, so that nothing else is touched


@pytest.fixture
def namespace() -> Iterator[str]:
    if sys.platform != "linux" or os.geteuid() != 0 or shutil.which("ip") is None:
        pytest.skip("a network namespace is made by root with `ip`, on Linux")
    name = f"antiphon{os.getpid()}"
    made = subprocess.run(["ip", "netns", "add", name], capture_output=True, text=True, check=False)
    if made.returncode:
        pytest.skip(f"ip netns add: {made.stderr.strip()}")
    subprocess.run(["ip", "-n", name, "link", "set", "lo", "up"], check=True)
    yield name
    subprocess.run(["ip", "netns", "delete", name], check=False)


async def test_a_network_that_goes_away_is_noticed_and_freezes_nothing(
    namespace: str, tmp_path: Path, new_row: NewRow
) -> None:
    row = new_row("17n", f"half-open for {HALF_OPEN_S:g} s (network namespace, `lo` down)")
    report = tmp_path / "report"
    args = [sys.executable, "-c", _INSIDE, json.dumps(sys.path), namespace, str(HALF_OPEN_S), str(report)]
    inside = ServerProcess(["ip", "netns", "exec", namespace, *args], cwd=Path.cwd())
    try:
        inside.start()
        async with asyncio.timeout(HALF_OPEN_S + 40):
            while inside.running:  # noqa: ASYNC110 - a process has no event
                await asyncio.sleep(0.1)
        assert report.exists(), inside.log_tail()
        told = json.loads(report.read_text())
    finally:
        await asyncio.to_thread(inside.close)
    for name, value in told["row"].items():
        if name not in ("row", "fault"):
            setattr(row, name, value)
    assert told["error"] is None, told["error"]
    assert row.told_s is not None


# In the namespace: a server, two layers, one row; `lo` is taken down from inside.
_INSIDE = """
import json, sys
sys.path[:] = json.loads(sys.argv[1])
from tests.faults.inside import main
main(*sys.argv[2:])
"""


async def test_two_workers_compete_and_each_task_is_done_once(
    valkey: ValkeyServer, open_layer: Opened, new_row: NewRow, fresh_prefix: str
) -> None:
    row = new_row("19", "100 sends to one worker channel, 2 processes read it")
    workers = [ChildProcess(work, valkey.url, {"prefix": fresh_prefix} | QUICK, "tasks") for _ in range(2)]
    got: list[list[int]] = []
    try:
        for worker in workers:
            await asyncio.to_thread(worker.start)
            assert await worker.receive_async(30) == "ready"
        layer = open_layer(valkey.url)
        sends: dict[int, Sent] = {}
        for n in range(100):
            sent = sends[n] = Sent("tasks", time.time())
            await layer.send("tasks", {"type": "task", "n": n})
            sent.ended_s = time.time()
        await asyncio.sleep(2)
        for worker in workers:
            worker.send("report")
            got.append(await worker.receive_async(30))
            assert worker.wait() == 0
    finally:
        for worker in workers:
            await asyncio.to_thread(worker.close)
    assert not reconcile(row, sends, [Member("tasks", got[0] + got[1])], [])
    assert row.duplicates == 0
    assert row.received == 100
    assert all(part == sorted(part) and len(part) > 10 for part in got)


async def test_the_hooks_are_called(own_valkey: ValkeyServer, open_layer: Opened, new_row: NewRow) -> None:
    row = new_row("20", "hooks: on_lost, link_changed")
    changes: list[tuple[str, bool]] = []
    losses: list[Loss] = []

    class Watched(RedisChannelLayer):
        def link_changed(self, node: Node, name: str, up: bool) -> None:
            super().link_changed(node, name, up)
            changes.append((name, up))

    framework.install(Framework(on_lost=losses.append))
    template = open_layer(own_valkey.url)
    hearing = Watched([own_valkey.url], prefix=template.prefix, **QUICK)
    try:
        async with Trial(row, hearing, template) as trial:
            node_id = hearing._node().id
            await asyncio.to_thread(own_valkey.kill)
            await trial.during(span(1, 0.3))
            await asyncio.to_thread(own_valkey.restart)
            trial.back()
    finally:
        await hearing.close()
    assert [up for _, up in changes] == [True, False, True]
    assert list(hearing.losses.recent) == [loss for loss in losses if loss.node == node_id]
    groups = [loss.name for loss in losses if loss.kind == "group"]
    assert sorted(groups) == ["garden", "lobby"]  # once a topic, however many members
    assert all(loss.reason and loss.since < loss.until for loss in losses)


async def test_what_breaks_while_many_subscriptions_are_restored_leaves_none_behind(
    valkey: ValkeyServer, open_layer: Opened
) -> None:
    """They are restored in batches: the first may be through when the second breaks."""
    groups = [f"group{n}" for n in range(9000)]
    with Proxy(valkey.tcp_url) as proxy:
        hearing, talking = (open_layer(u, ping_interval_s=5, timeout_s=10) for u in (proxy.url, valkey.url))
        channel = await hearing.new_channel()
        await asyncio.gather(*(hearing.group_add(group, channel) for group in groups))
        (link,) = hearing._node().engine.links  # type: ignore[attr-defined]
        proxy.delay(0.05)
        proxy.cut()
        await until(lambda: link.connection is None)
        await until(lambda: 0 < len(link.subscriptions.live) < 9000)
        proxy.cut()
        proxy.delay(0)
        await until(lambda: link.up)
        receipts = await asyncio.gather(*(talking.group_send(group, {"type": "note"}) for group in groups))
        assert sum(receipt.nodes != 1 for receipt in receipts) == 0
