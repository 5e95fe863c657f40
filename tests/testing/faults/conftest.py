"""A server of each kind, and a proxy before it."""

from __future__ import annotations

from collections.abc import Iterator

import pytest

from antiphon.testing.faults import Proxy, ValkeyServer


@pytest.fixture(scope="module", params=["valkey", "redis"])
def server(request: pytest.FixtureRequest) -> Iterator[ValkeyServer]:
    with ValkeyServer(binary=request.param, unix_socket=True) as server:
        yield server


@pytest.fixture
def proxy(server: ValkeyServer) -> Iterator[Proxy]:
    with Proxy(server.tcp_url) as proxy:
        yield proxy
