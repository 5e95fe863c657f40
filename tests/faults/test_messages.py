"""Rows 8 to 16: time, memory, size, slowness and foreign bytes."""

from __future__ import annotations

import asyncio
import json
import logging
import os
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import suppress
from pathlib import Path
from typing import Any

import pytest

from antiphon.exceptions import AntiphonError, EngineUnavailable, MessageTooLarge
from antiphon.layer.losses import Loss
from antiphon.testing.faults import ChildProcess, RespError, ValkeyServer
from tests.consumers.client import until
from tests.faults.ledger import QUICK, Member, Opened, Reader, Row, Sent, Talker, Trial, reconcile, span
from tests.faults.sides import hear, talk_at_another_time

NewRow = Callable[[str, str], Row]


async def test_what_waits_too_long_is_counted(valkey: ValkeyServer, open_layer: Opened, new_row: NewRow) -> None:
    expiry_s = span(5, 0.5)
    row = new_row("8", f"a consumer is busy for longer than expiry ({expiry_s:g} s)")
    busy = asyncio.Event()

    class Busy(Reader):
        async def note(self, message: dict[str, Any]) -> None:
            await super().note(message)
            if message["n"] == 0:
                await busy.wait()

    hearing = open_layer(valkey.url, expiry=expiry_s)
    trial = Trial(row, hearing, open_layer(valkey.url), groups=["lobby"], each=1, kind=Busy)
    async with trial:
        await trial.talker.stop()
        for n in range(1000, 1050):
            await trial.talker.say(n)
        await trial.during(expiry_s + 0.3)
        busy.set()
        await until(lambda: hearing.stats()["waiting"] == 0)
        trial.crowd.members[0].dropped = hearing.stats()["drops"]["expired"]
    assert row.dropped >= 50
    assert row.acked == row.received + row.dropped


async def test_a_membership_does_not_end_with_group_expiry(
    valkey: ValkeyServer, open_layer: Opened, new_row: NewRow
) -> None:
    row = new_row("9", "connected for longer than group_expiry")
    async with Trial(row, open_layer(valkey.url, group_expiry=1), open_layer(valkey.url, group_expiry=1)) as trial:
        await trial.during(span(5, 1.6))
    assert row.received == row.acked * 5 == row.sent * 5


@pytest.mark.parametrize("offset_s", [90_000, -90_000])
async def test_a_sender_with_a_wrong_clock_harms_nobody(
    valkey: ValkeyServer, open_layer: Opened, new_row: NewRow, fresh_prefix: str, offset_s: int
) -> None:
    row = new_row("10", f"a sender's clock is {offset_s / 3600:+g} h off")
    hearing = open_layer(valkey.url)
    options = {"prefix": fresh_prefix} | QUICK
    numbers = [100_000, 100_020]
    async with Trial(row, hearing, open_layer(valkey.url)) as trial:
        child = ChildProcess(talk_at_another_time, valkey.url, options, "lobby", numbers, offset_s)
        try:
            await asyncio.to_thread(child.start)
            assert await child.receive_async(30) == "sent"
        finally:
            await asyncio.to_thread(child.close)
        now = time.time()
        other = Talker(hearing, ["lobby"])
        other.sends = {n: Sent("lobby", now, now) for n in range(*numbers)}
        trial.more_sends.append(other)
        tasks = [(await asyncio.wait_for(hearing.receive("tasks"), 30))["n"] for _ in range(20)]
        await trial.during(0.3)
    assert tasks == list(range(*numbers))
    assert row.received == row.acked * 5 == row.sent * 5


async def test_a_full_server_refuses_worker_channels_and_carries_groups(open_layer: Opened, new_row: NewRow) -> None:
    row = new_row("11", "the server is full (noeviction)")
    with ValkeyServer(maxmemory="6mb", maxmemory_policy="noeviction") as server:
        talking = open_layer(server.url)
        async with Trial(row, open_layer(server.url), talking) as trial:
            await asyncio.to_thread(_fill, server)
            with pytest.raises(EngineUnavailable, match="OOM|maxmemory"):
                await talking.send("tasks", {"type": "task", "text": "x" * 10_000})
            await trial.newcomers_hear("cellar")
            await trial.during(span(3, 0.5))
            trial.back()
    assert row.received == row.acked * 5 == row.sent * 5


async def test_a_server_that_evicts_is_warned_of_and_forgets_no_member(
    open_layer: Opened, new_row: NewRow, caplog: pytest.LogCaptureFixture
) -> None:
    row = new_row("12", "the server is full and evicts (allkeys-lru)")
    with ValkeyServer(maxmemory="6mb", maxmemory_policy="allkeys-lru") as server:
        with caplog.at_level(logging.WARNING, "antiphon.engine"):
            async with Trial(row, open_layer(server.url), open_layer(server.url)) as trial:
                await asyncio.to_thread(_fill, server)
                assert int(server.info("stats")["evicted_keys"]) > 0
                await trial.during(span(3, 0.5))
        assert "maxmemory-policy is 'allkeys-lru'" in caplog.text
    assert row.received == row.acked * 5 == row.sent * 5


def _fill(server: ValkeyServer) -> None:
    for n in range(3000):
        try:
            server.command("SET", f"filler:{n}", "x" * 4000)
        except RespError:
            return


async def test_a_burst_costs_the_slow_one_what_is_counted_and_the_others_nothing(
    valkey: ValkeyServer, open_layer: Opened, new_row: NewRow
) -> None:
    row = new_row("13", "a burst of 600, one consumer of 50 ms each")

    class Slow(Reader):
        capacity = 100

        async def note(self, message: dict[str, Any]) -> None:
            await super().note(message)
            if message["n"] > 0:
                await asyncio.sleep(span(0.05, 0.005))

    hearing, talking = open_layer(valkey.url), open_layer(valkey.url)
    async with Trial(row, hearing, talking, groups=["lobby"]) as trial:
        await trial.talker.stop()
        fast = trial.crowd
        slow = type(fast)(hearing, Slow)
        await slow.join("lobby")
        await asyncio.gather(*(trial.talker.say(n) for n in range(1000, 1600)))
        await until(lambda: hearing.stats()["waiting"] == 0)
        await until(lambda: len(fast.members[0].got) >= 600)
        slow.members[0].dropped = hearing.stats()["drops"]["over_capacity"]
        burst = {n: sent for n, sent in trial.talker.sends.items() if n >= 1000}
        own = Row("", "")
        assert not reconcile(own, burst, slow.members, [])
        assert own.duplicates == 0
        assert own.received + own.dropped == 600
        assert own.dropped > 300
        assert slow.all_connected()
        await slow.leave()
    row.dropped = own.dropped
    assert row.received == row.acked * 5


async def test_what_is_too_large_is_refused_at_the_send_and_what_is_not_arrives(
    valkey: ValkeyServer, open_layer: Opened, new_row: NewRow
) -> None:
    row = new_row("14", "6 x 10 MB refused; 6 x 900 kB to 5 consumers")
    hearing, talking = open_layer(valkey.url), open_layer(valkey.url)
    async with Trial(row, hearing, talking, groups=["lobby"]) as trial:
        for _ in range(6):
            with pytest.raises(MessageTooLarge, match="max_message_bytes"):
                await talking.group_send("lobby", {"type": "note", "n": 1, "pad": "x" * 10_000_000})
        large = Talker(talking, ["lobby"], pad=900_000)
        trial.more_sends.append(large)
        for n in range(1000, 1006):
            await large.say(n)
    assert row.received == row.acked * 5 == row.sent * 5


async def test_a_receiver_whose_loop_is_blocked_loses_nothing(
    valkey: ValkeyServer, open_layer: Opened, new_row: NewRow, fresh_prefix: str
) -> None:
    blocked_s = span(3, 1)
    row = new_row("15", f"the receiver's loop blocked {blocked_s:g} s by its application, 400 x 20 kB")
    options = {"prefix": fresh_prefix, "capacity": 10_000} | QUICK
    child = ChildProcess(hear, valkey.url, options, ["lobby"], 5)
    try:
        await asyncio.to_thread(child.start)
        assert await child.receive_async(30) == "ready"
        talker = Talker(open_layer(valkey.url), ["lobby"], pad=20_000)
        await talker.say(0)
        child.send(["block", blocked_s])
        await asyncio.sleep(0.1)
        for n in range(1, 401, 10):
            await asyncio.gather(*(talker.say(each) for each in range(n, n + 10)))
        assert await child.receive_async(blocked_s + 30) == "awake"
        await asyncio.sleep(2)
        child.send("report")
        told = await child.receive_async(30)
        assert child.wait() == 0
    finally:
        await asyncio.to_thread(child.close)
    members = [Member(**member) for member in told["members"]]
    assert not reconcile(row, talker.sends, members, [Loss(**loss) for loss in told["losses"]])
    assert told["connected"]
    assert row.duplicates == 0
    assert row.received == row.acked * 5 == 401 * 5
    assert not told["drops"]


async def test_foreign_bytes_reach_no_consumer(
    valkey: ValkeyServer, open_layer: Opened, new_row: NewRow, fresh_prefix: str
) -> None:
    row = new_row("16", "foreign bytes, and messages nobody can decrypt, on our topics")
    hearing = open_layer(valkey.url, symmetric_encryption_keys=["ours"])
    talking = open_layer(valkey.url, symmetric_encryption_keys=["ours"])
    stranger = open_layer(valkey.url, symmetric_encryption_keys=["theirs"])
    plain = open_layer(valkey.url)
    async with Trial(row, hearing, talking) as trial:
        for foreign in (b"", b"\x00", os.urandom(200), json.dumps({"type": "note", "n": 7}).encode()):
            for topic in ("g:lobby", "c:", f"n:{hearing._node().id}"):
                valkey.command("PUBLISH", f"{fresh_prefix}:a1:{{{topic}}}", foreign)
        for layer in (stranger, plain):
            for group in trial.groups:
                await layer.group_send(group, {"type": "note", "n": 7_000_000})
        await trial.during(0.3)
    assert hearing.stats()["drops"]["undecodable"] >= 4 * 3 + 4
    assert row.received == row.acked * 5 == row.sent * 5


# --- the disk


@pytest.fixture
def small_disk(tmp_path: Path) -> Iterator[Path]:
    """A file system of 8 MiB."""
    if sys.platform != "linux" or os.geteuid() != 0:
        pytest.skip("a disk of its own is mounted by root, on Linux")
    made = subprocess.run(
        ["mount", "-t", "tmpfs", "-o", "size=8m", "tmpfs", str(tmp_path)], capture_output=True, text=True, check=False
    )
    if made.returncode:
        pytest.skip(f"mount: {made.stderr.strip()}")
    yield tmp_path
    subprocess.run(["umount", "-l", str(tmp_path)], check=False)


async def test_a_full_disk_stops_worker_channels_and_carries_groups(
    small_disk: Path, open_layer: Opened, new_row: NewRow
) -> None:
    row = new_row("11d", "the disk is full (append-only file)")
    with ValkeyServer(persist=True, dir=str(small_disk), appendfsync="always") as server:
        # "always" would end the server at the first write that fails.
        server.command("CONFIG", "SET", "appendfsync", "everysec")
        talking = open_layer(server.url)
        async with Trial(row, open_layer(server.url), talking) as trial:
            await asyncio.to_thread(_fill, server)
            with suppress(AntiphonError):
                await talking.send("tasks", {"type": "task", "text": "x" * 10_000})
            with pytest.raises(EngineUnavailable, match="MISCONF"):
                await talking.send("tasks", {"type": "task", "text": "x" * 10_000})
            await trial.newcomers_hear("cellar")
            await trial.during(span(12, 1.5))  # some PINGs, which such a server refuses
            await trial.newcomers_hear("attic")
            trial.back()
    assert row.received == row.acked * 5 == row.sent * 5
