"""The faults: each row of the table is a test, and leaves its line for the table at the end (``make faults``)."""

from __future__ import annotations

import logging
from collections.abc import AsyncIterator, Callable, Iterator
from typing import Any

import pytest

from antiphon.layer.redis import RedisChannelLayer
from tests.faults.ledger import FULL, QUICK, Opened, Row, as_dict, table


@pytest.fixture
async def open_layer(fresh_prefix: str) -> AsyncIterator[Opened]:
    """Make layers, all under one prefix, with time-outs shortened unless FAULTS=full."""
    layers: list[RedisChannelLayer] = []

    def make(hosts: Any, **options: Any) -> RedisChannelLayer:
        hosts = hosts if isinstance(hosts, list) else [hosts]
        merged: dict[str, Any] = {"prefix": fresh_prefix, "capacity": 10_000} | QUICK | options
        layer = RedisChannelLayer(hosts, **merged)
        layers.append(layer)
        return layer

    yield make
    for layer in layers:
        await layer.close()


@pytest.fixture
def new_row(request: pytest.FixtureRequest) -> Iterator[Callable[[str, str], Row]]:
    """Make a line of the table, printed at the end whether the test passed or not."""
    rows: list[Row] = []

    def make(number: str, fault: str) -> Row:
        rows.append(Row(number, fault))
        return rows[-1]

    yield make
    request.node.user_properties += [("fault", as_dict(row)) for row in rows]


@pytest.fixture(autouse=True)
def _less_said() -> Iterator[None]:
    """Keep the thousand lines that faults are worth out of the reports of failures."""
    logger = logging.getLogger("asyncio")
    level = logger.level
    logger.setLevel(logging.WARNING)
    yield
    logger.setLevel(level)


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    for item in items:
        if FULL and "tests/faults" in item.path.as_posix() and item.get_closest_marker("timeout") is None:
            item.add_marker(pytest.mark.timeout(240))


def pytest_terminal_summary(terminalreporter: pytest.TerminalReporter) -> None:
    rows: list[Any] = [
        value
        for reports in terminalreporter.stats.values()
        for report in reports
        if isinstance(report, pytest.TestReport) and report.when == "teardown"
        for name, value in report.user_properties
        if name == "fault"
    ]
    if rows:
        terminalreporter.section("faults")
        for line in table(rows):
            terminalreporter.write_line(line)
