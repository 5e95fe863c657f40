"""Where the blocking publisher's keys live now, and connections to there, kept for the next call.

Lends a line and takes it back; what is done with one, and what a failure means, is the publisher's. After a fork
everything inherited is closed unused: the sockets are the parent's.
"""

from __future__ import annotations

import os
import threading
import weakref
from collections.abc import Callable, Collection, Sequence
from time import monotonic
from typing import Any

from ...exceptions import EngineUnavailable
from .dial import pack
from .hosts import Address, Host, SentinelHost, SingleHost
from .line import Line, Severed, Undecided
from .topology import ClusterMap, find_primary_blocking, read_cluster_blocking, shard_of

__all__ = ["NotPrimary", "Pool"]

_AGAIN_S = 1.0  # how often sentinels and ROLE are asked while there is traffic
_QUICK_S = 0.3  # how long that may take where an answer is at hand already
_DOWN_S = 1.0  # for so long after a failure a server counts as down
_IDLE_MAX = 64  # idle connections kept for one server


class NotPrimary(Exception):
    """A server that was a primary is none any more; nothing was sent to it."""


class Pool:
    """Addresses and idle connections of one process. Any thread may call it.

    ``greet(line, limit_s)`` is called with each new connection before its first use. What it does without a lock is
    one operation on a dict, list or set, which is atomic.
    """

    def __init__(self, hosts: Sequence[Host], *, cluster: bool, greet: Callable[[Line, float], None]) -> None:
        self.hosts = tuple(hosts)
        self.cluster = cluster
        self._watched = any(isinstance(host, SentinelHost) for host in self.hosts)
        self._greet = greet
        self._ended_sent = self.connections_made = 0
        self._start()
        _pools.add(self)

    def _start(self) -> None:
        self.pid = os.getpid()
        self._counting = threading.Lock()
        self._lines: set[Line] = set()  # the lent ones too
        self._idle: dict[Address, list[Line]] = {}
        self.failures: dict[object, float] = {}  # address, or what is asked for addresses -> when it last failed
        self._primaries: dict[int, tuple[Address, float]] = {}  # shard -> where it is, and when that was asked
        self._map: ClusterMap | None = None

    def __repr__(self) -> str:
        where = "cluster" if self.cluster else f"{len(self.hosts)} hosts"
        return f"<Pool {where} open={len(self._lines)} made={self.connections_made}>"

    @property
    def sent(self) -> int:
        """How many publishes were confirmed on all lines, those ended too."""
        with self._counting:
            return self._ended_sent + sum(line.sent for line in self._lines)

    # --- where

    def address_of(self, key: bytes, limit_s: float) -> Address:
        """Say where a key lives; asks sentinels or the cluster when that is not known. Raises EngineUnavailable."""
        if self.cluster:
            known = self._map
            if known is None:
                known = self._map = self._read_map(limit_s)
            return known.owner_of(key)
        shard = shard_of(key, len(self.hosts))
        host = self.hosts[shard]
        return host.address if isinstance(host, SingleHost) else self._primary(shard, host, limit_s)

    def known_address_of(self, key: bytes) -> Address | None:
        """Say where a key lives without asking anybody."""
        if self.cluster:
            known = self._map
            return known.owner_of(key) if known is not None else None
        shard = shard_of(key, len(self.hosts))
        host = self.hosts[shard]
        if isinstance(host, SingleHost):
            return host.address
        found = self._primaries.get(shard)
        return found[0] if found is not None else None

    def guide_of(self, key: bytes) -> object:
        """Return what stands for those who are asked where ``key`` lives, in ``failures``."""
        return "cluster" if self.cluster else shard_of(key, len(self.hosts))

    def forget(self, key: bytes) -> None:
        """Ask again where a key lives at the next need."""
        self._map = None
        if not self.cluster:
            self._primaries.pop(shard_of(key, len(self.hosts)), None)

    def is_down(self, what: object) -> bool:
        """Say whether an address, or a guide, failed within the last second."""
        failed = self.failures.get(what)
        return failed is not None and monotonic() - failed < _DOWN_S

    def answered(self, address: Address, key: bytes) -> None:
        """Learn that a server is well, and with it those who said where ``key`` lives."""
        self.failures.pop(address, None)
        self.failures.pop(self.guide_of(key), None)
        for what in tuple(self.failures):  # some servers never come back
            if not self.is_down(what):
                self.failures.pop(what, None)

    def _read_map(self, limit_s: float) -> ClusterMap:
        seeds = [host.address for host in self.hosts if isinstance(host, SingleHost)]
        # Then servers seen before: the configured ones may all be gone by now.
        seeds += [address for address in tuple(self._idle) if address not in seeds]
        fresh = read_cluster_blocking(sorted(seeds, key=self.is_down), limit_s)
        self._keep(fresh.masters)
        return fresh

    def _primary(self, shard: int, host: Host, limit_s: float) -> Address:
        known = self._primaries.get(shard)
        if known is not None:
            now = monotonic()
            if now - known[1] < _AGAIN_S or not isinstance(host, SentinelHost):
                return known[0]
            # Others go on with what is known while this thread asks. Nothing else tells of a fail-over while the old
            # primary hangs, or still takes itself for one.
            self._primaries[shard] = (known[0], now)
        try:
            address = find_primary_blocking(host, limit_s if known is None else min(limit_s, _QUICK_S))
        except EngineUnavailable:
            if known is None:
                raise
            return known[0]  # sentinels may be away while the primary is well
        self._primaries[shard] = (address, monotonic())
        current = {found for found, _ in tuple(self._primaries.values())}
        self._keep(current.union(host.address for host in self.hosts if isinstance(host, SingleHost)))
        return address

    def _keep(self, addresses: Collection[Address]) -> None:
        """Drop the idle connections to all other servers."""
        for address in tuple(self._idle):
            if address not in addresses:
                self.end(*self._idle.pop(address, ()))

    # --- connections

    def take(self, address: Address, limit_s: float, *, probe: bool = False) -> Line:
        """Lend a live connection. Raises DialError, Severed or NotPrimary: nothing was sent.

        ``probe``: an idle one must answer a PING first, because its server failed just now.
        """
        line = self._idle_line(address)
        if line is None:
            line = self._dial(address, limit_s)
        elif probe:
            self._ask(line, "PING", limit_s)
        if self._watched and monotonic() - line.checked_at > _AGAIN_S:
            role = self._ask(line, "ROLE", limit_s)
            if role[0] != b"master":
                self.end(line)
                raise NotPrimary(f"{address.name} is no longer a primary")
            line.checked_at = monotonic()
        return line

    def at_hand(self, key: bytes) -> Line | None:
        """Lend a live connection to where ``key`` lives, if there is one and nobody needs to be asked."""
        if self._watched or self.failures or self.pid != os.getpid():
            return None
        address = self.known_address_of(key)
        return self._idle_line(address) if address is not None else None

    def _idle_line(self, address: Address) -> Line | None:
        idle = self._idle.get(address)
        while idle:
            try:
                line = idle.pop()  # the one used last: the others may grow old
            except IndexError:  # another thread was faster
                break
            if not line.is_dead():
                return line
            self.end(line)
        return None

    def _ask(self, line: Line, question: str, limit_s: float) -> Any:
        try:
            return line.call(pack(question), limit_s)
        except Undecided as exc:
            self.end(line)
            raise Severed(str(exc)) from exc  # a question has no outcome to be unsure of
        except BaseException:
            self.end(line)
            raise

    def _dial(self, address: Address, limit_s: float) -> Line:
        line = Line(address, limit_s)
        with self._counting:
            self.connections_made += 1
            self._lines.add(line)
        try:
            self._greet(line, limit_s)
        except Undecided as exc:
            self.end(line)
            raise Severed(str(exc)) from exc
        except BaseException:
            self.end(line)
            raise
        return line

    def give(self, line: Line) -> None:
        """Take a line back that has no reply outstanding."""
        idle = self._idle.get(line.address)
        if idle is None:
            idle = self._idle.setdefault(line.address, [])
        if len(idle) < _IDLE_MAX:
            idle.append(line)
        else:
            self.end(line)

    def end(self, *lines: Line) -> None:
        """Close lines for good."""
        for line in lines:
            with self._counting:
                if line in self._lines:
                    self._lines.discard(line)
                    self._ended_sent += line.sent
            line.close()

    def close(self) -> None:
        """Close the idle lines."""
        idle, self._idle = self._idle, {}
        for lines in idle.values():
            self.end(*lines)

    def after_fork(self) -> None:
        """Begin anew in a child."""
        lines = self._lines
        self._start()
        for line in lines:
            self._ended_sent += line.sent
            line.abandon()


_pools: weakref.WeakSet[Pool] = weakref.WeakSet()


def _after_fork() -> None:
    for pool in tuple(_pools):
        pool.after_fork()


if hasattr(os, "register_at_fork"):
    os.register_at_fork(after_in_child=_after_fork)
