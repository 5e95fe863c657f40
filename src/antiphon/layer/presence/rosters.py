"""Who is in a group, as it is told: pages of members, counts, who is online; and what is kept of a member's info.

Reads alone: each asks the store which nodes live, and then for what they have.
"""

from __future__ import annotations

import re
import time
from collections.abc import Callable, Iterable
from typing import TYPE_CHECKING, Any, NamedTuple

from ...codec import decode, encode
from ...engines.base import NodeLease, PresenceStore, Present
from ...exceptions import OptionError
from ...framework import user_key
from ..group_options import GroupTable
from .announcements import key_of

if TYPE_CHECKING:
    from ..cipher import Cipher

__all__ = ["Member", "PresenceStats", "Roster", "Rosters", "info_codec"]

# An info goes to everybody in the group, at each join and leave.
INFO_MAX_BYTES = 1024
PAGE_MAX = 1000
# Users of one question to the store.
USERS = 500
_CURSOR = re.compile(r"([a-zA-Z0-9\-_.]*):([a-zA-Z0-9\-_.!]*)")


class Member(NamedTuple):
    """One connection of a group.

    ``user``: the user's key, None where nobody is signed in. ``away``: the connection has ended, or its node has, less
    than the grace ago: nobody has been told that the user left.
    """

    user: str | None
    channel: str
    info: dict[str, Any]
    away: bool = False


class PresenceStats(NamedTuple):
    """How many are in a group. ``users`` counts those whose grace runs, too, and each anonymous connection."""

    connections: int
    users: int


class Roster(list[Member]):
    """A page of members; ``cursor`` leads to the next, None: this was the last."""

    cursor: str | None

    def __init__(self, members: Iterable[Member] = (), *, cursor: str | None = None) -> None:
        super().__init__(members)
        self.cursor = cursor


class Rosters:
    """Reads of one node. ``info_of``: as of ``Announcements``."""

    def __init__(
        self, store: PresenceStore, table: GroupTable, info_of: Callable[[str, Present], dict[str, Any]]
    ) -> None:
        self._store = store
        self._table = table
        self._info_of = info_of
        graces = [options.presence_grace_s for _, _, options in table.patterns if options.presence]
        self._grace_s = max(graces, default=0.0)

    def __repr__(self) -> str:
        return f"<Rosters of {self._store!r}>"

    async def roster(self, group: str, limit: int = 100, cursor: str | None = None) -> Roster:
        """Return at most ``limit`` members, in an order of their own, from ``cursor`` on.

        Who is in the group all the while is on exactly one page. Who moves meanwhile (goes away, or comes back) may be
        on two, and is on one at least. Raises OptionError for a group without presence, ValueError for a wrong limit
        or cursor.
        """
        self._require(group)
        if not isinstance(limit, int) or isinstance(limit, bool) or not 0 < limit <= PAGE_MAX:
            raise ValueError(f"limit: expected an int from 1 to {PAGE_MAX}; got {limit!r:.80}")
        first, after = _position(cursor)
        leases = await self._leases()
        living = {lease.node for lease in leases if lease.ended_s < 0}
        # Those without a node at the end: who goes away while the pages are read is not overlooked.
        order = [*sorted(lease.node for lease in leases), ""]
        nodes = [node for node in order if first is None or (node == "", node) >= (first == "", first)]
        if first is not None and nodes[:1] != [first]:
            after = ""  # that node is gone
        pages = await self._store.page(group, nodes, after, limit)
        members = [
            Member(key_of(each), each.channel, self._info_of(group, each), node not in living)
            for node, page in zip(nodes, pages, strict=False)
            for each in page
        ]
        if len(members) < limit:
            return Roster(members)
        return Roster(members, cursor=f"{nodes[len(pages) - 1]}:{members[-1].channel}")

    async def stats(self, group: str) -> PresenceStats:
        """Count a group's connections and users, in constant time. Raises OptionError for a group without presence."""
        self._require(group)
        living = [lease.node for lease in await self._leases() if lease.ended_s < 0]
        return PresenceStats(*await self._store.stats(group, living))

    async def online(self, users: Iterable[Any]) -> list[Any]:
        """Return those of ``users`` (objects, or keys) who have a connection in any group with presence.

        One that has ended less than the grace ago counts.
        """
        if isinstance(users, (str, bytes)):
            raise TypeError(f"users: expected a list of users or keys; got {users!r:.80}")
        asked = [(user, user_key(user)) for user in users]
        if not self._table.presence:
            raise OptionError(
                "online: no group of this layer has presence; set it in groups, as {'chat_*': {'presence': True}}"
            )
        leases = await self._leases()
        nodes = [lease.node for lease in leases if lease.ended_s < self._grace_s and lease.swept_s is None]
        found: set[str] = set()
        keys = list({key for _, key in asked})
        for start in range(0, len(keys), USERS):
            found |= await self._store.online(keys[start : start + USERS], nodes)
        return [user for user, key in asked if key in found]

    async def _leases(self) -> list[NodeLease]:
        return (await self._store.renew("", 0.0))[1]

    def _require(self, group: str) -> None:
        if not self._table.of(group).presence:
            raise OptionError(
                f"group {group!r} has no presence; set it in groups, as {{{group!r}: {{'presence': True}}}}"
            )


def _position(cursor: str | None) -> tuple[str | None, str]:
    if cursor is None:
        return None, ""
    found = _CURSOR.fullmatch(cursor) if isinstance(cursor, str) else None
    if found is None:
        raise ValueError(f"cursor: expected that of a page of the same group; got {cursor!r:.80}")
    return found[1], found[2]


def info_codec(
    cipher: Cipher | None,
) -> tuple[Callable[[str, str, dict[str, Any]], bytes], Callable[[str, Present], dict[str, Any]]]:
    """Return (encode, info_of): what the engine keeps of an info, and the info again.

    Encrypted where messages are, bound to the group and the channel.
    """

    def pack(group: str, channel: str, info: dict[str, Any]) -> bytes:
        if not isinstance(info, dict):
            raise TypeError(f"presence_info: expected a dict; got {type(info).__name__} {info!r:.80}")
        body = encode(info)
        if len(body) > INFO_MAX_BYTES:
            raise ValueError(
                f"presence_info: {len(body)} bytes encoded, {INFO_MAX_BYTES} at most: everybody in the group gets it."
                " Send what identifies the user, and let clients ask for the rest"
            )
        if cipher is None:
            return body
        sent = (time.time_ns() // 1000).to_bytes(8, "big")
        return sent + cipher.seal(f"p:{group}", _header(sent, channel), body)

    def info_of(group: str, present: Present) -> dict[str, Any]:
        if not present.info:
            return {}
        try:
            body = present.info
            if cipher is not None:
                body = cipher.open(f"p:{group}", _header(body[:8], present.channel), body[8:])
            info = decode(body)
        except ValueError:  # of a process with other keys
            return {}
        return info if isinstance(info, dict) else {}

    return pack, info_of


def _header(sent: bytes, channel: str) -> bytes:
    # As of an envelope: what the cipher looks for in it stands in bytes 20 to 27.
    return bytes(20) + sent + channel.encode()
