"""``RedisPresence``: who is in which group, on the server. The scripts are in ``presence_scripts.py``; knows no layer."""

from __future__ import annotations

from collections.abc import Collection, Sequence
from typing import TYPE_CHECKING, Any

from ...exceptions import EngineUnavailable
from ..base import Change, NodeLease, Present
from .presence_scripts import (
    CHANGE,
    CLAIM,
    END,
    FINISH,
    FORGET,
    GROUPS,
    NOTE,
    ONLINE,
    PAGE,
    RENEW_NODE,
    STATS,
    SWEEP,
    SWEPT,
)

if TYPE_CHECKING:
    from .desk import ScriptRunner
    from .keys import Keys
    from .scripts import Script

__all__ = ["RedisPresence"]

# A claim to sweep a node holds for so long without a new one.
CLAIM_MS = 10_000
# The name of a node that was swept stays dead for so long.
OVER_MS = 86_400_000
# Groups that one step of a scan brings, about.
SCAN = 500
_WORDS = {0: "", 1: "join", 2: "away", 3: "missing"}


class RedisPresence:
    """A PresenceStore on one server, on shards or in a cluster; one node's, on its loop."""

    def __init__(self, engine: ScriptRunner, keys: Keys) -> None:
        self._engine = engine
        self._root = keys.root
        self._leases = keys.root + b"{leases}"

    def __repr__(self) -> str:
        return f"<RedisPresence {self._root.decode()!r}>"

    # Nodes

    async def renew(self, node: str, ttl_s: float) -> tuple[str, list[NodeLease]]:
        """Let a node live on; return what it was, and all leases."""
        keys = [self._leases, self._leases + b":s"]
        state, now, *found = await self._engine.script(RENEW_NODE, self._leases, keys, [node, _ms(ttl_s)])
        leases = []
        for name, until_ms, swept_ms in zip(found[::3], found[1::3], found[2::3], strict=True):
            swept_s = (float(now) - float(swept_ms)) / 1000 if float(swept_ms) > 0 else None
            leases.append(NodeLease(name.decode(), (float(now) - float(until_ms)) / 1000, swept_s))
        return state.decode(), leases

    async def end(self, node: str) -> None:
        """End a node's lease now."""
        await self._engine.script(END, self._leases, [self._leases], [node])

    async def note(
        self,
        node: str,
        groups: Collection[str],
        idle: Collection[str],
        online: Collection[str],
        offline: Collection[str],
    ) -> None:
        """Note where a node has entries, and who its users are."""
        pairs: list[str] = []
        for kind, names in (("g+", groups), ("g-", idle), ("o+", online), ("o-", offline)):
            for name in names:
                pairs += kind, name
        if pairs:
            await self._engine.script(NOTE, self._leases, [self._of(b"g", node), self._of(b"o", node)], pairs)

    async def claim(self, dead: str, node: str, dead_for_s: float) -> bool:
        """Take it upon a node to sweep another."""
        keys = [self._leases, self._leases + b":s", self._leases + b":b"]
        return bool(await self._engine.script(CLAIM, self._leases, keys, [dead, node, _ms(dead_for_s), CLAIM_MS]))

    async def groups(self, node: str, cursor: int) -> tuple[int, list[str]]:
        """Return some groups in which a node has entries, and where to go on."""
        following, found = await self._engine.script(GROUPS, self._leases, [self._of(b"g", node)], [cursor, SCAN])
        return int(following), [name.decode() for name in found[::2]]

    async def swept(self, dead: str) -> None:
        """Note that a dead node has been swept."""
        await self._engine.script(SWEPT, self._leases, [self._leases + b":s"], [dead])

    async def forget(self, dead: str) -> None:
        """Forget a dead node."""
        shared = [self._leases, self._leases + b":s", self._leases + b":b"]
        keys = [*shared, self._of(b"g", dead), self._of(b"o", dead)]
        await self._engine.script(FORGET, self._leases, keys, [dead, OVER_MS])

    async def online(self, users: Collection[str], nodes: Collection[str]) -> set[str]:
        """Return those of ``users`` who are noted for one of ``nodes``."""
        if not users or not nodes:
            return set()
        asked = list(users)
        keys = [self._of(b"o", node) for node in nodes]
        found = await self._engine.script(ONLINE, self._leases, keys, asked)
        return {user for user, there in zip(asked, found, strict=True) if there}

    # Groups

    async def change(self, group: str, node: str, changes: Sequence[Change], grace_s: float) -> list[str]:
        """Let a node's connections enter and leave; return a word for each."""
        args: list[bytes | str | int] = [_ms(grace_s)]
        for change in changes:
            args += ("=" if change.again else "+") if change.enters else "-", _pack(change.present)
        keys = [*self._shared(group), self._members(group, node)]
        return [_WORDS[word] for word in await self._run(CHANGE, keys, args)]

    async def finish(self, group: str, limit: int) -> tuple[list[Present], float | None]:
        """Remove users whose grace is over."""
        wait_ms, *left = await self._run(FINISH, self._shared(group), [limit])
        return [_unpack(entry) for entry in left], None if wait_ms < 0 else wait_ms / 1000

    async def sweep(self, group: str, dead: str, limit: int) -> tuple[list[Present], bool]:
        """Remove entries of a dead node."""
        more, *left = await self._run(SWEEP, [*self._shared(group), self._members(group, dead)], [limit])
        return [_unpack(entry) for entry in left], more > 0

    async def stats(self, group: str, nodes: Collection[str]) -> tuple[int, int]:
        """Count entries and users."""
        connections, users = await self._run(
            STATS, [self._key(group, b"u"), *(self._members(group, node) for node in nodes)], []
        )
        return connections, users

    async def page(self, group: str, nodes: Sequence[str], after: str, limit: int) -> list[list[Present]]:
        """Return entries, a list a node, until there are ``limit``."""
        if not nodes:
            return []
        # What begins with the channel and NUL comes before this, and every later channel after it.
        start = b"(%b\1" % after.encode() if after else b"-"
        keys = [self._members(group, node) if node else self._key(group, b"a") for node in nodes]
        found = await self._run(PAGE, keys, [start, limit])
        return [[_unpack(entry) for entry in entries] for entries in found]

    # Keys

    async def _run(self, script: Script, keys: list[bytes], args: Sequence[bytes | str | int]) -> Any:
        return await self._engine.script(script, keys[0], keys, args)

    def _key(self, group: str, part: bytes) -> bytes:
        return b"%b{p:%b}:%b" % (self._root, group.encode(), part)

    def _shared(self, group: str) -> list[bytes]:
        return [self._key(group, part) for part in (b"u", b"a", b"d")]

    def _members(self, group: str, node: str) -> bytes:
        return self._key(group, b"m:" + node.encode())

    def _of(self, kind: bytes, node: str) -> bytes:
        return b"%b:%b:%b" % (self._leases, kind, node.encode())


def _ms(seconds: float) -> int:
    return round(seconds * 1000)


def _pack(present: Present) -> bytes:
    user = present.user.encode()
    return b"%b\0%d:%b%b" % (present.channel.encode(), len(user), user, present.info)


def _unpack(entry: bytes) -> Present:
    channel, _, rest = entry.partition(b"\0")
    length, colon, rest = rest.partition(b":")
    if not colon or not length.isdigit():
        raise EngineUnavailable(f"the server holds a member that no release of ours can have written: {entry!r:.80}")
    return Present(channel.decode(), rest[: int(length)].decode(), rest[int(length) :])
