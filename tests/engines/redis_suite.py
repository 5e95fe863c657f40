"""What the suites of all Redis-like engines share: the layer, and tests that look at the server itself."""

from __future__ import annotations

import asyncio
import contextlib
import socket
import threading
from collections.abc import Sequence
from typing import ClassVar

import antiphon
from antiphon.testing import EngineSuite
from antiphon.testing.faults import RespError, ValkeyServer
from antiphon.testing.suite.base import numbered, scenario, until


class RedisSuite(EngineSuite):
    backend = "antiphon.layers.RedisChannelLayer"
    sharded_pubsub: ClassVar[bool] = False

    @property
    def servers(self) -> Sequence[ValkeyServer]:
        """Those that hold keys or topics of the layer."""
        raise NotImplementedError

    def connections(self) -> int:
        """Count the connections of clients that the servers ever had, without those of this count."""
        return sum(int(server.info("stats")["total_connections_received"]) for server in self.servers)

    def keys(self) -> list[bytes]:
        return sorted(key for server in self.servers for key in server.command("KEYS", "*"))

    @scenario
    async def test_every_key_is_under_the_prefix_and_flush_leaves_those_of_others(self) -> None:
        layer = self.make_layer()
        foreign = [f"{self.space}:a2:x", f"{self.space}", "other", f"x{self.space}:a1:y"]
        for n, key in enumerate(foreign):
            _put(self.servers, key, str(n))
        before = self.keys()
        for n in range(20):
            await layer.send(f"worker{n}", numbered(n))
            await layer.group_add(f"g{n}", f"worker{n}")
        ours = set(self.keys()) - set(before)
        assert ours
        assert all(key.startswith(f"{self.space}:a1:".encode()) for key in ours)
        await layer.flush()
        assert self.keys() == before
        for key in foreign:
            _remove(self.servers, key)

    @scenario
    async def test_no_connection_is_made_for_a_call(self) -> None:
        layer = self.make_layer()
        mine = await self.member(layer, "g")
        with self.as_default(layer):
            await asyncio.to_thread(antiphon.group_send, "g", numbered(0))
            before = self.connections()
            for n in range(1, 20):
                await asyncio.to_thread(antiphon.group_send, "g", numbered(n))
                await layer.group_count("g")
                await layer.send("worker", numbered(n))
                await layer.receive("worker")
            await mine.hears(20)
            assert self.connections() == before

    @scenario
    async def test_a_layer_that_is_closed_leaves_no_connection_and_no_subscription(self) -> None:
        def clients() -> int:
            return sum(server.command("CLIENT", "LIST").decode().count("name=antiphon:") for server in self.servers)

        resident = type(self)._resident
        if resident is not None and resident.child.running:
            await asyncio.to_thread(resident.child.kill)
        await until(lambda: clients() == 0, what="no client before")
        layer = self.make_layer()
        await self.member(layer, "g")
        assert clients() >= 1
        await layer.close()
        await until(lambda: clients() == 0, what="no client after")

    @scenario
    async def test_what_is_encrypted_cannot_be_read_on_the_wire(self) -> None:
        layer = self.make_layer(symmetric_encryption_keys=["one key"])
        mine = await self.member(layer, "g")
        seen: list[bytes] = []
        spies = [_Spy(server, seen) for server in self.servers]
        secret = {"type": "t", "n": 1, "text": "attack at dawn"}
        await layer.group_send("g", secret)
        await layer.send("worker", secret)
        await mine.hears(1)
        assert await layer.receive("worker") == secret
        await until(lambda: any(b"a1:{g:g" in line for line in seen), what="the monitor to show the publish")
        for spy in spies:
            spy.stop()
        assert not any(b"dawn" in line for line in seen)

    @scenario
    async def test_what_a_process_that_died_was_handling_is_given_to_another(self) -> None:
        layer, resident = self.make_layer(lease_s=1.0), await self.resident(lease_s=1.0)
        await layer.send("worker", numbered(1))
        assert await resident.do("hold", "worker") == 1
        await asyncio.to_thread(resident.child.kill)
        async with await layer.lease("worker") as lease:
            assert (lease.message, lease.delivery_count) == (numbered(1), 2)

    @scenario
    async def test_what_fails_too_often_goes_to_the_dead_letters(self) -> None:
        layer = self.make_layer(max_deliveries=2)
        await layer.send("worker", numbered(1))
        for count in (1, 2):
            lease = await layer.lease("worker")
            assert lease.delivery_count == count
            await lease.release()
        await layer.send("worker", numbered(2))
        assert await layer.receive("worker") == numbered(2)
        assert await layer.receive("worker.dead") == numbered(1)


class _Spy:
    """Reads what a server is told, through MONITOR."""

    def __init__(self, server: ValkeyServer, seen: list[bytes]) -> None:

        if server.socket_path is not None:
            self._socket = socket.socket(socket.AF_UNIX)
            self._socket.connect(server.socket_path)
        else:
            self._socket = socket.create_connection(("127.0.0.1", server.port))
        self._socket.sendall(b"MONITOR\r\n")
        assert self._socket.recv(64).startswith(b"+OK")
        self._thread = threading.Thread(target=self._read, args=(seen,), daemon=True)
        self._thread.start()

    def _read(self, seen: list[bytes]) -> None:
        with contextlib.suppress(OSError):  # stopped
            while data := self._socket.recv(1 << 16):
                seen.append(data)

    def stop(self) -> None:

        self._socket.shutdown(socket.SHUT_RDWR)
        self._thread.join(5)
        self._socket.close()


def _put(servers: Sequence[ValkeyServer], key: str, value: str) -> None:
    _each(servers, "SET", key, value)


def _remove(servers: Sequence[ValkeyServer], key: str) -> None:
    _each(servers, "DEL", key)


def _each(servers: Sequence[ValkeyServer], *command: str) -> None:

    for server in servers:
        try:
            server.command(*command)
        except RespError as exc:
            if not str(exc).startswith("MOVED"):
                raise
