"""Which link a channel lives on, for one server or several. Each host is a shard, chosen by the channel's hash."""

from __future__ import annotations

import asyncio
from collections.abc import Iterable
from functools import partial
from typing import TYPE_CHECKING

from ...types import Receipt
from .append import Publication
from .connection import ReplyError, look
from .hosts import Host, SentinelHost, SingleHost
from .link import Link
from .sentinels import SentinelWatch
from .topology import find_primary, shard_of

if TYPE_CHECKING:
    from .bus import RedisBus
    from .engine import RedisEngine

__all__ = ["ShardRouter", "together"]


class ShardRouter:
    """One link a host. Lives on one loop."""

    mapless = ""  # it needs no map

    def __init__(self, engine: RedisEngine, bus: RedisBus) -> None:
        self.bus = bus
        home = shard_of(bus.keys.bound, len(bus.hosts))
        self.links = [
            Link(
                _name(host),
                partial(find_primary, host),
                engine,
                bus.settings(tracked=shard == home),
                moves=isinstance(host, SentinelHost),
            )
            for shard, host in enumerate(bus.hosts)
        ]
        self._watches = [
            SentinelWatch(host, link.heartbeat.check_address, bus.ping_interval_s)
            for host, link in zip(bus.hosts, self.links, strict=True)
            if isinstance(host, SentinelHost)
        ]
        self._only = self.links[0] if len(self.links) == 1 else None

    def __repr__(self) -> str:
        return f"<ShardRouter {self.links!r}>"

    def link_of(self, key: bytes) -> Link:
        """Return the link on which a channel or key lives."""
        return self._only or self.links[shard_of(key, len(self.links))]

    async def found(self, key: bytes) -> Link:
        """As ``link_of``: with fixed shards there is nothing to wait for."""
        return self.link_of(key)

    def publish(self, channel: bytes, payload: bytes, wire: bytes) -> asyncio.Future[Receipt]:
        """Publish on the channel's link."""
        return (self._only or self.link_of(channel)).publish(channel, payload, wire)

    def send(self, publication: Publication, wire: bytes) -> None:
        """The same, for a publish that somebody waits for already."""
        (self._only or self.link_of(publication[1])).send(publication, wire)

    def subscribe(self, channels: list[bytes]) -> asyncio.Future[None] | None:
        """Subscribe on the channels' links; None when all are already."""
        if self._only is not None:
            return self._only.subscribe(channels)
        return together(link.subscribe(part) for link, part in self._by_link(channels).items())

    def unsubscribe(self, channels: list[bytes]) -> None:
        """End subscriptions."""
        for link, part in self._by_link(channels).items():
            link.unsubscribe(part)

    def _by_link(self, channels: Iterable[bytes]) -> dict[Link, list[bytes]]:
        parts: dict[Link, list[bytes]] = {}
        for channel in channels:
            parts.setdefault(self.link_of(channel), []).append(channel)
        return parts

    # What only a cluster does

    def refused(self, link: Link, publication: Publication, error: ReplyError) -> bool:
        """Say whether a refused publish goes on elsewhere."""
        return False

    async def follow(self, link: Link, key: bytes, error: ReplyError) -> bool:
        """Say whether a refused command may be tried again."""
        if str(error).startswith("READONLY"):
            link.drop(str(error))
            return True
        return False

    def elsewhere(self, link: Link, channels: list[bytes], future: asyncio.Future[None]) -> None:
        """Channels do not move."""

    def moved(self, link: Link, channel: bytes) -> None:
        """Channels do not move."""

    def link_down(self, link: Link) -> None:
        """It comes back by itself."""

    async def close(self) -> None:
        """End the links."""
        await asyncio.gather(*(watch.close() for watch in self._watches), *(link.close() for link in self.links))


def together(futures: Iterable[asyncio.Future[None] | None]) -> asyncio.Future[None] | None:
    """Return a future for when all are done; None when none is left to wait for."""
    waiting = [future for future in futures if future is not None]
    if len(waiting) < 2:
        return waiting[0] if waiting else None
    everything = asyncio.ensure_future(_all(waiting))
    everything.add_done_callback(look)
    return everything


async def _all(futures: list[asyncio.Future[None]]) -> None:
    await asyncio.gather(*(asyncio.shield(future) for future in futures))


def _name(host: Host) -> str:
    if isinstance(host, SentinelHost):
        return f"sentinel:{host.service}"
    return host.address.name if isinstance(host, SingleHost) else host.name
