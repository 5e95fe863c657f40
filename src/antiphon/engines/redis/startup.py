"""What is checked when a server is first reached: sentences for the log, each saying what to do. Never an error."""

from __future__ import annotations

import re
from collections.abc import Awaitable, Callable
from typing import Any

from hiredis import ReplyError

from .hosts import Address
from .keys import Keys

__all__ = ["check_server"]

_OLDEST, _OLDEST_CLUSTER = (6, 2), (7, 0)
# A look that ends: a server with millions of keys is not searched to its end because of a warning.
_SCAN_ROUNDS, _SCAN_COUNT = 20, 1000

Call = Callable[..., Awaitable[Any]]


async def check_server(call: Call, address: Address, keys: Keys, *, cluster: bool = False) -> list[str]:
    """Return warnings about a server, a sentence each.

    ``call(*command)`` awaits one command's reply. What we may not ask is skipped without a word: managed servers forbid
    a good deal. Raises what ``call`` raises when the connection breaks.
    """
    facts = await _info(call, "server", "memory", "cluster")
    checks = (
        _version(facts, cluster=cluster),
        await _role(call),
        _cluster(facts, cluster=cluster),
        await _eviction(call, facts),
        await _channels_redis(call, keys),
    )
    return [f"{address.name}: {warning}" for warning in checks if warning]


async def _asked(call: Call, *command: str | int | bytes) -> Any:
    """Return the reply, or None when the server refuses the question."""
    try:
        reply = await call(*command)
    except ReplyError:
        return None
    return None if isinstance(reply, Exception) else reply


async def _info(call: Call, *sections: str) -> dict[str, str]:
    facts: dict[str, str] = {}
    for section in sections:
        for line in _text(await _asked(call, "INFO", section)).splitlines():
            name, colon, value = line.partition(":")
            if colon:
                facts[name] = value.strip()
    return facts


def _version(facts: dict[str, str], *, cluster: bool) -> str | None:
    version = facts.get("redis_version", "")  # Valkey tells there which Redis it is compatible with
    numbers = re.match(r"(\d+)\.(\d+)", version)
    oldest = _OLDEST_CLUSTER if cluster else _OLDEST
    if numbers is None or (int(numbers[1]), int(numbers[2])) >= oldest:
        return None
    return (
        f"the server's version {version} is older than {oldest[0]}.{oldest[1]}, the oldest that has the commands"
        f" needed{' in a cluster' if cluster else ''}: upgrade it"
    )


async def _role(call: Call) -> str | None:
    reply = await _asked(call, "ROLE")
    role = _text(reply[0]) if reply else "master"
    if role == "master":
        return None
    if role == "sentinel":
        return "this is a sentinel, not a server of data: name it under 'sentinels', with 'master_name'"
    return (
        f"the server's role is {role!r}, so what is published here does not reach those who listen at its primary:"
        " name the primary in hosts, or the sentinels that know it"
    )


def _cluster(facts: dict[str, str], *, cluster: bool) -> str | None:
    enabled = facts.get("cluster_enabled")
    if enabled == "1" and not cluster:
        return "the server belongs to a cluster and the option 'cluster' is not set: set it to True"
    if enabled == "0" and cluster:
        return "the option 'cluster' is set and the server belongs to no cluster: remove the option"
    return None


async def _eviction(call: Call, facts: dict[str, str]) -> str | None:
    reply = await _asked(call, "CONFIG", "GET", "maxmemory-policy")
    values = list(reply.values()) if isinstance(reply, dict) else list(reply or ())[1::2]
    policy = _text(values[0]) if values else facts.get("maxmemory_policy", "noeviction")
    if policy == "noeviction":
        return None
    return (
        f"maxmemory-policy is {policy!r}: a server short of memory deletes queued messages without a word;"
        " set it to 'noeviction', or use a server of its own"
    )


async def _channels_redis(call: Call, keys: Keys) -> str | None:
    """Look for what channels_redis keeps under the same prefix: groups, consumers' channels, subscriptions."""
    prefix = keys.prefix
    if not (await _asked(call, "PUBSUB", "CHANNELS", f"{prefix}__group__*")) and not await _has_keys(call, prefix):
        return None
    return (
        f"channels_redis is in use under the same prefix {prefix!r}: this layer and channels_redis do not hear each"
        " other; switch all processes to one of them, or give this layer a prefix of its own"
    )


async def _has_keys(call: Call, prefix: str) -> bool:
    theirs = (f"{prefix}:group:", f"{prefix}specific.")
    # One pattern for both, which none of our own keys fits: "<prefix>:a1:...".
    pattern = f"{prefix}[:s][gp][re]*"
    cursor: Any = 0
    for _ in range(_SCAN_ROUNDS):
        reply = await _asked(call, "SCAN", cursor, "MATCH", pattern, "COUNT", _SCAN_COUNT)
        if not reply:
            return False
        cursor, found = reply
        if any(_text(key).startswith(theirs) for key in found):
            return True
        if int(cursor) == 0:
            return False
    return False


def _text(value: Any) -> str:
    if isinstance(value, bytes):
        return value.decode("utf-8", "replace")
    return "" if value is None else str(value)
