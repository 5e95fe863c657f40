"""``MemoryPresence``: who is in which group of one process. Knows no node but by its name, and no layer."""

from __future__ import annotations

import threading
from bisect import bisect_left, bisect_right, insort
from collections.abc import Collection, Sequence
from time import monotonic

from ..base import Change, NodeLease, Present

__all__ = ["MemoryPresence"]

# A claim to sweep a node holds for so long.
CLAIM_S = 10.0
# The name of a node that was swept stays dead for so long.
OVER_S = 86400.0


class _Entries:
    """The connections of one node in one group, and their channels in order."""

    __slots__ = ("by_channel", "order")

    def __init__(self) -> None:
        self.by_channel: dict[str, Present] = {}
        # A list: a hundred thousand places move in 20 us, and reading it in order costs nothing.
        self.order: list[str] = []

    def add(self, present: Present) -> bool:
        if present.channel in self.by_channel:
            return False
        self.by_channel[present.channel] = present
        insort(self.order, present.channel)
        return True

    def remove(self, channel: str) -> bool:
        if self.by_channel.pop(channel, None) is None:
            return False
        del self.order[bisect_left(self.order, channel)]
        return True

    def after(self, channel: str, limit: int) -> list[Present]:
        start = bisect_right(self.order, channel)
        return [self.by_channel[each] for each in self.order[start : start + limit]]


class _Group:
    """One group. ``users``: connections of each; 0 while the grace runs: the last one is an entry of the node "" then."""

    __slots__ = ("due", "entries", "last", "users")

    def __init__(self) -> None:
        self.users: dict[str, int] = {}
        self.entries: dict[str, _Entries] = {"": _Entries()}
        self.last: dict[str, tuple[float, str]] = {}  # whose grace runs -> when it ends, channel of the last connection
        self.due: list[tuple[float, str]] = []  # when it ends, whose it is; sorted

    def enter(self, node: str, change: Change) -> str:
        present = change.present
        user = present.user
        if not self.entries.setdefault(node, _Entries()).add(present):
            return "join" if change.again and self.users[user] == 1 else ""
        count = self.users.get(user)
        self.users[user] = (count or 0) + 1
        if count == 0:
            self._take_back(user)
        return "join" if count is None else ""

    def leave(self, node: str, present: Present, due_s: float) -> str:
        if not self._remove(node, present.channel):
            return "missing"
        user = present.user
        self.users[user] -= 1
        if self.users[user]:
            return ""
        self.entries[""].add(present)
        self.last[user] = due_s, present.channel
        insort(self.due, (due_s, user))
        return "away"

    def finish(self, now: float, limit: int) -> tuple[list[Present], float | None]:
        left: list[Present] = []
        while self.due and len(left) < limit and self.due[0][0] <= now:
            user = self.due[0][1]
            left.append(self.entries[""].by_channel[self.last[user][1]])
            self._take_back(user)
            del self.users[user]
        return left, self.due[0][0] - now if self.due else None

    def sweep(self, dead: str, limit: int) -> tuple[list[Present], bool]:
        entries = self.entries.get(dead)
        if entries is None:
            return [], False
        left = []
        for present in entries.after("", limit):
            self._remove(dead, present.channel)
            self.users[present.user] -= 1
            if not self.users[present.user]:
                del self.users[present.user]
                left.append(present)
        return left, dead in self.entries

    def _take_back(self, user: str) -> None:
        due_s, channel = self.last.pop(user)
        self.entries[""].remove(channel)
        del self.due[bisect_left(self.due, (due_s, user))]

    def _remove(self, node: str, channel: str) -> bool:
        entries = self.entries.get(node)
        if entries is None or not entries.remove(channel):
            return False
        if not entries.order:
            del self.entries[node]
        return True


class _Node:
    __slots__ = ("claimed_by", "claimed_until_s", "groups", "swept_s", "until_s", "users")

    def __init__(self) -> None:
        self.until_s = 0.0
        self.swept_s: float | None = None
        self.claimed_by, self.claimed_until_s = "", 0.0
        self.groups: set[str] = set()
        self.users: set[str] = set()


class MemoryPresence:
    """A PresenceStore of the process. Safe from any thread; nothing in it waits."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._nodes: dict[str, _Node] = {}
        self._groups: dict[str, _Group] = {}
        self._over: dict[str, float] = {}

    def __repr__(self) -> str:
        return f"<MemoryPresence {len(self._groups)} groups, {len(self._nodes)} nodes>"

    # Nodes

    async def renew(self, node: str, ttl_s: float) -> tuple[str, list[NodeLease]]:
        """Let a node live on; return what it was, and all leases."""
        now = monotonic()
        with self._lock:
            state = "kept"
            if node:
                state = self._renew(node, now + ttl_s)
            return state, [
                NodeLease(name, now - each.until_s, None if each.swept_s is None else now - each.swept_s)
                for name, each in self._nodes.items()
            ]

    def _renew(self, node: str, until_s: float) -> str:
        mine = self._nodes.get(node)
        if node in self._over or (mine is not None and mine.claimed_by):
            return "over"
        state = "kept" if mine is not None else "new"
        self._nodes.setdefault(node, _Node()).until_s = until_s
        return state

    async def end(self, node: str) -> None:
        """End a node's lease now."""
        with self._lock:
            if node in self._nodes:
                self._nodes[node].until_s = min(self._nodes[node].until_s, monotonic())

    async def note(
        self,
        node: str,
        groups: Collection[str],
        idle: Collection[str],
        online: Collection[str],
        offline: Collection[str],
    ) -> None:
        """Note where a node has entries, and who its users are."""
        with self._lock:
            mine = self._nodes.setdefault(node, _Node())
            mine.groups.update(groups)
            mine.groups.difference_update(idle)
            mine.users.update(online)
            mine.users.difference_update(offline)

    async def claim(self, dead: str, node: str, dead_for_s: float) -> bool:
        """Take it upon a node to sweep another."""
        now = monotonic()
        with self._lock:
            its = self._nodes.get(dead)
            if its is None or its.until_s + dead_for_s > now:
                return False
            if its.claimed_by not in ("", node) and its.claimed_until_s > now:
                return False
            its.claimed_by, its.claimed_until_s = node, now + CLAIM_S
            return True

    async def groups(self, node: str, cursor: int) -> tuple[int, list[str]]:
        """Return the groups in which a node has entries: all at once."""
        with self._lock:
            return 0, list(self._nodes[node].groups) if node in self._nodes else []

    async def swept(self, dead: str) -> None:
        """Note that a dead node has been swept."""
        with self._lock:
            if dead in self._nodes:
                self._nodes[dead].swept_s = monotonic()

    async def forget(self, dead: str) -> None:
        """Forget a dead node."""
        now = monotonic()
        with self._lock:
            self._nodes.pop(dead, None)
            self._over = {name: until_s for name, until_s in self._over.items() if until_s > now}
            self._over[dead] = now + OVER_S

    async def online(self, users: Collection[str], nodes: Collection[str]) -> set[str]:
        """Return those of ``users`` who are noted for one of ``nodes``."""
        with self._lock:
            return {user for user in users if any(user in self._nodes[n].users for n in nodes if n in self._nodes)}

    # Groups

    async def change(self, group: str, node: str, changes: Sequence[Change], grace_s: float) -> list[str]:
        """Let a node's connections enter and leave; return a word for each."""
        due_s = monotonic() + grace_s
        with self._lock:
            its = self._groups.setdefault(group, _Group())
            words = [its.enter(node, each) if each.enters else its.leave(node, each.present, due_s) for each in changes]
            self._tidy(group, its)
        return words

    async def finish(self, group: str, limit: int) -> tuple[list[Present], float | None]:
        """Remove users whose grace is over."""
        with self._lock:
            its = self._groups.get(group)
            if its is None:
                return [], None
            left, wait_s = its.finish(monotonic(), limit)
            self._tidy(group, its)
        return left, wait_s

    async def sweep(self, group: str, dead: str, limit: int) -> tuple[list[Present], bool]:
        """Remove entries of a dead node."""
        with self._lock:
            its = self._groups.get(group)
            if its is None:
                return [], False
            left, more = its.sweep(dead, limit)
            self._tidy(group, its)
        return left, more

    async def stats(self, group: str, nodes: Collection[str]) -> tuple[int, int]:
        """Count entries and users."""
        with self._lock:
            its = self._groups.get(group)
            if its is None:
                return 0, 0
            return sum(len(its.entries[node].order) for node in nodes if node in its.entries), len(its.users)

    async def page(self, group: str, nodes: Sequence[str], after: str, limit: int) -> list[list[Present]]:
        """Return entries, a list a node, until there are ``limit``."""
        pages: list[list[Present]] = []
        with self._lock:
            its = self._groups.get(group)
            for node in nodes:
                entries = its.entries.get(node) if its is not None else None
                pages.append(entries.after("" if pages else after, limit) if entries is not None else [])
                limit -= len(pages[-1])
                if limit <= 0:
                    break
        return pages

    def clear(self) -> None:
        """Lose everything, as a server that was emptied."""
        with self._lock:
            self._nodes.clear()
            self._groups.clear()
            self._over.clear()

    def _tidy(self, group: str, its: _Group) -> None:
        if not its.users:
            self._groups.pop(group, None)
