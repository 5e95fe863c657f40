"""Every row of the table of servers (``docs/servers.md``) on our class: the behaviour is the best there is, to the letter."""

from __future__ import annotations

import sys
from collections.abc import AsyncIterator

import pytest
import pytest_asyncio

from tests.server.behaviours import endings, pressure
from tests.server.behaviours.running import KINDS
from tests.server.behaviours.table import ROWS, Bench
from tests.server.behaviours.verdict import GOOD, Row

# How long a probe waits for what never comes; a test that passes never waits for it.
PATIENCE_S = 30.0

# What is seen of bare ASGI; then what consumers make of it, where that differs.
EXPECTED = {
    "scope": "2.4, with state",
    "denial": "401 with header and body",
    "client_closes": "4999 bye",
    "server_closes": "4001 bye",
    "client_lost": "1006",
    "application_raises": "1011 error",
    "application_returns": "1000",
    "sent_late": "OSError",
    "empty_message": "sent",
    "split_head": "refused: 500",
    "never_accepted": "503, application told 1006",
    "stopped": "1012 restart, told, clean-up finished",
    "never_reads": "send() blocks, then 1006",
    "no_pong": "1011 keepalive ping timeout",
    "never_reads_nor_answers": "cut off, application told 1006",
    "stopped_with_one_that_never_reads": "exits, application told",
    "too_big": "1009 a message may have 16777216 bytes",
    "bomb": "1009 a message may have 16777216 bytes",
    "fragments": "1008 a message may have 100000 fragments",
    "many_pings": "all answered",
    "half_handshake": "cut",
    "many_headers": "431",
    "long_header": "431",
    "bad_key": "400",
    "bad_subprotocol": "400",
    "no_mask": "1002",
    "no_text": "1007",
    "close_inside_message": "1000",
    "stray_fragment": "1002",
}
OF_CONSUMERS = {
    "denial": "403",
    "sent_late": "dropped",
    "split_head": "refused: 403",
    "never_accepted": "503",
}
CASES = [
    *(pytest.param(row, "raw", EXPECTED, id=f"{row.name}-raw") for row in ROWS),
    # What never reaches an application needs no second look.
    *(
        pytest.param(row, "consumer", {**EXPECTED, **OF_CONSUMERS}, id=f"{row.name}-consumer")
        for row in (*endings.ROWS, *pressure.ROWS)
    ),
]


@pytest_asyncio.fixture(scope="module", loop_scope="module")
async def bench() -> AsyncIterator[Bench]:
    async with Bench(KINDS["antiphon"], sys.executable, PATIENCE_S) as bench:
        yield bench


@pytest.mark.skipif(sys.platform == "win32", reason="signals, process groups and resets as POSIX has them")
@pytest.mark.asyncio(loop_scope="module")
@pytest.mark.parametrize(("row", "side", "expected"), CASES)
async def test_no_server_does_better_than_ours(bench: Bench, row: Row, side: str, expected: dict[str, str]) -> None:
    verdict = await bench.verdict(row, side)
    assert (verdict.rank, verdict.text) == (GOOD, expected[row.name]), verdict


def test_every_row_has_its_expectation() -> None:
    assert set(EXPECTED) == {row.name for row in ROWS}
