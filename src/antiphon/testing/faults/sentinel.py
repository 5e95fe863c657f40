"""``ValkeySentinel``: a primary, its replica and three Sentinels. Knows what Sentinels say, not what clients make of it."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import ExitStack, suppress
from pathlib import Path
from typing import Any, Literal

from .resp import RespError
from .startable import Startable
from .valkey import HOST, ValkeyServer, until

__all__ = ["ValkeySentinel"]

SERVICE = "m"
DOWN_AFTER_MS = 2000  # below, a busy machine's pauses are failovers that nobody asked for
FAILOVER_TIMEOUT_MS = 4000
READY_LIMIT_S = 30.0
FAILOVER_LIMIT_S = 40.0


class _Sentinel(ValkeyServer):
    _sentinel = True


class ValkeySentinel(Startable):
    """One service named ``m`` under three Sentinels, started by ``start()`` or as a context manager.

    ``options`` are those of the two servers. ``hosts`` is what a layer's ``hosts`` takes. Who is primary is asked from
    the Sentinels at each access.
    """

    def __init__(self, *, binary: str | Path | None = None, **options: Any) -> None:
        if "requirepass" in options:
            options["masterauth"] = options["requirepass"]
        self.servers = [ValkeyServer(binary=binary, **options) for _ in range(2)]
        self.sentinels: list[ValkeyServer] = []
        self._binary = binary

    def __repr__(self) -> str:
        return f"<{type(self).__name__} {self.servers} sentinels {[each.port for each in self.sentinels]}>"

    @property
    def running(self) -> bool:
        """Whether any of the five runs."""
        return any(each.running for each in (*self.servers, *self.sentinels))

    @property
    def hosts(self) -> list[dict[str, Any]]:
        """The layer's ``hosts``, with the Sentinels' addresses."""
        return [{"master_name": SERVICE, "sentinels": [(HOST, each.port) for each in self.sentinels]}]

    @property
    def primary(self) -> ValkeyServer:
        """The server that most Sentinels call the primary now."""
        named = list(self._named_primaries())
        if not named:
            raise RuntimeError(f"no Sentinel answers: {self!r}")
        port = max(set(named), key=named.count)
        return next(each for each in self.servers if each.port == port)

    @property
    def replica(self) -> ValkeyServer:
        """The other one."""
        primary = self.primary
        return next(each for each in self.servers if each is not primary)

    def start(self) -> None:
        """Start all five, and return when every Sentinel knows the others and the replica is in step."""
        first, second = self.servers
        first.start()
        second.options |= {"replicaof": (HOST, first.port)}
        second.start()
        lines: list[tuple[Any, ...]] = [
            ("monitor", SERVICE, HOST, first.port, 2),
            ("down-after-milliseconds", SERVICE, DOWN_AFTER_MS),
            ("failover-timeout", SERVICE, FAILOVER_TIMEOUT_MS),
        ]
        if password := first.options.get("requirepass"):
            lines.append(("auth-pass", SERVICE, password))
        self.sentinels.clear()
        for _ in range(3):
            sentinel = _Sentinel(binary=self._binary, sentinel=lines)
            self.sentinels.append(sentinel)
            sentinel.start()
        until(self._ready, READY_LIMIT_S, "the Sentinels to find each other and the replica")

    def close(self) -> None:
        """End all five and remove their folders."""
        with ExitStack() as stack:
            for each in (*self.servers, *self.sentinels):
                stack.callback(each.close)

    def failover(self, how: Literal["kill", "stop", "command"] = "kill") -> ValkeyServer:
        """Take the primary away, and return the new one when the Sentinels agree on it and it takes writes.

        ``how``: ``"kill"`` and ``"stop"`` do that to the old one, which stays so until it is restarted or resumed;
        ``"command"`` asks a Sentinel (`SENTINEL FAILOVER`), and the old one goes on for some 10 s.
        """
        old = self.primary
        if how == "command":
            self.sentinels[0].command("SENTINEL", "FAILOVER", SERVICE)
        else:
            getattr(old, how)()
        return self.wait_for_failover(old)

    def wait_for_failover(self, old: ValkeyServer) -> ValkeyServer:
        """Return the new primary in place of ``old``, when the Sentinels agree on it and it takes writes."""
        new = next(each for each in self.servers if each is not old)

        def promoted() -> bool:
            named = set(self._named_primaries())
            return named == {new.port} and new.info("replication")["role"] == "master"

        until(promoted, FAILOVER_LIMIT_S, f"the Sentinels to make {new!r} the primary")
        return new

    def heal(self) -> None:
        """Bring back what is down or stopped, and return when the service could fail over again.

        Sentinels let some 10 s pass before they make a returned primary the replica; this does not wait for it.
        """
        for each in (*self.servers, *self.sentinels):
            if each.paused:
                each.resume()
            elif not each.running:
                each.start()
        self.replica.command("REPLICAOF", HOST, self.primary.port)
        until(self._ready, READY_LIMIT_S + FAILOVER_LIMIT_S, "the Sentinels to find the replica well")

    def _named_primaries(self) -> Iterator[int]:
        for each in self.sentinels:
            with suppress(OSError, RespError):
                if each.running and not each.paused:
                    answer = each.command("SENTINEL", "GET-MASTER-ADDR-BY-NAME", SERVICE)
                    if answer:
                        yield int(answer[1])

    def _ready(self) -> bool:
        if self.replica.info("replication").get("master_link_status") != "up":
            return False
        for each in self.sentinels:
            flat = each.command("SENTINEL", "MASTER", SERVICE)
            state = dict(zip(flat[::2], flat[1::2], strict=True))
            if state[b"num-slaves"] != b"1" or state[b"num-other-sentinels"] != b"2" or state[b"flags"] != b"master":
                return False
            flat = each.command("SENTINEL", "REPLICAS", SERVICE)[0]
            if dict(zip(flat[::2], flat[1::2], strict=True))[b"master-link-status"] != b"ok":
                return False
        return True
