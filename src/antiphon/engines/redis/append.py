"""``Append``: a publish that is kept in a log, as a command under way. Knows no socket's ways.

The command carries the *origin* of the server that it is written to: what names one unbroken life of that server. Which
server that will be is known only when it is written, so a command is built with a mark in the origin's place.
"""

from __future__ import annotations

import asyncio
from functools import lru_cache
from hashlib import sha1
from typing import Any, NamedTuple, TypeAlias

from hiredis import pack_command

from ...envelope import FLAG_AGAIN, mark_again
from ...types import Keep, Position, Receipt
from .history_scripts import APPEND
from .keys import idempotency_key, log_keys

__all__ = [
    "ORIGIN",
    "RENEW_SHARE",
    "UNKNOWN_ORIGIN",
    "Append",
    "Publication",
    "append_command",
    "origin_of",
    "receipt_of",
    "repeated",
]

# In place of an origin, which is as long. It stands before everything that a sender chooses.
ORIGIN = b"\x00antiphon-origin"
# A log's time to live is renewed after such a share of it, and is longer by that: a command less for nearly all appends.
RENEW_SHARE = 1 / 8
# Of a server that does not say who it is: a restart of it is not noticed.
UNKNOWN_ORIGIN = b"-" * len(ORIGIN)


class Append(NamedTuple):
    """A publish with a log: who waits for its receipt, the channel, the payload, how it is kept."""

    future: asyncio.Future[Receipt]
    channel: bytes
    payload: bytes
    keep: Keep


# A publish under way; without a log, a tuple of the first three.
Publication: TypeAlias = "tuple[asyncio.Future[Receipt], bytes, bytes] | Append"


def origin_of(run_id: str, replication_id: str) -> bytes:
    """Return the origin of a server: another after each restart, and after each promotion of a replica."""
    if not run_id:
        return UNKNOWN_ORIGIN
    return sha1(f"{run_id}:{replication_id}".encode(), usedforsecurity=False).hexdigest()[: len(ORIGIN)].encode()


@lru_cache(maxsize=10_000)
def _head(channel: bytes, size: int, ttl: bytes, sharded: bool) -> bytes:
    publish = b"SPUBLISH" if sharded else b"PUBLISH"
    parts = (b"EVALSHA", APPEND.sha, 2, *log_keys(channel), ORIGIN, size, ttl, publish)
    packed = pack_command(parts)  # type: ignore[arg-type]  # its stub says a tuple of one
    # The number of parts is written anew: two more follow.
    return b"*%d\r\n%b" % (len(parts) + 2, packed.partition(b"\r\n")[2])


def append_command(channel: bytes, payload: bytes, keep: Keep, *, sharded: bool, renew: bool = True) -> bytes:
    """Return the command that publishes ``payload`` on ``channel`` and keeps it, with ORIGIN for the origin.

    ``renew``: the log's time to live begins anew; else that was done within the last RENEW_SHARE of it.
    """
    again = payload[3] & FLAG_AGAIN
    ttl = b"%s%d" % (b"" if renew else b"-", keep.ttl_s * 1000 * (1 + RENEW_SHARE) + 1)
    if keep.idempotency_key is None and not keep.version:
        head = _head(channel, keep.size, ttl, sharded)
        return b"%b$1\r\n%d\r\n$%d\r\n%b\r\n" % (head, 1 if again else 0, len(payload), payload)
    keys: tuple[bytes, ...] = log_keys(channel)
    if keep.idempotency_key is not None:
        keys = (*keys, idempotency_key(channel, keep.idempotency_key))
    parts = (
        b"EVALSHA", APPEND.sha, len(keys), *keys, ORIGIN, keep.size, ttl,
        b"SPUBLISH" if sharded else b"PUBLISH", 1 if again else 0, keep.version, keep.version_epoch,
        round(keep.idempotency_ttl_s * 1000), payload,
    )  # fmt: skip
    packed: bytes = pack_command(parts)  # type: ignore[arg-type]  # as above
    return packed


def receipt_of(reply: Any) -> Receipt:
    """Return what a server answered to a publish, with a log or without."""
    if type(reply) is int:
        return Receipt(reply)
    offset, epoch, nodes, *state = reply.split(b":")
    return Receipt(int(nodes), Position(epoch.decode(), int(offset)), state[0].decode() if state else "sent")


def repeated(publication: Publication) -> Publication:
    """Return a publish as one that is sent again, because nobody knows whether the first one arrived."""
    if isinstance(publication, Append):
        return publication._replace(payload=mark_again(publication.payload))
    future, channel, payload = publication
    return future, channel, mark_again(payload)
