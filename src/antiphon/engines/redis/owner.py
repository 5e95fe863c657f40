"""``LinkOwner``: what a link tells whoever it works for."""

from __future__ import annotations

import asyncio
from collections.abc import Collection
from typing import TYPE_CHECKING, Any, Protocol

from .append import Publication
from .connection import Connection
from .hosts import Address

if TYPE_CHECKING:
    from .link import Link

__all__ = ["LinkOwner"]


class LinkOwner(Protocol):
    """Who a link works for: an engine's part of one node."""

    def message(self, channel: bytes, payload: bytes) -> None:
        """Take one message."""

    def lost(self, channels: Collection[bytes], reason: str, good_until: float) -> None:
        """Learn what may have been missed since ``good_until`` (epoch seconds)."""

    def link_changed(self, link: Link, up: bool) -> None:
        """Learn that the link went up or down."""

    def published(self, link: Link, publication: Publication, reply: Any) -> None:
        """Take the reply to a publish that needs a look."""

    def invalidated(self, link: Link) -> None:
        """Learn that the tracked key has changed."""

    def gone(self, link: Link, channel: bytes) -> None:
        """Learn that a channel lives on another server now."""

    async def greeted(self, link: Link, connection: Connection, address: Address) -> None:
        """Look at a server that has just been reached."""

    def elsewhere(self, link: Link, channels: list[bytes], future: asyncio.Future[None]) -> None:
        """Take over who waits for channels that moved away while they were being subscribed on ``link``."""
