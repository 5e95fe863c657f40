"""The engine suite on two servers that are shards, one of them on TCP."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, ClassVar

from antiphon.testing.faults import ValkeyServer
from tests.engines.redis_suite import RedisSuite


class TestSharded(RedisSuite):
    shards: ClassVar[list[ValkeyServer]]

    @classmethod
    def setup_class(cls) -> None:
        cls.shards = [ValkeyServer(unix_socket=True), ValkeyServer()]
        for server in cls.shards:
            server.start()

    @classmethod
    def teardown_class(cls) -> None:
        super().teardown_class()
        for server in cls.shards:
            server.close()

    @property
    def servers(self) -> Sequence[ValkeyServer]:
        return self.shards

    def config(self, space: str) -> dict[str, Any]:
        return {"hosts": [server.url for server in self.shards], "prefix": space}

    def kill_engine(self) -> None:
        for server in self.shards:
            server.kill()

    def restart_engine(self) -> None:
        for server in self.shards:
            server.start()
