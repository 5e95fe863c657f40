"""The engine contract.

An engine carries opaque bytes between nodes: it never decodes, never fans out to members of a group, and never knows
a consumer.

Beside ``Engine`` stand capabilities that an engine has or has not. The layer asks with ``isinstance``; what is missing
is an error that names the engines that have it.
"""

from __future__ import annotations

from collections.abc import Awaitable, Collection, Sequence
from typing import NamedTuple, Protocol, runtime_checkable

from ..types import Arrival, Receipt

__all__ = ["Engine", "Leased", "ProcessEngine", "Publisher", "QueueEngine", "Sink"]


class Sink(Protocol):
    """Where an engine puts what arrives for one node. Called on the node's loop; never blocks, never raises."""

    def deliver(self, arrivals: Sequence[Arrival]) -> None:
        """Take what arrived, in order."""

    def arrive(self, topic: str, payload: bytes) -> None:
        """Take one message of a topic without a log: ``deliver`` without an Arrival made for it."""

    def lost(self, topics: Collection[str], reason: str, good_until: float) -> None:
        """Learn that messages on ``topics`` may have been missed since ``good_until`` (epoch seconds)."""

    def link(self, name: str, up: bool) -> None:
        """Learn that a link went up or down."""


class Engine(Protocol):
    """What one node needs of an engine."""

    max_payload_bytes: int

    async def open(self, sink: Sink) -> None:
        """Start; everything that arrives goes to ``sink``."""

    async def close(self) -> None:
        """Stop and forget every subscription."""

    async def subscribe(self, topics: Collection[str]) -> None:
        """Return once what is published on ``topics`` from now on will arrive."""

    def unsubscribe(self, topics: Collection[str]) -> None:
        """Stop what arrives on ``topics``; something under way may still come."""

    def publish(self, topic: str, payload: bytes) -> Receipt | Awaitable[Receipt]:
        """Publish. A plain call: the message has its place in line when it returns.

        An engine that delivered inside the call returns the Receipt itself: no future is made for nothing.
        """


class ProcessEngine(Protocol):
    """One process's share of an engine: it makes the part of each node, and is made anew after a fork."""

    def node_engine(self) -> Engine:
        """Return a new, unopened part for one node."""

    def publish_blocking(self, topic: str, payload: bytes) -> Receipt:
        """As ``Publisher``."""


@runtime_checkable
class Publisher(Protocol):
    """Publishing from any thread without an event loop; it blocks, and survives a fork."""

    def publish_blocking(self, topic: str, payload: bytes) -> Receipt:
        """Publish and wait for the server's word."""


class Leased(NamedTuple):
    """One message taken from a worker channel; acknowledge or release it by ``token``."""

    payload: bytes
    token: int
    delivery_count: int


@runtime_checkable
class QueueEngine(Protocol):
    """Worker channels: queues with competing readers."""

    async def put(self, queue: str, payload: bytes, capacity: int, expiry_s: float) -> bool:
        """Append; False when ``capacity`` messages wait or are unacknowledged."""

    async def lease(self, queue: str) -> Leased:
        """Wait for the first message and take it; it comes back unless acknowledged."""

    async def ack(self, queue: str, token: int) -> None:
        """Confirm that a leased message was handled."""

    async def release(self, queue: str, token: int) -> None:
        """Give a leased message back, to the front."""

    async def bind(self, topic: str, queue: str, capacity: int, expiry_s: float, ttl_s: float) -> None:
        """Let what is published on ``topic`` also go to ``queue``, for ``ttl_s`` seconds."""

    async def unbind(self, topic: str | None, queue: str) -> None:
        """End that; from every topic when ``topic`` is None."""

    async def bound(self, topic: str) -> list[str]:
        """Return the queues that are bound to ``topic``."""
