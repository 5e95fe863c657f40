"""``Sweeps``: one node's look at the leases of the others. Removes what dead ones have left, and announces who left.

Every node looks; one at a time claims a dead node, and the store returns each user that is gone to one caller alone. A
node that ended is swept twice, a minute apart: a process that was stopped in the middle of a write may finish it then.
"""

from __future__ import annotations

import asyncio
import contextlib
import logging
from collections.abc import Sequence
from functools import partial

from ...engines.base import NodeLease, PresenceStore
from ...exceptions import EngineUnavailable
from ..group_options import GroupTable
from .announcements import LEAVE, Announcements

__all__ = ["Sweeps"]

logger = logging.getLogger("antiphon.layer")

# Entries of one call of the store, and groups at once.
ENTRIES = 250
GROUPS = 16
# The second time, so long after the first.
AGAIN_S = 60.0
# A little later than due: clocks of servers tick in milliseconds.
SLACK_S = 0.01
# A claim is renewed more often than it lapses.
CLAIM_EVERY_S = 3.0


class Sweeps:
    """Sweeps dead nodes. ``look`` is called with all leases, again and again."""

    def __init__(self, store: PresenceStore, table: GroupTable, announcements: Announcements) -> None:
        self._store = store
        self._table = table
        self._announcements = announcements
        self._graces = sorted({o.presence_grace_s for _, _, o in table.patterns if o.presence}) or [0.0]
        self._tasks: dict[str, asyncio.Task[None]] = {}
        self._done: dict[str, set[str]] = {}  # dead node -> groups that are swept already

    def __repr__(self) -> str:
        return f"<Sweeps of {list(self._tasks)!r}>"

    def look(self, node: str, leases: Sequence[NodeLease]) -> float:
        """Begin to sweep who is dead; return after how many seconds to look again, at the latest."""
        wait_s = float("inf")
        for lease in leases:
            if lease.ended_s < 0 or lease.node == node:
                continue
            for grace_s in self._graces:
                if grace_s > lease.ended_s:
                    wait_s = min(wait_s, grace_s - lease.ended_s + SLACK_S)
            first = lease.swept_s is None and lease.ended_s >= self._graces[0]
            second = lease.swept_s is not None and lease.swept_s >= AGAIN_S
            if (first or second) and lease.node not in self._tasks:
                sweep = self._sweep(node, lease, last=second)
                task = asyncio.get_running_loop().create_task(sweep, name=f"antiphon sweep of {lease.node}")
                self._tasks[lease.node] = task
                task.add_done_callback(partial(self._ended, lease.node))
        for dead in self._done.keys() - {lease.node for lease in leases}:
            del self._done[dead]
        return wait_s

    async def close(self) -> None:
        """End what is under way: another node goes on with it."""
        for task in tuple(self._tasks.values()):
            task.cancel()
        if self._tasks:
            await asyncio.wait(self._tasks.values())

    def _ended(self, dead: str, task: asyncio.Task[None]) -> None:
        self._tasks.pop(dead, None)

    async def _sweep(self, node: str, lease: NodeLease, *, last: bool) -> None:
        try:
            with contextlib.suppress(EngineUnavailable):  # at the next look, by us or another
                await self._sweep_groups(node, lease, last=last)
        except Exception:
            logger.exception("Node %s could not be swept", lease.node)

    async def _sweep_groups(self, node: str, lease: NodeLease, *, last: bool) -> None:
        now = asyncio.get_running_loop().time
        began_s, claimed_s = now(), float("-inf")
        done = self._done.setdefault(lease.node, set())
        if last:
            done.clear()
        cursor, all_due = 0, True
        while True:
            if now() - claimed_s > CLAIM_EVERY_S:
                if not await self._store.claim(lease.node, node, self._graces[0]):
                    return
                claimed_s = now()
            cursor, groups = await self._store.groups(lease.node, cursor)
            dead_for_s = lease.ended_s + now() - began_s
            due = [g for g in groups if self._table.of(g).presence_grace_s <= dead_for_s]
            all_due = all_due and len(due) == len(groups)
            todo = [group for group in due if group not in done]
            for start in range(0, len(todo), GROUPS):
                part = todo[start : start + GROUPS]
                await asyncio.gather(*(self._sweep_group(group, lease.node) for group in part))
                done.update(part)
            if cursor == 0:
                break
        if all_due:
            self._done.pop(lease.node, None)
            await (self._store.forget(lease.node) if last else self._store.swept(lease.node))

    async def _sweep_group(self, group: str, dead: str) -> None:
        more = True
        while more:
            left, more = await self._store.sweep(group, dead, ENTRIES)
            self._announcements.add(group, LEAVE, left)
            await self._announcements.room()
        wait_s: float | None = 0.0
        while wait_s is not None and wait_s <= 0:
            # Those whose grace the dead node would have ended.
            left, wait_s = await self._store.finish(group, ENTRIES)
            self._announcements.add(group, LEAVE, left)
            await self._announcements.room()
