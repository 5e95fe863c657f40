"""Nodes whose members are present, on any store; what they announce goes to one list."""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import Awaitable, Callable
from typing import Any, TypeAlias

from antiphon.engines.base import PresenceStore
from antiphon.exceptions import EngineUnavailable
from antiphon.layer.group_options import GroupTable
from antiphon.layer.mailbox import Mailbox
from antiphon.layer.presence.announcements import Announcements, each_user
from antiphon.layer.presence.presence import Presence
from antiphon.layer.presence.rosters import Rosters, info_codec
from tests.waiting import until

__all__ = ["GRACE_S", "GROUPS", "Place", "PresenceNode", "becomes"]

# A grace that tests can wait for, and one that they never do.
GRACE_S = 0.25
GROUPS = GroupTable(
    {
        "long_*": {"presence": True, "presence_grace_s": 600.0},
        "none_*": {"presence": True, "presence_grace_s": 0},
        "plain_*": {},
        "*": {"presence": True, "presence_grace_s": GRACE_S},
    }
)
# Makes the store of one more node.
Place: TypeAlias = Callable[[], Awaitable[PresenceStore]]


async def becomes(read: Callable[[], Awaitable[object]], expected: object) -> None:
    """Wait until ``await read()`` is ``expected``."""
    found: object = object()
    try:
        async with asyncio.timeout(30):
            while found != expected:
                with contextlib.suppress(EngineUnavailable):
                    found = await read()
                await asyncio.sleep(0.02)
    except TimeoutError:
        raise AssertionError(f"expected {expected!r} in the end; got {found!r}") from None


class PresenceNode:
    """One node. ``told``: what all nodes of a test announced: (kind, group, user or channel)."""

    def __init__(
        self,
        store: PresenceStore,
        told: list[tuple[str, str, str]],
        *,
        lease_s: float = 30.0,
        table: GroupTable = GROUPS,
    ) -> None:
        self.told = told
        self.messages: list[dict[str, Any]] = []
        self.store = store
        self.numbers = 0
        encode, info_of = info_codec(None)
        self.presence = Presence(
            asyncio.get_running_loop(), store, table, Announcements(self._announce, info_of), encode, lease_s=lease_s
        )
        self.rosters = Rosters(store, table, info_of)
        self.presence.start()

    async def _announce(self, group: str, kind: str, message: dict[str, Any]) -> None:
        assert (message["group"], message["type"]) == (group, kind)
        self.messages.append(message)
        for each in each_user(message):
            self.told.append((kind.partition(".")[2], group, each["user"] or each["channel"]))

    def connection(self, user: str | None) -> Mailbox:
        """Return the mailbox of a new connection of this node."""
        self.numbers += 1
        name = f"specific.{id(self):x}!{self.numbers:06}"
        mailbox = Mailbox(name, asyncio.get_running_loop())
        mailbox.user = user
        return mailbox

    async def enters(self, group: str, user: str | None, info: dict[str, Any] | None = None) -> Mailbox:
        """Let a new connection of a user be present, and wait until the engine knows."""
        mailbox = self.connection(user)
        await self.presence.enter(group, mailbox, info)
        return mailbox

    async def users(self, group: str) -> list[str]:
        """Return the users of all connections of a group, sorted, those away too."""
        return sorted(member.user or "" for member in await self.rosters.roster(group, limit=1000))

    async def die(self) -> None:
        """Do nothing any more, as a process that was killed, and let the time to live be over."""
        task = self.presence._task
        assert task is not None
        task.cancel()
        await asyncio.wait((task,))
        await self.store.renew(self.presence.node, 0.0)

    def left(self, group: str = "g") -> list[str]:
        """Return whose leave was told of."""
        return sorted(who for kind, where, who in self.told if (kind, where) == ("leave", group))

    async def looks(self, seen: Callable[[], object]) -> None:
        """Look at the leases, as it does every few seconds, until ``seen()``."""

        def look() -> object:
            self.presence.check()
            return seen()

        await until(look)
