"""What is asked of all links at once: their state, a sign of life, the deletion of our keys. Knows no topic."""

from __future__ import annotations

import asyncio
import contextlib
import time
from collections.abc import Collection, Iterable
from time import monotonic
from typing import Any

from ...exceptions import EngineUnavailable
from .connection import ReplyError
from .link import Link

__all__ = ["flush", "link_states", "measure"]

# Keys of one SCAN: a few microseconds of the server's time.
SCAN_COUNT = 500


async def flush(links: Iterable[Link], pattern: bytes) -> None:
    """Delete the keys that match, step by step: SCAN and UNLINK, so that the server serves others in between."""
    for link in links:
        try:
            cursor: bytes | int = 0
            while True:
                cursor, found = await link.call("SCAN", cursor, "MATCH", pattern, "COUNT", SCAN_COUNT)
                # A key a command, as a cluster needs; together, in one round trip.
                await asyncio.gather(*(link.call("UNLINK", key) for key in found))
                if int(cursor) == 0:
                    break
        except ReplyError as exc:
            raise EngineUnavailable(f"engine link {link.name} refuses to flush: {exc}") from exc


async def measure(links: Iterable[Link]) -> None:
    """Ask every server for a sign of life; each link's state says how long it took."""
    await asyncio.gather(*(_measure(link) for link in links if link.connection is not None))


async def _measure(link: Link) -> None:
    before = monotonic()
    with contextlib.suppress(EngineUnavailable, ReplyError):
        await link.call("PING")
        link.heartbeat.latency_s = monotonic() - before


def link_states(links: Collection[Link], mapless: str) -> list[dict[str, Any]]:
    """Return [{"name", "up", "since_s" (epoch), "server", "latency_s", "reason"}].

    ``mapless``: why a cluster has no links yet. It is shown as one that is down.
    """
    if not links and mapless:
        state = {"name": "cluster", "up": False, "since_s": time.time(), "server": None, "latency_s": None}
        return [{**state, "reason": f"its map cannot be read: {mapless}"}]
    return [
        {
            "name": link.name,
            "up": link.up,
            "since_s": link.since_s,
            "server": link.address.name if link.address is not None else None,
            "latency_s": link.heartbeat.latency_s if link.up else None,
            "reason": link.reason,
        }
        for link in links
    ]
