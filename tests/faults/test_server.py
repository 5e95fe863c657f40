"""Rows 1 to 7: the server idle, killed, wedged, emptied, and its connections cut."""

from __future__ import annotations

import asyncio
from collections.abc import Callable

import pytest

from antiphon.testing.faults import ValkeyServer
from tests.faults.ledger import FULL, QUICK, Opened, Row, Trial, span

NewRow = Callable[[str, str], Row]
RETRY = pytest.mark.parametrize("retry", [0, 5])


async def test_nothing_happens_and_the_idle_layer_lives(
    valkey: ValkeyServer, open_layer: Opened, new_row: NewRow
) -> None:
    row = new_row("1", f"nothing: idle for {span(60, 1.5):g} s")
    hearing, talking = open_layer(valkey.url), open_layer(valkey.url)
    async with Trial(row, hearing, talking) as trial:
        await trial.talker.stop()
        await asyncio.sleep(span(60, 1.5))
        for n in range(1000, 1010):
            await trial.talker.say(n)
    assert row.received == row.acked * 5 == row.sent * 5
    assert hearing.losses.count == talking.losses.count == 0


@RETRY
async def test_the_server_is_killed_and_comes_back(
    own_valkey: ValkeyServer, open_layer: Opened, new_row: NewRow, retry: int
) -> None:
    row = new_row("2", f"kill -9, back after {span(1, 0.5):g} s (publish_retry={retry})")
    hearing, talking = open_layer(own_valkey.url), open_layer(own_valkey.url, publish_retry=retry)
    async with Trial(row, hearing, talking, each=10) as trial:
        await asyncio.to_thread(own_valkey.kill)
        await trial.during(span(1, 0.5))
        await asyncio.to_thread(own_valkey.restart)
        trial.back()
    assert row.told_s is not None
    if retry:
        assert row.acked == row.sent  # it was away for less than publish_retry: nobody got an error


@RETRY
async def test_the_server_is_away_for_longer_than_a_publish_may_take(
    own_valkey: ValkeyServer, open_layer: Opened, new_row: NewRow, retry: int
) -> None:
    away_s = span(12, 2.5)
    row = new_row("3", f"kill -9, back after {away_s:g} s (publish_retry={retry})")
    talking = open_layer(own_valkey.url, publish_retry=retry * span(1, 0.3))
    async with Trial(row, open_layer(own_valkey.url), talking, each=10) as trial:
        await asyncio.to_thread(own_valkey.kill)
        await trial.during(away_s)
        await asyncio.to_thread(own_valkey.restart)
        trial.back()
    failed = [sent for sent in trial.talker.sends.values() if sent.error]
    limit_s = max(QUICK.get("timeout_s", 5.0), retry * span(1, 0.3))
    assert failed
    assert max(sent.ended_s - sent.began_s for sent in failed) < limit_s + (0.8 if FULL else 10)
    assert all("is down for" in str(sent.error) or "not confirmed" in str(sent.error) for sent in failed)
    assert row.told_s is not None


async def test_a_short_pause_of_the_server_costs_nothing(
    own_valkey: ValkeyServer, open_layer: Opened, new_row: NewRow
) -> None:
    row = new_row("4", f"SIGSTOP for {span(3, 0.6):g} s")
    options = {"ping_interval_s": 5, "timeout_s": 5}
    hearing, talking = open_layer(own_valkey.url, **options), open_layer(own_valkey.url, **options)
    async with Trial(row, hearing, talking) as trial:
        own_valkey.stop()
        await trial.during(span(3, 0.6))
        own_valkey.resume()
        trial.back()
    assert row.received == row.acked * 5 == row.sent * 5


@pytest.mark.parametrize(("retry", "pad"), [(0, 0), (15, 0), (15, 5000)])
async def test_a_wedged_server_is_noticed_and_nothing_comes_twice(
    own_valkey: ValkeyServer, open_layer: Opened, new_row: NewRow, retry: int, pad: int
) -> None:
    row = new_row("5", f"SIGSTOP for {span(11, 2):g} s (publish_retry={retry}, {pad or 20} bytes)")
    talking = open_layer(own_valkey.url, publish_retry=retry)
    async with Trial(row, open_layer(own_valkey.url), talking, pad=pad) as trial:
        own_valkey.stop()
        await trial.during(span(11, 2))
        own_valkey.resume()
        trial.back()
    assert row.told_s is not None
    if retry:
        assert row.acked == row.sent


@RETRY
async def test_every_connection_is_killed_once(
    own_valkey: ValkeyServer, open_layer: Opened, new_row: NewRow, retry: int
) -> None:
    row = new_row("6", f"every connection killed once (publish_retry={retry})")
    async with Trial(row, open_layer(own_valkey.url), open_layer(own_valkey.url, publish_retry=retry)) as trial:
        for kind in ("pubsub", "normal"):
            own_valkey.command("CLIENT", "KILL", "TYPE", kind)
        trial.back()
        await trial.during(0.3)
    assert row.told_s is not None
    assert row.acked >= row.sent - 10


async def test_emptying_the_server_takes_nobody_out_of_a_group(
    own_valkey: ValkeyServer, open_layer: Opened, new_row: NewRow
) -> None:
    row = new_row("7", "FLUSHALL")
    async with Trial(row, open_layer(own_valkey.url), open_layer(own_valkey.url)) as trial:
        own_valkey.command("FLUSHALL")
        trial.back()
        await trial.during(0.3)
    assert row.received == row.acked * 5 == row.sent * 5
