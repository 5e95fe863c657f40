"""Several publishes of one thread in one write, for ``BlockingPublisher``. What goes wrong is left to its ``publish``.

The first message to a server goes alone: that finds the server, mends what can be mended, and leaves a connection that
works. Those that follow it to the same server travel together.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING

from redis.exceptions import RedisError

from ...envelope import mark_again
from ...exceptions import AntiphonError, EngineUnavailable
from .dial import DialError
from .line import BoundTable, Line, Severed, bound_queues
from .pool import NotPrimary

if TYPE_CHECKING:
    from .publisher import BlockingPublisher

__all__ = ["publish_many"]

# What travels in one write: a kernel takes it without waiting for the server.
_LONGEST_BYTES = 64 * 1024

Messages = Sequence[tuple[str, bytes]]


def publish_many(publisher: BlockingPublisher, messages: Messages) -> tuple[list[int], Exception | None]:
    """Publish [(topic, payload)] in order, up to the first that fails.

    Returns what ``publish`` returned for those before it, and the error. What became of those after it is unknown.
    """
    nodes: list[int] = []
    try:
        while len(nodes) < len(messages):
            nodes.append(publisher.publish(*messages[len(nodes)]))
            _follow(publisher, messages, nodes)
    except Exception as exc:
        return nodes, exc
    return nodes, None


def _follow(publisher: BlockingPublisher, messages: Messages, nodes: list[int]) -> None:
    """Publish in one write what goes where the last one went, and add its nodes."""
    packed = _pack(publisher, messages, len(nodes))
    if not packed:
        return
    pool = publisher._pool
    address = pool.known_address_of(publisher._keys.channel(messages[len(nodes) - 1][0]))
    if address is None:
        return
    try:
        line = pool.take(address, publisher.timeout_s)
    except (EngineUnavailable, Severed, NotPrimary, RedisError, *DialError):
        return  # ``publish`` meets it again, and knows what to do
    try:
        replies, broken = line.replies(b"".join(packed), publisher.timeout_s, len(packed))
        table = _bound_after(publisher, line, broken=broken is not None)
    except BaseException:
        pool.end(line)
        raise
    line.sent += sum(type(reply) is int for reply in replies)
    if broken is None:
        pool.give(line)
    else:
        pool.end(line)
    start = len(nodes)
    for number, reply in enumerate(replies):
        topic, payload = messages[start + number]
        if type(reply) is int:
            queues = bound_queues(table, topic.encode()) if table else ()
            if queues and publisher.on_bound is not None:
                publisher.on_bound(topic, payload, queues)
            nodes.append(reply)
        else:
            later = any(type(other) is int for other in replies[number:])
            nodes.append(_refused(publisher, topic, payload, overtaken=later))
    if broken is not None:
        if publisher.retry_s <= 0:
            raise EngineUnavailable(
                f"{address.name} did not answer: {broken}; what was sent may have taken effect or not"
            ) from broken
        for topic, payload in messages[len(nodes) : start + len(packed)]:
            nodes.append(publisher.publish(topic, mark_again(payload)))


def _pack(publisher: BlockingPublisher, messages: Messages, start: int) -> list[bytes]:
    """Return the commands for the messages from ``start`` on that live where the one before them does."""
    pool, keys = publisher._pool, publisher._keys
    if pool.failures or start == len(messages):
        return []
    address = pool.known_address_of(keys.channel(messages[start - 1][0]))
    packed: list[bytes] = []
    size = 0
    for topic, payload in messages[start:]:
        channel = keys.channel(topic)
        size += len(payload)
        if pool.known_address_of(channel) != address or (packed and size > _LONGEST_BYTES):
            break
        packed.append(publisher._publish % (len(channel), channel, len(payload), payload))
    return packed


def _bound_after(publisher: BlockingPublisher, line: Line, *, broken: bool) -> BoundTable:
    if publisher.on_bound is None:
        return {}
    if line.tracked and not line.stale:
        return line.bound
    return publisher._poll(line.bound) if broken else publisher._bound(line)


def _refused(publisher: BlockingPublisher, topic: str, payload: bytes, *, overtaken: bool) -> int:
    """Publish one by itself that was refused, and so has not run."""
    try:
        return publisher.publish(topic, payload)
    except EngineUnavailable as exc:
        if not overtaken:
            raise
        # Sent again, it would be taken for one that has been here, by whoever had one of those after it.
        raise AntiphonError(f"refused, and then not taken in time: {exc}") from exc
