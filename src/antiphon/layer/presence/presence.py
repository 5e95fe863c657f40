"""``Presence``: one node's part in knowing who is in which group. Knows no consumer, and a store only by its contract.

What enters and leaves is put down in a plain call, and one task brings it to the store: everything of one turn of the
loop in one call a group. The task also renews the node's lease, on which all its entries hold. So an entry costs the
engine something when it comes and when it goes, and nothing in between.

A store that has lost the node's lease has lost its entries: they are entered anew, and nobody is told of it. A node
that was held up for so long that others have swept it takes another name and enters everything anew; then whose leave
was announced is announced again.
"""

from __future__ import annotations

import asyncio
import contextlib
import logging
from collections.abc import Callable, Iterable, Sequence
from heapq import heappop, heappush
from itertools import islice
from typing import Any

from ...engines.base import Change, PresenceStore, Present
from ...exceptions import EngineUnavailable
from ...names import new_node_id
from ..group_options import GroupTable
from ..mailbox import Mailbox
from .announcements import JOIN, LEAVE, Announcements
from .audits import differences
from .online import OnlineUsers
from .steps import Step, all_of, finish
from .sweeps import Sweeps

__all__ = ["LEASE_S", "Presence"]

logger = logging.getLogger("antiphon.layer")

# How long a node's entries outlive its last sign of life.
LEASE_S = 15.0
# Changes of one call of the store, names of one note, groups at once.
CHANGES = 250
NAMES = 500
GROUPS = 64
# Groups whose entries are counted at each renewal, whether they are all still there.
AUDITED = 50
# After a failure the next attempt; and how long the end may take, for each step of it.
PAUSE_S = 0.3
CLOSE_S = 1.0
# Servers count milliseconds.
SLACK_S = 0.005


class Presence:
    """The members of one node's groups, as the engine is to know them. Lives on the node's loop.

    ``announce``, ``info_of``: as of ``Announcements``. ``encode(group, channel, info)``: what the store keeps of an
    info.
    """

    def __init__(
        self,
        loop: asyncio.AbstractEventLoop,
        store: PresenceStore,
        table: GroupTable,
        announcements: Announcements,
        encode: Callable[[str, str, dict[str, Any]], bytes],
        *,
        node: str | None = None,
        lease_s: float = LEASE_S,
    ) -> None:
        self.node = node or new_node_id()
        self.lease_s = lease_s
        self.announcements = announcements
        self._loop = loop
        self._store = store
        self._table = table
        self._encode = encode
        self._sweeps = Sweeps(store, table, announcements)
        self._members: dict[str, dict[str, Present]] = {}
        self._waiting: dict[str, list[Step]] = {}
        # group -> users whose grace runs -> until when the store is asked for them
        self._leaving: dict[str, dict[str, tuple[float, Present]]] = {}
        self._ends: list[tuple[float, str]] = []  # a heap: when a grace ends, in which group
        self._noted: set[str] = set()  # groups that the store knows to have entries of ours
        self._users = OnlineUsers()
        self._audit: list[str] = []
        self._suspects: set[str] = set()  # groups of which the store has lost something
        self._task: asyncio.Task[None] | None = None
        self._wake = asyncio.Event()
        self._leased = self._complained = self._closed = False
        self._renewed_s = self._renew_at_s = float("-inf")

    def __repr__(self) -> str:
        return f"<Presence {self.node} {self.count} members of {len(self._members)} groups, {self.waiting} waiting>"

    @property
    def count(self) -> int:
        """How many members this node has, in all groups."""
        return sum(len(members) for members in tuple(self._members.values()))

    @property
    def waiting(self) -> int:
        """How many changes the engine has not heard of."""
        return sum(len(steps) for steps in tuple(self._waiting.values()))

    # What the node calls

    def start(self) -> None:
        """Begin to hold the lease, and to look after those of others. On the node's loop; again does nothing."""
        if self._task is None and not self._closed:
            self._task = self._loop.create_task(self._run(), name=f"antiphon presence {self.node}")

    def wants(self, topic: str) -> bool:
        """Say whether a topic is that of a group of which it is known who is there."""
        return topic[:2] == "g:" and self._table.of(topic[2:]).presence

    def enter(self, group: str, mailbox: Mailbox, info: dict[str, Any] | None = None) -> asyncio.Future[None]:
        """Let a connection be present in a group. Again, with another info: it is replaced.

        A plain call. The future is done when the engine knows, which may be long after, when that is away; it need not
        be awaited, never fails and may be cancelled.
        """
        done: asyncio.Future[None] = self._loop.create_future()
        user = f"u{mailbox.user}" if mailbox.user is not None else f"c{mailbox.channel}"
        body = self._encode(group, mailbox.channel, info) if info else b""
        present = Present(mailbox.channel, user, body)
        before = self._members.get(group, {}).get(present.channel)
        if self._closed or before == present:
            done.set_result(None)
            return done
        if before is not None:
            self.exit(group, mailbox)
        self._members.setdefault(group, {})[present.channel] = present
        if mailbox.user is not None:
            self._users.connected(mailbox.user)
        self._waiting.setdefault(group, []).append(Step(Change(True, present), done))
        self.start()
        self._wake.set()
        return done

    def exit(self, group: str, mailbox: Mailbox) -> None:
        """Let a connection be present no more. A plain call; unknown ones are ignored."""
        members = self._members.get(group, {})
        present = members.pop(mailbox.channel, None)
        if present is None:
            return
        if not members:
            del self._members[group]
        self._waiting.setdefault(group, []).append(Step(Change(False, present)))
        if present.user[0] == "u":
            self._users.disconnected(present.user[1:], self._loop.time() + self._grace_s(group))
        self._wake.set()

    def check(self) -> None:
        """Look soon whether the engine still has everything: it was away."""
        self._audit = list(self._members)
        self._renew_at_s = float("-inf")
        self._wake.set()

    async def close(self) -> None:
        """End the lease: who does not come back on another node within the grace has left, and is announced there."""
        self._closed = True
        self._wake.set()
        await self._sweeps.close()
        if self._task is None:
            return
        await asyncio.wait((self._task,), timeout=CLOSE_S)
        self._task.cancel()
        await asyncio.wait((self._task,))
        for steps in self._waiting.values():
            finish(steps)
        await self.announcements.close(CLOSE_S)
        if self._leased:
            with contextlib.suppress(EngineUnavailable, TimeoutError):
                async with asyncio.timeout(CLOSE_S):
                    await self._store.end(self.node)

    def _grace_s(self, group: str) -> float:
        return self._table.of(group).presence_grace_s

    # The task

    async def _run(self) -> None:
        now = self._loop.time
        while True:
            self._wake.clear()
            try:
                await self._renew_if_due()
                await self._flush()
                if self._closed:
                    return
                await self._finish_due()
                await self._audit_some()
                self._complained = False
            except EngineUnavailable as exc:
                self._renew_at_s = float("-inf")  # first of all: it may come back with nothing
                if not self._complained:
                    self._complained = True
                    logger.warning(
                        "Presence of node %s cannot be kept now, and is brought up later: %s", self.node, exc
                    )
                await asyncio.sleep(PAUSE_S)
                continue
            except Exception:  # nobody foresaw it, and a node that ended here would leave all its groups
                logger.exception("Presence of node %s could not be kept", self.node)
                await asyncio.sleep(PAUSE_S)
                continue
            wait_s = 0.0 if self._audit else self._next_s() - now()
            with contextlib.suppress(TimeoutError):
                async with asyncio.timeout(max(0.0, wait_s)):
                    await self._wake.wait()

    def _next_s(self) -> float:
        ends = [due_s for due_s, _ in self._ends[:1]]
        return min([self._renew_at_s, self._users.next_s(), *ends])

    async def _renew_if_due(self) -> None:
        now = self._loop.time()
        if now < self._renew_at_s:
            return
        state, leases = await self._store.renew(self.node, self.lease_s)
        if state == "over":
            await self._begin_anew()
            return
        if state == "new" and self._leased:
            logger.warning("The engine has lost who is in which group; node %s enters its members anew", self.node)
            self._restore((*self._members, *self._waiting, *self._leaving), quiet=True)
        if not self._leased:
            self._users.tell_anew()
        self._leased = True
        self._renewed_s = now
        look_s = self._sweeps.look(self.node, leases)
        self._renew_at_s = now + min(self.lease_s / 3, look_s)
        self._audit = self._audit or self._some()
        await self._note_idle()

    async def _begin_anew(self) -> None:
        """Take another name: others have taken this node for dead."""
        dead, self.node = self.node, new_node_id()
        logger.warning(
            "Node %s was silent for too long: its members were taken for gone. It is %s now", dead, self.node
        )
        self._leased = False
        self._restore((*self._members, *self._waiting), quiet=False)
        await self._renew_if_due()

    def _restore(self, groups: Iterable[str], *, quiet: bool) -> None:
        """Enter anew what the store has lost, or holds under a dead name."""
        groups, self._suspects = set(groups), set()
        if groups:
            self._noted.clear()
            self._users.tell_anew()
        for group in groups:
            steps = self._waiting.get(group, [])
            coming = {step.change.present.channel for step in steps if step.change.enters}
            lost = [p for p in self._members.get(group, {}).values() if p.channel not in coming]
            lost += [step.change.present for step in steps if not step.change.enters]
            again = [Step(Change(True, present), quiet=quiet) for present in lost]
            if quiet:
                for _, present in self._leaving.pop(group, {}).values():
                    again += Step(Change(True, present), quiet=True), Step(Change(False, present))
            if again or steps:
                self._waiting[group] = [*again, *steps]

    async def _flush(self) -> None:
        """Bring to the store what waits."""
        now = self._loop.time
        while self._waiting or self._users.next_s() <= now():
            if self._suspects or now() - self._renewed_s > self.lease_s * 2 / 3:
                self._renew_at_s = float("-inf")  # others may be about to take us for dead, or have done so
                await self._renew_if_due()
                self._restore(self._suspects, quiet=True)
            groups = list(islice(self._waiting, GROUPS))
            await self._note([group for group in groups if group not in self._noted])
            await all_of(self._apply(group) for group in groups)

    async def _note(self, groups: Sequence[str]) -> None:
        coming, going = self._users.untold(self._loop.time())
        if groups or coming or going:
            await self._store.note(self.node, groups, (), coming, going)
            self._noted.update(groups)
            self._users.told(coming, going)

    async def _apply(self, group: str) -> None:
        steps = self._waiting[group][:CHANGES]
        changes = [step.change for step in steps]
        grace_s = self._grace_s(group)
        try:
            words = await self._store.change(group, self.node, changes, grace_s)
        except EngineUnavailable:
            for step in steps:
                step.change = step.change._replace(again=True)
            raise
        waiting = self._waiting[group]
        del waiting[: len(steps)]
        if not waiting:
            del self._waiting[group]
        now = self._loop.time()
        joined, missing, leaving = [], [], self._leaving.setdefault(group, {})
        for step, word in zip(steps, words, strict=True):
            present = step.change.present
            if word == "missing" and not step.change.again:
                missing.append(step)
            elif not step.change.enters:
                # Also where it was none: of a call that was sent again nobody knows what the first one did.
                if word == "away" or step.change.again:
                    leaving[present.user] = now + 2 * grace_s + PAUSE_S, present
            else:
                leaving.pop(present.user, None)
                if word == "join" and not step.quiet:
                    joined.append(present)
        if leaving:
            heappush(self._ends, (now + grace_s + SLACK_S, group))
        else:
            del self._leaving[group]
        self.announcements.add(group, JOIN, joined)
        if missing:
            self._suspect(group, missing)
        finish(steps)

    def _suspect(self, group: str, missing: Iterable[Step]) -> None:
        """Have what was not there to leave entered anew, quietly, so that it leaves as it should."""
        self._suspects.add(group)
        here = self._members.get(group, {})
        again = [step for step in missing if here.get(step.change.present.channel) != step.change.present]
        for step in again:
            step.change = step.change._replace(again=True)
        if again:
            self._waiting[group] = [*again, *self._waiting.get(group, ())]

    async def _finish_due(self) -> None:
        now, due = self._loop.time(), set()
        while self._ends and self._ends[0][0] <= now:
            due.add(heappop(self._ends)[1])
        groups = [group for group in due if group in self._leaving]
        try:
            for start in range(0, len(groups), GROUPS):
                await all_of(self._finish(group) for group in groups[start : start + GROUPS])
        except EngineUnavailable:
            for group in groups:
                heappush(self._ends, (now, group))
            raise

    async def _finish(self, group: str) -> None:
        """Announce whose grace is over."""
        wait_s: float | None = 0.0
        while wait_s is not None and wait_s <= 0:
            left, wait_s = await self._store.finish(group, CHANGES)
            self.announcements.add(group, LEAVE, left)  # and does not wait for them: the lease must be renewed
        now, leaving = self._loop.time(), self._leaving.pop(group, {})
        if wait_s is None:
            return  # who was not among them has come back on another node
        still = {user: (until_s, present) for user, (until_s, present) in leaving.items() if until_s > now}
        if still:
            self._leaving[group] = still
            heappush(self._ends, (now + wait_s + SLACK_S, group))

    # Whether the store has what it should

    def _some(self) -> list[str]:
        groups = list(islice(self._members, AUDITED))
        for group in groups:  # to the end of the line
            self._members[group] = self._members.pop(group)
        return groups

    async def _audit_some(self) -> None:
        now, self._audit = self._audit[:GROUPS], self._audit[GROUPS:]
        await all_of(self._audit_group(group) for group in now if group in self._members)

    async def _audit_group(self, group: str) -> None:
        """Count our entries of a group; mend what a server lost that failed over or was emptied in part."""
        if group in self._waiting:
            return
        await self._finish(group)  # those whom a node was to announce that died, or whose server's clock was set back
        missing, odd = await differences(self._store, group, self.node, dict(self._members.get(group, {})))
        if (missing or odd) and group not in self._waiting:  # else it is not known what is to be there
            logger.warning("The engine's members of group %r were not those of node %s: mended", group, self.node)
            self._waiting[group] = [Step(Change(True, present), quiet=True) for present in missing]
            self._waiting[group] += [Step(Change(False, present)) for present in odd]
            self._noted.discard(group)

    async def _note_idle(self) -> None:
        busy = self._members.keys() | self._waiting.keys() | self._leaving.keys()
        idle = list(islice((group for group in self._noted if group not in busy), NAMES))
        if idle:
            self._noted.difference_update(idle)
            await self._store.note(self.node, (), idle, (), ())
