"""``ValkeyCluster``: primaries that share the slots, with replicas where wanted. Knows what nodes say, not clients."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import ExitStack, suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from .resp import RespError
from .startable import Startable
from .valkey import HOST, ValkeyServer, until

__all__ = ["ValkeyCluster"]

SLOTS = 16384
NODE_TIMEOUT_MS = 1000
READY_LIMIT_S = 30.0
FAILOVER_LIMIT_S = 40.0
REPLICA_LIMIT_S = 3.0


@dataclass(frozen=True, slots=True)
class _Seen:
    """A line of CLUSTER NODES."""

    id: str
    port: int
    flags: tuple[str, ...]
    follows: str
    slots: tuple[range, ...]


class ValkeyCluster(Startable):
    """A cluster on 127.0.0.1, started by ``start()`` or as a context manager.

    ``replicas``: 0, or as many as there are primaries, one each. ``options`` are those of each server. ``hosts`` is what
    a layer's ``hosts`` takes. Who is primary of what is asked from the nodes at each access.
    """

    def __init__(
        self, primaries: int = 3, replicas: int = 0, *, binary: str | Path | None = None, **options: Any
    ) -> None:
        if replicas not in (0, primaries):
            raise ValueError(f"expected replicas to be 0 or {primaries}, one a primary, got {replicas}")
        settings: dict[str, Any] = {
            "cluster_enabled": True,
            "cluster_config_file": "nodes.conf",
            "cluster_node_timeout": NODE_TIMEOUT_MS,
            "cluster_require_full_coverage": False,
            "cluster_allow_replica_migration": False,  # a replica stays with its shard: tests name it
        }
        if "requirepass" in options:
            settings["masterauth"] = options["requirepass"]
        self.size = primaries
        self.servers = [ValkeyServer(binary=binary, **(settings | options)) for _ in range(primaries + replicas)]

    def __repr__(self) -> str:
        return f"<{type(self).__name__} {self.servers}>"

    @property
    def running(self) -> bool:
        """Whether any of its servers runs."""
        return any(each.running for each in self.servers)

    @property
    def hosts(self) -> list[str]:
        """The nodes' URLs, as a layer's ``hosts`` takes them."""
        return [each.url for each in self.servers]

    @property
    def primaries(self) -> list[ValkeyServer]:
        """The servers that hold slots and are not failing, as the nodes see it now."""
        return [self._server(each.port) for each in self._view() if each.slots and "fail" not in each.flags]

    def replica_of(self, primary: ValkeyServer) -> ValkeyServer:
        """Return the replica of a primary. Raises LookupError where it has none."""
        found: list[ValkeyServer] = []

        def look() -> bool:
            view = self._view()
            identity = next(each.id for each in view if each.port == primary.port)
            found[:] = [self._server(each.port) for each in view if each.follows == identity]
            return bool(found)

        with suppress(RuntimeError):
            until(look, REPLICA_LIMIT_S, "a replica")  # nodes hear of each other by and by
        if not found:
            raise LookupError(f"{primary!r} has no replica")
        return found[0]

    def slot_of(self, key: str | bytes) -> int:
        """Return the slot of a key or of a sharded channel."""
        return int(self._witness().command("CLUSTER", "KEYSLOT", key))

    def node_of(self, key: str | bytes | int) -> ValkeyServer:
        """Return the primary that serves a key, a sharded channel or, given an int, a slot."""
        slot = key if isinstance(key, int) else self.slot_of(key)
        for each in self._view():
            if "fail" not in each.flags and any(slot in held for held in each.slots):
                return self._server(each.port)
        raise LookupError(f"no primary serves slot {slot} now")

    def command(self, key: str | bytes, *args: Any) -> Any:
        """Send a command to the primary of ``key``; ``args`` is the whole command."""
        return self.node_of(key).command(*args)

    def start(self) -> None:
        """Start all nodes, and return when each has the whole map and every replica is in step; some seconds."""
        for each in self.servers:
            each.start()
        primaries = self.servers[: self.size]
        bounds = [SLOTS * number // self.size for number in range(self.size + 1)]
        for number, each in enumerate(primaries):
            each.command("CLUSTER", "ADDSLOTSRANGE", bounds[number], bounds[number + 1] - 1)
            each.command("CLUSTER", "SET-CONFIG-EPOCH", number + 1)
        for each in self.servers[1:]:
            self.servers[0].command("CLUSTER", "MEET", HOST, each.port)
        until(self._acquainted, READY_LIMIT_S, "the nodes to know each other")
        for primary, replica in zip(primaries, self.servers[self.size :], strict=False):
            replica.command("CLUSTER", "REPLICATE", primary.command("CLUSTER", "MYID"))
        until(self._ready, READY_LIMIT_S, "the cluster to serve all slots, each replica in step")

    def close(self) -> None:
        """End all nodes and remove their folders."""
        with ExitStack() as stack:
            for each in self.servers:
                stack.callback(each.close)

    def move_slot(self, slot: int, to: ValkeyServer) -> None:
        """Move a slot with its keys to another primary, as an operator does; returns when every node knows it."""
        source = self.node_of(slot)
        if source is to:
            return
        ids = {each.port: each.id for each in self._view()}
        to.command("CLUSTER", "SETSLOT", slot, "IMPORTING", ids[source.port])
        source.command("CLUSTER", "SETSLOT", slot, "MIGRATING", ids[to.port])
        password = to.options.get("requirepass")
        auth = ("AUTH", password) if password else ()
        while keys := source.command("CLUSTER", "GETKEYSINSLOT", slot, 100):
            source.command("MIGRATE", HOST, to.port, "", 0, 5000, *auth, "KEYS", *keys)
        for each in (to, source, *(each for each in self.primaries if each not in (to, source))):
            each.command("CLUSTER", "SETSLOT", slot, "NODE", ids[to.port])
        until(lambda: self._agree(slot, to), READY_LIMIT_S, f"every node to see slot {slot} on {to!r}")

    def failover(self, primary: ValkeyServer) -> ValkeyServer:
        """Kill a primary and return what was its replica, when that serves its slots."""
        replica = self.replica_of(primary)
        slot = next(held.start for each in self._view() if each.port == primary.port for held in each.slots)
        primary.kill()
        until(lambda: self._agree(slot, replica), FAILOVER_LIMIT_S, f"{replica!r} to serve the slots of {primary!r}")
        return replica

    def _server(self, port: int) -> ValkeyServer:
        return next(each for each in self.servers if each.port == port)

    def _up(self) -> Iterator[ValkeyServer]:
        return (each for each in self.servers if each.running and not each.paused)

    def _witness(self) -> ValkeyServer:
        for each in self._up():
            with suppress(OSError, RespError):
                if each.command("PING") == "PONG":
                    return each
        raise RuntimeError(f"no node answers: {self!r}")

    def _view(self, node: ValkeyServer | None = None) -> list[_Seen]:
        text = (node or self._witness()).command("CLUSTER", "NODES").decode()
        return [_seen(line) for line in text.splitlines()]

    def _agree(self, slot: int, owner: ValkeyServer) -> bool:
        return all(
            any(
                each.port == owner.port and "master" in each.flags and any(slot in held for held in each.slots)
                for each in self._view(node)
            )
            for node in self._up()
        )

    def _acquainted(self) -> bool:
        return all(
            len(view := self._view(node)) == len(self.servers)
            and not any("handshake" in each.flags or "noaddr" in each.flags for each in view)
            for node in self.servers
        )

    def _ready(self) -> bool:
        for each in self.servers:
            state = each.command("CLUSTER", "INFO").decode()
            if "cluster_state:ok" not in state or f"cluster_slots_ok:{SLOTS}" not in state:
                return False
            view = self._view(each)
            if len([one for one in view if one.follows]) != len(self.servers) - self.size:
                return False
        return all(each.info("replication").get("master_link_status") == "up" for each in self.servers[self.size :])


def _seen(line: str) -> _Seen:
    # <id> <ip:port@cport,...> <flags> <primary or -> <ping> <pong> <epoch> <link> <slot> <slot> ...
    identity, address, flags, follows, *_ = fields = line.split()
    port = int(address.split("@")[0].rpartition(":")[2])
    slots = []
    for each in fields[8:]:
        if not each.startswith("["):  # a slot on its way
            first, _, last = each.partition("-")
            slots.append(range(int(first), int(last or first) + 1))
    return _Seen(identity, port, tuple(flags.split(",")), "" if follows == "-" else follows, tuple(slots))
