"""The engine suite under Sentinel: the death of the server is a fail-over to its replica."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, ClassVar

from antiphon.testing.faults import ValkeySentinel, ValkeyServer
from tests.engines.redis_suite import RedisSuite


class TestSentinel(RedisSuite):
    sentinel: ClassVar[ValkeySentinel]
    old: ValkeyServer

    @classmethod
    def setup_class(cls) -> None:
        cls.sentinel = ValkeySentinel()
        cls.sentinel.start()

    @classmethod
    def teardown_class(cls) -> None:
        super().teardown_class()
        cls.sentinel.close()

    @property
    def servers(self) -> Sequence[ValkeyServer]:
        return [self.sentinel.primary]

    # A fail-over takes seconds, and the next one has to wait for the replica: one is enough here.
    test_every_message_of_an_outage_is_delivered_or_its_publisher_or_its_receiver_told = None  # type: ignore[assignment]
    test_a_worker_that_waits_goes_on_after_the_return_of_the_server = None  # type: ignore[assignment]

    def config(self, space: str) -> dict[str, Any]:
        return {"hosts": self.sentinel.hosts, "prefix": space}

    def kill_engine(self) -> None:
        self.old = self.sentinel.primary
        self.old.kill()

    def restart_engine(self) -> None:
        self.sentinel.wait_for_failover(self.old)
        self.old.start()
