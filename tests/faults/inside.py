"""Row 17 in a network namespace: what runs inside it. The loopback device is taken down under server and layers."""

from __future__ import annotations

import asyncio
import json
import subprocess
import traceback
from dataclasses import asdict
from pathlib import Path

from antiphon.layer.redis import RedisChannelLayer
from antiphon.testing.faults import ValkeyServer
from tests.faults.ledger import QUICK, STALL_LIMIT_S, Row, Trial


def main(namespace: str, seconds: str, report: str) -> None:
    """Run the row and write it down."""
    row = Row("", "")
    error = None
    try:
        asyncio.run(_trial(row, namespace, float(seconds)))
    except BaseException:
        error = traceback.format_exc()
    Path(report).write_text(json.dumps({"row": asdict(row), "error": error}))


async def _trial(row: Row, namespace: str, seconds: float) -> None:
    with ValkeyServer() as server:
        hearing, talking = (RedisChannelLayer([server.url], **QUICK) for _ in range(2))
        async with Trial(row, hearing, talking) as trial:
            await _loopback("down")
            await trial.during(seconds)
            await _loopback("up")
            trial.back()
        assert row.stall_ms <= STALL_LIMIT_S * 1000
        await hearing.close()
        await talking.close()


async def _loopback(state: str) -> None:
    await asyncio.to_thread(subprocess.run, ["ip", "link", "set", "lo", state], check=True)
