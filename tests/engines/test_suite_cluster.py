"""The engine suite on a cluster of three primaries, with sharded pub/sub."""

from __future__ import annotations

import time
from collections.abc import Sequence
from typing import Any, ClassVar

from antiphon.testing.faults import ValkeyCluster, ValkeyServer
from tests.engines.redis_suite import RedisSuite


class TestCluster(RedisSuite):
    cluster: ClassVar[ValkeyCluster]

    @classmethod
    def setup_class(cls) -> None:
        cls.cluster = ValkeyCluster(3)
        cls.cluster.start()

    @classmethod
    def teardown_class(cls) -> None:
        super().teardown_class()
        cls.cluster.close()

    # A cluster that comes back waits 2 s before it takes writes; what it does to messages is tested twice as it is.
    test_a_worker_that_waits_goes_on_after_the_return_of_the_server = None  # type: ignore[assignment]

    @property
    def servers(self) -> Sequence[ValkeyServer]:
        return self.cluster.servers

    def config(self, space: str) -> dict[str, Any]:
        return {"hosts": self.cluster.hosts, "prefix": space, "cluster": True}

    def kill_engine(self) -> None:
        for server in self.cluster.servers:
            server.kill()

    def restart_engine(self) -> None:
        for server in self.cluster.servers:
            server.start()
        deadline = time.monotonic() + 30
        while any(b"cluster_state:ok" not in server.command("CLUSTER", "INFO") for server in self.cluster.servers):
            assert time.monotonic() < deadline, "the nodes do not find each other again"
            time.sleep(0.02)
