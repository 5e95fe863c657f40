"""``channels_redis.utils``: its public functions, for applications that open connections of their own with them."""

from __future__ import annotations

from typing import Any

from ...exceptions import MissingExtra

__all__ = ["create_pool", "decode_hosts"]


def decode_hosts(hosts: Any) -> list[dict[str, Any]]:
    """Return a dict of redis-py's options for each entry of a ``hosts`` list; one local server where it is empty."""
    if isinstance(hosts, str | bytes):
        raise ValueError(f"hosts: expected a list, also for a single host; got {hosts!r}")
    return [_options(entry) for entry in hosts or ["redis://localhost:6379"]]


def create_pool(host: dict[str, Any]) -> Any:
    """Return redis-py's asyncio connection pool for one of the dicts of ``decode_hosts``. The caller closes it."""
    try:
        from redis.asyncio import ConnectionPool
        from redis.asyncio.sentinel import Sentinel, SentinelConnectionPool
    except ImportError:
        raise MissingExtra.of("redis", "redis", "create_pool") from None
    options = dict(host)
    if "address" in options:
        return ConnectionPool.from_url(options.pop("address"), **options)
    service = options.pop("master_name", None)
    if service is None:
        return ConnectionPool(**options)
    sentinels = Sentinel(  # type: ignore[no-untyped-call]
        options.pop("sentinels"), sentinel_kwargs=options.pop("sentinel_kwargs", None)
    )
    return SentinelConnectionPool(service, sentinels, **options)  # type: ignore[no-untyped-call]


def _options(entry: Any) -> dict[str, Any]:
    if isinstance(entry, dict):
        return entry
    if isinstance(entry, tuple | list):
        return {"host": entry[0], "port": entry[1]}
    return {"address": entry}
