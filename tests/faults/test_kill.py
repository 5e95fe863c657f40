"""100,000 messages through two processes while the server is killed three times: nothing twice, nothing lost in silence."""

from __future__ import annotations

import asyncio
import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from antiphon.layer.losses import Loss
from antiphon.testing.faults import ChildProcess, ValkeyServer
from tests.faults.ledger import FULL, QUICK, STALL_LIMIT_S, Member, Row, Sent, reconcile
from tests.faults.sides import talk_and_hear

GROUPS = ["lobby", "garden", "cellar", "attic"]
MESSAGES = 100_000 if FULL else 6_000
SENDING_S = 30.0 if FULL else 4.0
KILLS = 3
AWAY_S = 1.0 if FULL else 0.25


@pytest.mark.parametrize("retry", [0, 5])
async def test_messages_of_two_processes_while_the_server_is_killed_three_times(
    own_valkey: ValkeyServer, fresh_prefix: str, tmp_path: Path, new_row: Callable[[str, str], Row], retry: int
) -> None:
    row = new_row("K", f"{MESSAGES:,} notes, 2 processes, killed 3 times (publish_retry={retry})")
    options = {"prefix": fresh_prefix, "publish_retry": retry} | QUICK | ({} if retry else {"timeout_s": 0.6})
    half = MESSAGES // 2
    reports = [tmp_path / "0", tmp_path / "1"]
    sides = [
        ChildProcess(
            talk_and_hear, own_valkey.url, options, GROUPS, [number * half, half], SENDING_S, str(reports[number])
        )
        for number in range(2)
    ]
    try:
        for side in sides:
            await asyncio.to_thread(side.start)
            assert await side.receive_async(30) == "ready"
        for side in sides:
            side.send("go")
        for _ in range(KILLS):
            await asyncio.sleep(SENDING_S / (KILLS + 1) - AWAY_S)
            await asyncio.to_thread(own_valkey.kill)
            await asyncio.sleep(AWAY_S)
            await asyncio.to_thread(own_valkey.restart)
        for side in sides:
            assert await side.receive_async(60) == "sent"
        await asyncio.sleep(1.0)
        for side in sides:
            side.send("report")
        for side in sides:
            assert await side.receive_async(30) == "written"
            assert side.wait(30) == 0
    finally:
        for side in sides:
            side.close()
    told: list[dict[str, Any]] = [json.loads(report.read_text()) for report in reports]
    sends = {int(n): Sent(**sent) for report in told for n, sent in report["sends"].items()}
    complaints = []
    for report in told:
        part = Row("", "")
        complaints += reconcile(
            part,
            sends,
            [Member(**member) for member in report["members"]],
            [Loss(**loss) for loss in report["losses"]],
        )
        for name in ("received", "reported", "silent", "duplicates"):
            setattr(row, name, getattr(row, name) + getattr(part, name))
        row.stall_ms = max(row.stall_ms, report["stall_s"] * 1000)
    row.sent, row.acked = len(sends), sum(sent.error is None for sent in sends.values())
    repeated = sum(report["duplicates"] for report in told)
    print(f"\n{row}\n{repeated} came again and were recognised")
    assert all(report["connected"] for report in told)
    assert len(sends) == MESSAGES
    assert not complaints
    assert row.duplicates == 0
    assert sum(report["drops"] for report in told) == 0
    assert row.stall_ms <= STALL_LIMIT_S * 1000
    assert all(len([loss for loss in report["losses"] if loss["kind"] == "group"]) >= KILLS for report in told)
    if retry:
        assert row.acked == row.sent
