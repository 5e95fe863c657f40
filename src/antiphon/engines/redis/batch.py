"""Several publishes of one thread in one write, for ``BlockingPublisher``. What goes wrong is left to its ``publish``.

The first message to a server goes alone: that finds the server, mends what can be mended, and leaves a connection that
works. Those that follow it to the same server travel together.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, Any, TypeAlias

from redis.exceptions import RedisError

from ...envelope import mark_again
from ...exceptions import AntiphonError, EngineUnavailable
from ...types import Keep
from .append import receipt_of
from .dial import DialError
from .line import BoundTable, Line, Severed, bound_queues
from .pool import NotPrimary

if TYPE_CHECKING:
    from .publisher import BlockingPublisher

__all__ = ["Messages", "publish_many"]

# What travels in one write: a kernel takes it without waiting for the server.
_LONGEST_BYTES = 64 * 1024

Messages: TypeAlias = "Sequence[tuple[str, bytes, Keep | None]]"


def publish_many(publisher: BlockingPublisher, messages: Messages) -> tuple[list[Any], Exception | None]:
    """Publish [(topic, payload, keep)] in order, up to the first that fails.

    Returns what ``publish`` returned for those before it, and the error. What became of those after it is unknown.
    """
    done: list[Any] = []
    try:
        while len(done) < len(messages):
            done.append(publisher.publish(*messages[len(done)]))
            _follow(publisher, messages, done)
    except Exception as exc:
        return done, exc
    return done, None


def _follow(publisher: BlockingPublisher, messages: Messages, done: list[Any]) -> None:
    """Publish in one write what goes where the last one went, and add the replies."""
    packed = _pack(publisher, messages, len(done))
    if not packed:
        return
    pool, start = publisher._pool, len(done)
    address = pool.known_address_of(publisher._keys.channel(messages[start - 1][0]))
    if address is None:
        return
    try:
        line = pool.take(address, publisher.timeout_s)
        wires = [
            wire if keep is None else line.with_origin(wire, publisher.timeout_s)
            for wire, (_, _, keep) in zip(packed, messages[start:], strict=False)
        ]
    except (EngineUnavailable, Severed, NotPrimary, RedisError, *DialError):
        return  # ``publish`` meets it again, and knows what to do
    try:
        replies, broken = line.replies(b"".join(wires), publisher.timeout_s, len(wires))
        table = _bound_after(publisher, line, broken=broken is not None)
    except BaseException:
        pool.end(line)
        raise
    line.sent += sum(not isinstance(reply, Exception) for reply in replies)
    if broken is None:
        pool.give(line)
    else:
        pool.end(line)
    for number, reply in enumerate(replies):
        topic, payload, keep = messages[start + number]
        if isinstance(reply, Exception):
            later = any(not isinstance(other, Exception) for other in replies[number:])
            done.append(_refused(publisher, topic, payload, keep, overtaken=later))
            continue
        queues = bound_queues(table, topic.encode()) if table else ()
        if queues and publisher.on_bound is not None and receipt_of(reply).state == "sent":
            publisher.on_bound(topic, payload, queues)
        done.append(reply)
    if broken is not None:
        if publisher.retry_s <= 0:
            raise EngineUnavailable(
                f"{address.name} did not answer: {broken}; what was sent may have taken effect or not"
            ) from broken
        for topic, payload, keep in messages[len(done) : start + len(packed)]:
            done.append(publisher.publish(topic, mark_again(payload), keep))


def _pack(publisher: BlockingPublisher, messages: Messages, start: int) -> list[bytes]:
    """Return the commands for the messages from ``start`` on that live where the one before them does."""
    pool, keys = publisher._pool, publisher._keys
    if pool.failures or start == len(messages):
        return []
    address = pool.known_address_of(keys.channel(messages[start - 1][0]))
    packed: list[bytes] = []
    size = 0
    for topic, payload, keep in messages[start:]:
        channel = keys.channel(topic)
        size += len(payload)
        if pool.known_address_of(channel) != address or (packed and size > _LONGEST_BYTES):
            break
        packed.append(publisher.command(channel, payload, keep))
    return packed


def _bound_after(publisher: BlockingPublisher, line: Line, *, broken: bool) -> BoundTable:
    if publisher.on_bound is None:
        return {}
    if line.tracked and not line.stale:
        return line.bound
    return publisher._poll(line.bound) if broken else publisher._bound(line)


def _refused(publisher: BlockingPublisher, topic: str, payload: bytes, keep: Keep | None, *, overtaken: bool) -> Any:
    """Publish one by itself that was refused, and so has not run."""
    try:
        return publisher.publish(topic, payload, keep)
    except EngineUnavailable as exc:
        if not overtaken:
            raise
        # Sent again, it would be taken for one that has been here, by whoever had one of those after it.
        raise AntiphonError(f"refused, and then not taken in time: {exc}") from exc
