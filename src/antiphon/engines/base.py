"""The engine contract.

An engine carries opaque bytes between nodes: it never decodes, never fans out to members of a group, and never knows
a consumer.

Beside ``Engine`` stand capabilities that an engine has or has not. The layer asks with ``isinstance``; what is missing
is an error that names the engines that have it.
"""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Collection, Sequence
from typing import NamedTuple, Protocol, runtime_checkable

from ..types import Arrival, Keep, Page, Position, Receipt

__all__ = [
    "BatchPublisher",
    "Change",
    "Engine",
    "HistoryEngine",
    "HistoryPublisher",
    "Leased",
    "NodeLease",
    "PresenceEngine",
    "PresenceStore",
    "Present",
    "ProcessEngine",
    "Publisher",
    "QueueEngine",
    "Sink",
]


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

    def subscribe(self, topics: Collection[str]) -> asyncio.Future[None] | None:
        """Subscribe: what is published on ``topics`` will arrive from the moment the future is done.

        None: from now on. The future fails with EngineUnavailable when the engine cannot promise it in time.
        """

    def unsubscribe(self, topics: Collection[str]) -> None:
        """Stop what arrives on ``topics``; something under way may still come."""

    def publish(self, topic: str, payload: bytes) -> Receipt | Awaitable[Receipt]:
        """Publish. A plain call: the message has its place in line when it returns.

        An engine that delivered inside the call returns the Receipt itself: no future is made for nothing.
        """


@runtime_checkable
class HistoryEngine(Protocol):
    """Logs: the last messages of a topic, each with its place, given atomically with its publishing.

    All members of a topic see the messages of its log in the order of their offsets. Offsets are dense: ``previous``
    of an Arrival is what the log's top was before it. The epoch names one unbroken life of a log: it changes when the
    log was lost, and also when nobody can vouch for its end, as after a restart or a failover of its server. A
    position of an earlier epoch is still good, and ``since`` takes it, as long as it lies before that break.
    """

    def append(self, topic: str, payload: bytes, keep: Keep) -> Receipt | Awaitable[Receipt]:
        """Publish, and keep in the topic's log: one step, that happens wholly or not at all. A plain call.

        The receipt has the position; its state is ``suppressed`` or ``duplicate`` where nothing was published.
        """

    async def read(self, topic: str, since: Position | None, limit: int, *, reverse: bool = False) -> Page:
        """Read entries after ``since`` (None: all that is kept), the oldest first; ``reverse``: from the newest down.

        At most ``limit``; 0: the top alone.
        """

    async def tops(self, topics: Sequence[str]) -> list[Position]:
        """Return the position of the last message of each log: many topics in one round trip to each server."""


@runtime_checkable
class HistoryPublisher(Protocol):
    """The same from any thread without an event loop; it blocks, and survives a fork."""

    def append_blocking(self, topic: str, payload: bytes, keep: Keep) -> Receipt:
        """As ``HistoryEngine.append``."""

    def read_blocking(self, topic: str, since: Position | None, limit: int, *, reverse: bool = False) -> Page:
        """As ``HistoryEngine.read``."""

    def tops_blocking(self, topics: Sequence[str]) -> list[Position]:
        """As ``HistoryEngine.tops``."""


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


@runtime_checkable
class BatchPublisher(Protocol):
    """Publishing several messages from one thread at the cost of one."""

    def publish_many_blocking(
        self, messages: Sequence[tuple[str, bytes, Keep | None]]
    ) -> tuple[list[Receipt], Exception | None]:
        """Publish [(topic, payload, how to keep it, if at all)] in order, up to the first that fails.

        Returns the receipts of those before it, and the error. What became of those after it is unknown.
        """


class Leased(NamedTuple):
    """One message taken from a worker channel; acknowledge or release it by ``token``.

    ``delivery_count``: 1 for the first time. ``topic``: what the payload was packed for. ``expiry_s``: how long it may
    wait, from the start again whenever it comes back.
    """

    payload: bytes
    token: int
    delivery_count: int
    topic: str = ""
    expiry_s: float = 60.0


@runtime_checkable
class QueueEngine(Protocol):
    """Worker channels: queues with competing readers.

    First deliveries are in order. A message is out from ``lease`` to ``ack``; released, or when its reader died, it
    takes its place in line again, and after ``max_deliveries`` it goes to the queue ``<name>.dead`` instead.
    ``waits_for_nobody``: all but ``lease`` are done without a turn of the loop, so nobody can be cancelled in them.
    """

    waits_for_nobody: bool

    @property
    def max_deliveries(self) -> int:
        """How often a message may be given out."""

    async def put(
        self, queue: str, payload: bytes, capacity: int, expiry_s: float, *, topic: str | None = None
    ) -> bool:
        """Append; False when ``capacity`` messages wait or are unacknowledged. ``topic``: by default the queue's own."""

    async def lease(self, queue: str) -> Leased:
        """Wait for the first message and take it; it comes back unless acknowledged. Cancelling it loses nothing."""

    async def ack(self, queue: str, token: int) -> None:
        """Confirm that a leased message was handled."""

    async def release(self, queue: str, token: int, *, unread: bool = False) -> None:
        """Give a leased message back, to its place in line. ``unread``: nobody saw it, so it counts as no delivery."""

    async def put_back(self, queue: str, leased: Leased) -> None:
        """Undo an ``ack``, for a reader that was cancelled before it could return the message."""

    async def bind(self, topic: str, queue: str, capacity: int, expiry_s: float, ttl_s: float) -> None:
        """Let what is published on ``topic`` also go to ``queue``, for ``ttl_s`` seconds."""

    async def unbind(self, topic: str | None, queue: str) -> None:
        """End that; from every topic when ``topic`` is None."""

    async def bound(self, topic: str) -> list[str]:
        """Return the queues that are bound to ``topic``."""


class Present(NamedTuple):
    """One connection that is in a group. ``user``: any text, the same for all connections that are one user."""

    channel: str
    user: str
    info: bytes = b""


class Change(NamedTuple):
    """A connection enters a group or leaves it. ``again``: it is sent once more, for nobody knows what the first did."""

    enters: bool
    present: Present
    again: bool = False


class NodeLease(NamedTuple):
    """Whether a node lives. ``ended_s``: since when it does not, in seconds; below 0: it has so long to live.

    ``swept_s``: so long ago all its connections had been removed; None: not yet.
    """

    node: str
    ended_s: float
    swept_s: float | None = None


class PresenceStore(Protocol):
    """Who is in which group.

    A node's entries hold as long as its lease, which alone is renewed. A user is in a group from the entry of the first
    connection until ``finish`` or ``sweep`` has returned the last one. Each of these happens once, whoever calls: who
    is told of a change is who tells others. What takes a list takes a bounded one: a few hundred.
    """

    async def renew(self, node: str, ttl_s: float) -> tuple[str, list[NodeLease]]:
        """Let a node live for ``ttl_s`` from now on; return what it was, and the leases of all nodes.

        ``kept``: it was there; ``new``: it was not, so whatever it had is lost; ``over``: it has been swept, or
        is about to be, and stays dead: its connections need a node of another name. With no name: ``""``, nothing.
        """

    async def end(self, node: str) -> None:
        """End a node's lease now."""

    async def note(
        self,
        node: str,
        groups: Collection[str],
        idle: Collection[str],
        online: Collection[str],
        offline: Collection[str],
    ) -> None:
        """Note in which groups a node has entries, before it has, and in which none any more; likewise its users."""

    async def change(self, group: str, node: str, changes: Sequence[Change], grace_s: float) -> list[str]:
        """Let a node's connections enter and leave; return a word for each.

        ``join``: it is the user's first; ``away``: it was the last, and ``finish`` says so after ``grace_s``, unless the
        user comes back; ``missing``: what leaves is not there; else "".
        """

    async def finish(self, group: str, limit: int) -> tuple[list[Present], float | None]:
        """Remove users whose grace is over; return their last connections, and when the next is due (None: none is)."""

    async def claim(self, dead: str, node: str, dead_for_s: float) -> bool:
        """Take it upon a node to sweep another; False: it is not dead for so long, or somebody else is at it."""

    async def groups(self, node: str, cursor: int) -> tuple[int, list[str]]:
        """Return some groups in which a node has entries, and a cursor for more; from 0, until it is 0 again."""

    async def sweep(self, group: str, dead: str, limit: int) -> tuple[list[Present], bool]:
        """Remove entries of a dead node; return those that were their user's last, and whether there are more."""

    async def swept(self, dead: str) -> None:
        """Note that a dead node has been swept."""

    async def forget(self, dead: str) -> None:
        """Forget a node that has been swept; its name stays dead."""

    async def stats(self, group: str, nodes: Collection[str]) -> tuple[int, int]:
        """Count the entries of ``nodes`` in a group, and the users, whatever their node."""

    async def page(self, group: str, nodes: Sequence[str], after: str, limit: int) -> list[list[Present]]:
        """Return the entries of nodes in the order of their channels, a list a node, until there are ``limit``.

        ``after``: of the first node, only those beyond this channel. The node "": users whose grace runs.
        """

    async def online(self, users: Collection[str], nodes: Collection[str]) -> set[str]:
        """Return those of ``users`` who are noted for one of ``nodes``."""


@runtime_checkable
class PresenceEngine(Protocol):
    """An engine that knows who is in which group."""

    @property
    def presence(self) -> PresenceStore:
        """Who is in which group."""
