"""The servers of these tests: one that nobody harms, one to be killed, and a cluster."""

from __future__ import annotations

import os
from collections.abc import Iterator

import pytest

from antiphon.testing.faults import ValkeyCluster, ValkeyServer
from tests.engines.redis.publisher.publishing import SERVERS


@pytest.fixture(scope="module", params=SERVERS)
def shared(request: pytest.FixtureRequest) -> Iterator[ValkeyServer]:
    """A server that no test harms."""
    binary = SERVERS[request.param]
    if binary is not None and not os.access(binary, os.X_OK):
        pytest.skip(f"no {binary}")
    with ValkeyServer(unix_socket=True, binary=binary) as server:
        yield server


@pytest.fixture
def server() -> Iterator[ValkeyServer]:
    with ValkeyServer() as server:
        yield server


@pytest.fixture(scope="module")
def cluster() -> Iterator[ValkeyCluster]:
    with ValkeyCluster() as cluster:
        yield cluster
