"""``Presences``: what a layer's callers see of who is in a group. How it is kept is in ``presence/``."""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Iterable
from typing import Any, TypeVar

from ..engines.base import PresenceEngine
from ..exceptions import OptionError
from ..names import require_group
from .histories import Histories
from .node import Node
from .presence import Announcements, Presence, PresenceStats, Roster, Rosters, info_codec

__all__ = ["Presences"]

T = TypeVar("T")


class Presences(Histories):
    """The part of :class:`~antiphon.layers.ChannelLayer` that knows who is in a group."""

    async def presence(self, group: str, *, limit: int = 100, cursor: str | None = None) -> Roster:
        """Return who is in a group: a list of members, of every node, at most ``limit`` (1000), from ``cursor`` on.

        Each is one connection: ``user``, ``channel``, ``info``, ``away``. Its ``cursor`` leads to the next page; None: this
        was the last. Raises OptionError for a group without presence, ValueError for a wrong limit or cursor,
        EngineUnavailable.
        """
        require_group(group)
        return await self._present(lambda rosters: rosters.roster(group, limit, cursor))

    async def presence_stats(self, group: str) -> PresenceStats:
        """Count a group's connections and its distinct users, in constant time. Errors as of ``presence``."""
        require_group(group)
        return await self._present(lambda rosters: rosters.stats(group))

    async def online(self, users: Iterable[Any]) -> list[Any]:
        """Return those of ``users`` (objects or keys) who are in any group with presence, on any node.

        Raises OptionError where no group of the layer has presence, EngineUnavailable.
        """
        asked = list(users)
        return await self._present(lambda rosters: rosters.online(asked))

    async def _present(self, ask: Callable[[Rosters], Awaitable[T]]) -> T:
        node = self._node()
        rosters = node.rosters
        if rosters is None:
            raise OptionError(
                "no group of this layer has presence; set it in groups, as {'chat_*': {'presence': True}}"
            )

        async def read() -> T:
            return await ask(rosters)

        return await self._on(node, read)

    def _attach_presence(self, node: Node) -> None:
        """Have a new node keep who is in its groups, where any group has presence. Raises OptionError."""
        if not self._groups.presence:
            return
        if not isinstance(node.engine, PresenceEngine):
            raise OptionError(f"groups: presence needs an engine that keeps it; {type(node.engine).__name__} does not")
        store = node.engine.presence
        encode, info_of = info_codec(self._cipher)
        announcements = Announcements(self.announce, info_of)
        node.presence = Presence(node.loop, store, self._groups, announcements, encode)
        node.rosters = Rosters(store, self._groups, info_of)

    async def announce(self, group: str, kind: str, message: Any) -> Any:
        """Say something to those consumers of a group that have a handler for it: see ``Sends``."""
        raise NotImplementedError
