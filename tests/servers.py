"""Fixtures of real servers, for conftest.py to import: one server a worker of xdist, started when first asked for.

``from tests.servers import *`` in a conftest.py makes them that folder's. Tests that share a server stay apart by
``fresh_prefix``; a test that kills, stops or configures a server takes ``own_valkey``.
"""

from __future__ import annotations

import itertools
import os
import shutil
from collections.abc import Iterator

import pytest

from antiphon.testing.faults import ValkeyCluster, ValkeySentinel, ValkeyServer

__all__ = [
    "any_server",
    "fresh_prefix",
    "own_valkey",
    "redis7",
    "valkey",
    "valkey_cluster",
    "valkey_cluster_with_replicas",
    "valkey_sentinel",
]

_numbers = itertools.count(1)


@pytest.fixture
def fresh_prefix() -> str:
    """A layer's ``prefix`` that no other test uses."""
    return f"t{os.getpid()}x{next(_numbers)}"


@pytest.fixture(scope="session")
def valkey() -> Iterator[ValkeyServer]:
    """Valkey on a Unix socket (``url``) and on a port (``tcp_url``)."""
    with ValkeyServer(binary="valkey", unix_socket=True) as server:
        yield server


@pytest.fixture(scope="session")
def redis7() -> Iterator[ValkeyServer]:
    """The ``redis-server`` of the PATH, likewise."""
    if shutil.which("redis-server") is None:
        pytest.skip("redis-server is not installed")
    with ValkeyServer(binary="redis", unix_socket=True) as server:
        yield server


@pytest.fixture(params=["valkey", "redis7"])
def any_server(request: pytest.FixtureRequest) -> ValkeyServer:
    """Each of the two in turn."""
    server: ValkeyServer = request.getfixturevalue(request.param)
    return server


@pytest.fixture
def own_valkey() -> Iterator[ValkeyServer]:
    """A Valkey of this test's own, which it may kill."""
    with ValkeyServer(binary="valkey", unix_socket=True) as server:
        yield server


@pytest.fixture(scope="session")
def valkey_sentinel() -> Iterator[ValkeySentinel]:
    """A primary, its replica and three Sentinels. Who fails it over calls its `heal()` at the end."""
    with ValkeySentinel(binary="valkey") as service:
        yield service


@pytest.fixture(scope="session")
def valkey_cluster() -> Iterator[ValkeyCluster]:
    """Three primaries without replicas, for tests that leave them running."""
    with ValkeyCluster(binary="valkey") as cluster:
        yield cluster


@pytest.fixture
def valkey_cluster_with_replicas() -> Iterator[ValkeyCluster]:
    """Three primaries with a replica each, of this test's own."""
    with ValkeyCluster(replicas=3, binary="valkey") as cluster:
        yield cluster
