"""The engine suite on one real server: Valkey, and Redis where it is installed."""

from __future__ import annotations

import shutil
from collections.abc import Sequence
from typing import Any, ClassVar

import pytest

from antiphon.testing.faults import ValkeyServer
from tests.engines.redis_suite import RedisSuite


class TestValkey(RedisSuite):
    binary = "valkey"
    server: ClassVar[ValkeyServer]

    @classmethod
    def setup_class(cls) -> None:
        cls.server = ValkeyServer(binary=cls.binary, unix_socket=True)
        cls.server.start()

    @classmethod
    def teardown_class(cls) -> None:
        super().teardown_class()
        cls.server.close()

    @property
    def servers(self) -> Sequence[ValkeyServer]:
        return [self.server]

    def config(self, space: str) -> dict[str, Any]:
        return {"hosts": [self.server.url], "prefix": space}

    def kill_engine(self) -> None:
        self.server.kill()

    def restart_engine(self) -> None:
        self.server.start()


@pytest.mark.skipif(shutil.which("redis-server") is None, reason="redis-server is not installed")
class TestRedis(TestValkey):
    binary = "redis"
