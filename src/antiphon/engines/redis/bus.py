"""``RedisBus``: a process's share of the Redis engine: what its nodes have in common, and who publishes without a loop."""

from __future__ import annotations

import contextlib
import os
import socket
import sys
import weakref
from collections.abc import Sequence

from ...types import Keep, Page, Position, Receipt
from .append import ORIGIN, receipt_of
from .batch import Messages
from .engine import RedisEngine
from .history import calls_for, in_order, page_of, read_arguments
from .history_scripts import READ, TOPS
from .hosts import Host
from .keys import Keys, log_keys
from .publisher import BlockingPublisher
from .settings import LinkSettings
from .topology import shard_of

__all__ = ["RedisBus"]


class RedisBus:
    """A process's share of the engine: what its nodes have in common, and the publisher of synchronous code."""

    def __init__(
        self,
        hosts: Sequence[Host],
        *,
        prefix: str = "asgi",
        cluster: bool = False,
        timeout_s: float = 5.0,
        publish_retry_s: float = 0.0,
        ping_interval_s: float = 5.0,
        lease_s: float = 30.0,
        max_deliveries: int = 5,
    ) -> None:
        self.hosts = tuple(hosts)
        self.keys = Keys(prefix)
        self.cluster = cluster
        self.timeout_s = timeout_s
        self.publish_retry_s = publish_retry_s
        self.ping_interval_s = ping_interval_s
        self.lease_s = lease_s
        self.max_deliveries = max_deliveries
        self.checked: set[str] = set()
        self.engines: weakref.WeakSet[RedisEngine] = weakref.WeakSet()
        self.publisher = self._publisher()
        _buses.add(self)

    def __repr__(self) -> str:
        return f"<RedisBus {'cluster' if self.cluster else len(self.hosts)} {self.keys!r}>"

    def _publisher(self) -> BlockingPublisher:
        return BlockingPublisher(
            self.hosts,
            cluster=self.cluster,
            keys=self.keys,
            timeout_s=self.timeout_s,
            retry_s=self.publish_retry_s,
        )

    def settings(self, *, tracked: bool) -> LinkSettings:
        """Return what links are to know."""
        program = os.path.basename(sys.argv[0]) if sys.argv and sys.argv[0] else "python"  # noqa: PTH119  # a name
        name = f"antiphon:{socket.gethostname()}:{os.getpid()}:{program}"
        return LinkSettings(
            client_name="".join(letter if "!" <= letter <= "~" else "-" for letter in name),
            prefix=self.keys.prefix,
            ping_interval_s=self.ping_interval_s,
            pong_timeout_s=self.ping_interval_s,
            timeout_s=self.timeout_s,
            publish_retry_s=self.publish_retry_s,
            sharded=self.cluster,
            tracked=self.keys.bound if tracked else None,
        )

    def node_engine(self) -> RedisEngine:
        """Return a new, unopened part for one node."""
        return RedisEngine(self)

    def publish_blocking(self, topic: str, payload: bytes) -> Receipt:
        """Publish and wait for the server's word. Raises EngineUnavailable."""
        return Receipt(self.publisher.publish(topic, payload))

    def publish_many_blocking(self, messages: Messages) -> tuple[list[Receipt], Exception | None]:
        """As ``BatchPublisher``."""
        replies, exc = self.publisher.publish_many(messages)
        return [receipt_of(reply) for reply in replies], exc

    def append_blocking(self, topic: str, payload: bytes, keep: Keep) -> Receipt:
        """As ``HistoryPublisher``."""
        return receipt_of(self.publisher.publish(topic, payload, keep))

    def read_blocking(self, topic: str, since: Position | None, limit: int, *, reverse: bool = False) -> Page:
        """As ``HistoryPublisher``."""
        channel = self.keys.channel(topic)
        arguments = read_arguments(since, limit, reverse=reverse)
        return page_of(self.publisher.script(READ, channel, log_keys(channel), arguments))

    def tops_blocking(self, topics: Sequence[str]) -> list[Position]:
        """As ``HistoryPublisher``."""
        calls = calls_for(topics, self.keys, self.place)
        answers = [self.publisher.script(TOPS, keys[0], keys, (ORIGIN,)) for _, keys in calls]
        return in_order(topics, calls, answers)

    def place(self, channel: bytes) -> object:
        """Return the same for channels whose logs one call may ask for."""
        return channel if self.cluster else shard_of(channel, len(self.hosts))

    def after_fork(self) -> None:
        """Drop everything inherited: the sockets are the parent's."""
        for engine in tuple(self.engines):
            for link in engine.links:
                _let_go(link.fileno())
        self.engines = weakref.WeakSet()
        self.checked = set()


def _let_go(descriptor: int) -> None:
    # Not close(): the transport that owns the number closes it in its time, and by then it may be another's.
    if descriptor >= 0:
        with contextlib.suppress(OSError):
            null = os.open(os.devnull, os.O_RDWR)
            os.dup2(null, descriptor)
            os.close(null)


_buses: weakref.WeakSet[RedisBus] = weakref.WeakSet()


def _after_fork() -> None:
    for bus in tuple(_buses):
        bus.after_fork()


if hasattr(os, "register_at_fork"):
    os.register_at_fork(after_in_child=_after_fork)
