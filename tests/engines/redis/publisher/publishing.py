"""A publisher of one test, and what shows what it did: subscribers by redis-py, scripts, bindings, forked children."""

from __future__ import annotations

import os
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from hashlib import sha1
from typing import Any, Self

import redis

from antiphon.engines.redis.hosts import parse_hosts
from antiphon.engines.redis.keys import Keys
from antiphon.engines.redis.publisher import BlockingPublisher
from antiphon.testing.faults import ValkeyServer

KEYS = Keys("asgi")
SERVERS = {"valkey": None, "redis": "/usr/bin/redis-server"}


@contextmanager
def publishing(
    *hosts: object, cluster: bool = False, timeout_s: float = 20.0, retry_s: float = 0.0
) -> Iterator[BlockingPublisher]:
    publisher = BlockingPublisher(
        parse_hosts(list(hosts)), cluster=cluster, keys=KEYS, timeout_s=timeout_s, retry_s=retry_s
    )
    try:
        yield publisher
    finally:
        publisher.close()


class Listener:
    """A subscriber by redis-py: what it heard, in order."""

    def __init__(self, server: ValkeyServer, *topics: str, sharded: bool = False) -> None:
        self.client = redis.Redis.from_url(server.tcp_url)
        self.pubsub: Any = self.client.pubsub()  # type: ignore[no-untyped-call]  # redis-py is typed in part
        for topic in topics:
            (self.pubsub.ssubscribe if sharded else self.pubsub.subscribe)(KEYS.channel(topic))
            self.pubsub.parse_response(timeout=30)

    def heard(self, wait_s: float = 0.3) -> list[bytes]:
        found = []
        while (message := self.pubsub.get_message(timeout=wait_s)) is not None:
            if message["type"] == "message":
                found.append(message["data"])
        return found

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *exc: object) -> None:
        self.pubsub.close()
        self.client.close()


@dataclass(frozen=True)
class Lua:
    text: str

    @property
    def sha(self) -> str:
        return sha1(self.text.encode()).hexdigest()


def bind(server: ValkeyServer, topic: str, queue: str, for_s: float) -> None:
    seconds, micros = server.command("TIME")
    until_ms = int(seconds) * 1000 + int(micros) // 1000 + int(for_s * 1000)
    server.command("ZADD", KEYS.bound, until_ms, topic.encode() + b"\0" + queue.encode())


def noting(publisher: BlockingPublisher) -> list[tuple[str, bytes, list[str]]]:
    noted: list[tuple[str, bytes, list[str]]] = []
    publisher.on_bound = lambda topic, payload, queues: noted.append((topic, payload, sorted(queues)))
    return noted


def in_child(work: Callable[[], object]) -> bytes:
    """Run ``work`` in a forked child and return what it returned, or what it raised."""
    reader, writer = os.pipe()
    pid = os.fork()
    if pid == 0:
        try:
            answer = repr(work())
        except BaseException as exc:
            answer = f"raised {exc!r}"
        os.write(writer, answer.encode())
        os._exit(0)
    os.close(writer)
    with os.fdopen(reader, "rb") as stream:
        answer_bytes = stream.read()
    os.waitpid(pid, 0)
    return answer_bytes
