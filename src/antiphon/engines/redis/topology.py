"""Where a host's primary is now, and which server of a cluster owns which slot.

Every call asks anew and closes what it opened: an address that was right once is what clients go deaf on. Nothing is
cached here; whoever keeps an answer decides how long.
"""

from __future__ import annotations

import asyncio
from collections import Counter
from collections.abc import Iterable, Sequence
from dataclasses import replace
from time import monotonic
from typing import Any, NamedTuple
from zlib import crc32

from redis.crc import REDIS_CLUSTER_HASH_SLOTS as SLOTS
from redis.crc import key_slot
from redis.exceptions import ResponseError

from ...exceptions import EngineUnavailable
from .dial import DialError, ask, ask_blocking
from .hosts import Address, Host, SentinelHost, SingleHost

__all__ = [
    "SLOTS",
    "ClusterMap",
    "find_primary",
    "find_primary_blocking",
    "parse_shards",
    "read_cluster",
    "read_cluster_blocking",
    "shard_of",
    "slot_of",
]

_ASK_TIMEOUT_S = 1.0


def slot_of(key: bytes) -> int:
    """Return the cluster slot of a key or a sharded pub/sub channel."""
    slot: int = key_slot(key)
    return slot


def shard_of(key: bytes, shards: int) -> int:
    """Return which of ``shards`` hosts a key or channel belongs to: the same in every process and release.

    Keys with the same hash tag belong together, as in a cluster. The ring is that of channels_redis.
    """
    if shards == 1:
        return 0
    start = key.find(b"{")
    end = key.find(b"}", start + 1)
    tagged = key[start + 1 : end] if start >= 0 and end > start + 1 else key
    return (crc32(tagged) & 0xFFF) * shards // 4096


# --- Sentinel


class _Vote(NamedTuple):
    host: str
    port: int
    epoch: int


async def find_primary(host: Host) -> Address:
    """Return the address of the host's primary as its sentinels see it now.

    All sentinels are asked at once and the answer that most of them give counts; among equals the newest fail-over.
    Raises EngineUnavailable when none knows.
    """
    if isinstance(host, SingleHost):
        return host.address
    if not isinstance(host, SentinelHost):
        return await host.find()
    command = ("SENTINEL", "MASTER", host.service)
    results = await asyncio.gather(
        *(asyncio.wait_for(ask(s, [command], _ASK_TIMEOUT_S, sentinel=True), _ASK_TIMEOUT_S) for s in host.sentinels),
        return_exceptions=True,
    )
    votes, failures = [], []
    for sentinel, result in zip(host.sentinels, results, strict=True):
        if isinstance(result, BaseException):
            if not isinstance(result, (*DialError, TimeoutError)):
                raise result
            failures.append((sentinel, result))
        else:
            votes.append(_vote(result[0]))
    return _elect(host, votes, failures)


def find_primary_blocking(host: Host, timeout_s: float = _ASK_TIMEOUT_S) -> Address:
    """As ``find_primary``. Sentinels are asked one by one, ``timeout_s`` each, until most of them agree."""
    if isinstance(host, SingleHost):
        return host.address
    if not isinstance(host, SentinelHost):
        return host.find_blocking()
    votes: list[_Vote] = []
    failures: list[tuple[Address, BaseException]] = []
    for sentinel in host.sentinels:
        try:
            command = ("SENTINEL", "MASTER", host.service)
            votes.append(_vote(ask_blocking(sentinel, [command], min(timeout_s, _ASK_TIMEOUT_S), sentinel=True)[0]))
        except DialError as exc:
            failures.append((sentinel, exc))
            continue
        most = Counter(vote[:2] for vote in votes).most_common(1)[0][1]
        if most * 2 > len(host.sentinels):
            break
    return _elect(host, votes, failures)


def _vote(reply: Any) -> _Vote:
    facts = _facts(reply)
    return _Vote(_text(facts["ip"]), int(facts["port"]), int(facts.get("config-epoch", 0)))


def _elect(host: SentinelHost, votes: list[_Vote], failures: Sequence[tuple[Address, BaseException]]) -> Address:
    if not votes:
        told = "; ".join(f"{sentinel.name}: {exc}" for sentinel, exc in failures)
        raise EngineUnavailable(f"no sentinel knows where the primary of {host.service!r} is: {told}") from failures[0][
            1
        ]
    counted = Counter(vote[:2] for vote in votes)
    best = max(votes, key=lambda vote: (counted[vote[:2]], vote.epoch))
    return replace(host.address, host=best.host, port=best.port, path=None)


# --- cluster


class ClusterMap:
    """Which primary owns which slot. Compares equal to a map that says the same."""

    __slots__ = ("_owners", "masters")

    def __init__(self, ranges: Iterable[tuple[int, int, Address]]) -> None:
        owners: list[Address | None] = [None] * SLOTS
        for first, last, address in ranges:
            owners[first : last + 1] = [address] * (last + 1 - first)
        self._owners = owners
        self.masters: tuple[Address, ...] = tuple(sorted({a for a in owners if a is not None}, key=lambda a: a.name))

    def __repr__(self) -> str:
        missing = self._owners.count(None)
        hole = f" without {missing} slots" if missing else ""
        return f"<ClusterMap {', '.join(address.name for address in self.masters)}{hole}>"

    def __eq__(self, other: object) -> bool:
        return isinstance(other, ClusterMap) and self._owners == other._owners

    __hash__ = None  # type: ignore[assignment]  # compared, never looked up

    @property
    def owners(self) -> Sequence[Address | None]:
        """The primary of each slot; None where there is none."""
        return self._owners

    def owner(self, slot: int) -> Address:
        """Return the primary that owns a slot; EngineUnavailable when none does."""
        address = self._owners[slot]
        if address is None:
            raise EngineUnavailable(f"no server of the cluster serves slot {slot} now")
        return address

    def owner_of(self, key: bytes) -> Address:
        """Return the primary that a key or a sharded channel belongs to."""
        return self.owner(slot_of(key))


async def read_cluster(seeds: Sequence[Address]) -> ClusterMap:
    """Ask the seeds one after the other and return what the first that answers says.

    Addresses that the cluster tells get the seed's credentials and TLS. Raises EngineUnavailable when none answers.
    """
    failures: list[tuple[Address, BaseException]] = []
    for seed in seeds:
        seen = replace(seed, db=0)  # a cluster has one database
        try:
            async with asyncio.timeout(_ASK_TIMEOUT_S):
                return _read(seen, *await _ask_slots(seen))
        except DialError as exc:  # a TimeoutError is an OSError
            failures.append((seed, exc))
    raise _no_cluster(failures)


def read_cluster_blocking(seeds: Sequence[Address], timeout_s: float = _ASK_TIMEOUT_S) -> ClusterMap:
    """As ``read_cluster``; about ``timeout_s`` in total, at most a second a seed."""
    failures: list[tuple[Address, BaseException]] = []
    deadline = monotonic() + timeout_s
    for index, seed in enumerate(seeds):
        seen = replace(seed, db=0)
        remaining = deadline - monotonic()
        if failures and remaining <= 0:
            break
        if index + 1 < len(seeds):
            remaining /= 2  # one that hangs leaves time for the next
        try:
            return _read(seen, *_ask_slots_blocking(seen, min(max(remaining, 0.05), _ASK_TIMEOUT_S)))
        except DialError as exc:
            failures.append((seed, exc))
    raise _no_cluster(failures)


_SHARDS = (("CLUSTER", "SHARDS"),)
_CLUSTER_SLOTS = (("CLUSTER", "SLOTS"),)


def parse_shards(seed: Address, reply: Any) -> ClusterMap:
    """Read the reply to CLUSTER SHARDS that the server at ``seed`` gave."""
    return ClusterMap(_from_shards(replace(seed, db=0), reply))


async def _ask_slots(seed: Address) -> tuple[Any, Any]:
    try:
        return (await ask(seed, _SHARDS, _ASK_TIMEOUT_S))[0], None
    except ResponseError:  # before 7.0 there was no CLUSTER SHARDS
        return None, (await ask(seed, _CLUSTER_SLOTS, _ASK_TIMEOUT_S))[0]


def _ask_slots_blocking(seed: Address, timeout_s: float) -> tuple[Any, Any]:
    try:
        return ask_blocking(seed, _SHARDS, timeout_s)[0], None
    except ResponseError:
        return None, ask_blocking(seed, _CLUSTER_SLOTS, timeout_s)[0]


def _read(seed: Address, shards: Any, slots: Any) -> ClusterMap:
    return ClusterMap(_from_shards(seed, shards) if shards is not None else _from_slots(seed, slots))


def _from_shards(seed: Address, reply: Any) -> Iterable[tuple[int, int, Address]]:
    for shard in reply:
        facts = _facts(shard)
        ranges = [int(slot) for slot in facts["slots"]]
        if not ranges:
            continue
        nodes = [_facts(node) for node in facts["nodes"]]
        # After a fail-over the dead primary is still listed as one, with health "fail".
        primaries = [node for node in nodes if _text(node["role"]) == "master"]
        primaries.sort(key=lambda node: _text(node.get("health", b"")) != "online")
        if not primaries:
            continue
        node = primaries[0]
        port = (node.get("tls-port") if seed.ssl is not None else node.get("port")) or node.get("port") or seed.port
        endpoint = _text(node.get("endpoint"))
        host = endpoint if endpoint not in ("", "?") else _text(node.get("ip"))
        address = _at(seed, host, int(port))
        for first, last in zip(ranges[::2], ranges[1::2], strict=True):
            yield first, last, address


def _from_slots(seed: Address, reply: Any) -> Iterable[tuple[int, int, Address]]:
    for first, last, primary, *_ in reply:
        yield int(first), int(last), _at(seed, _text(primary[0]), int(primary[1]))


def _at(seed: Address, host: str, port: int) -> Address:
    # An empty host, or "?" where a server does not know its own name, means: where you asked.
    return replace(seed, host=host if host not in ("", "?") else seed.host, port=port, path=None)


def _no_cluster(failures: Sequence[tuple[Address, BaseException]]) -> EngineUnavailable:
    told = "; ".join(f"{seed.name}: {exc}" for seed, exc in failures)
    error = EngineUnavailable(f"no server of the cluster answers: {told}")
    error.__cause__ = failures[0][1] if failures else None
    return error


# --- replies: maps of RESP3, or flat lists where a server answers so


def _facts(reply: Any) -> dict[str, Any]:
    pairs = reply.items() if isinstance(reply, dict) else zip(reply[::2], reply[1::2], strict=True)
    return {_text(key): value for key, value in pairs}


def _text(value: Any) -> str:
    if value is None:
        return ""
    return value.decode() if isinstance(value, bytes) else str(value)
