"""Several publishes in one write: in order, up to the first that fails, and what fails told apart."""

from __future__ import annotations

import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager

import pytest
import redis

from antiphon.engines.redis.hosts import parse_hosts
from antiphon.engines.redis.keys import Keys
from antiphon.engines.redis.publisher import BlockingPublisher
from antiphon.envelope import FLAG_AGAIN, MESSAGE, pack
from antiphon.exceptions import AntiphonError, EngineUnavailable
from antiphon.testing.faults import Proxy, ValkeyCluster, ValkeyServer
from antiphon.types import Keep


@contextmanager
def publishing(
    prefix: str, *hosts: object, cluster: bool = False, timeout_s: float = 20.0, retry_s: float = 0.0
) -> Iterator[BlockingPublisher]:
    publisher = BlockingPublisher(
        parse_hosts(list(hosts)), cluster=cluster, keys=Keys(prefix), timeout_s=timeout_s, retry_s=retry_s
    )
    yield publisher
    publisher.close()


class Listener:
    """A subscriber by redis-py."""

    def __init__(self, url: str, pattern: str) -> None:
        self.pubsub = redis.Redis.from_url(url).pubsub()  # type: ignore[no-untyped-call]  # redis-py is typed in part
        self.pubsub.psubscribe(pattern)
        self.pubsub.parse_response(timeout=30)

    def heard(self) -> list[tuple[str, int, bool]]:
        """Return (topic, n, again) of what has come."""
        found = []
        while (event := self.pubsub.get_message(timeout=0.3)) is not None:
            if event["type"] == "pmessage":
                payload = event["data"]
                topic = event["channel"].partition(b":a1:{")[2][:-1].decode()
                found.append((topic, int.from_bytes(payload[12:20]), bool(payload[3] & FLAG_AGAIN)))
        return found


def messages(count: int, *topics: str, body: bytes = b"body") -> list[tuple[str, bytes, None]]:
    return [(topics[n % len(topics)], pack(MESSAGE, 7, n, 0, body), None) for n in range(count)]


def commands(server: ValkeyServer) -> tuple[int, int]:
    """Return how many reads the server made and how many publishes it ran."""
    client = redis.Redis.from_url(server.tcp_url)
    stats = client.info("everything")
    client.close()
    return stats["total_reads_processed"], stats["cmdstat_publish"]["calls"]


def test_all_arrive_in_order_in_few_writes(valkey: ValkeyServer, fresh_prefix: str) -> None:
    listener = Listener(valkey.tcp_url, f"{fresh_prefix}:*")
    with publishing(fresh_prefix, valkey.url) as publisher:
        publisher.publish("g:a", b"first")
        reads, published = commands(valkey)
        nodes, exc = publisher.publish_many(messages(100, "g:a", "g:b", "u:7"))
        assert (nodes, exc) == ([1] * 100, None)
        again = commands(valkey)
        assert again[1] - published == 100
        assert again[0] - reads < 12  # those of the looking included
        assert publisher.connections_made == 1
        assert publisher.sent == 101
    assert [n for _, n, _ in listener.heard()[1:]] == list(range(100))


def test_large_ones_are_parted_and_none_is_lost(valkey: ValkeyServer, fresh_prefix: str) -> None:
    listener = Listener(valkey.tcp_url, f"{fresh_prefix}:*")
    with publishing(fresh_prefix, valkey.url) as publisher:
        nodes, exc = publisher.publish_many(messages(20, "g:a", body=bytes(300_000)))
    assert (nodes, exc) == ([1] * 20, None)
    assert [n for _, n, _ in listener.heard()] == list(range(20))


def test_none_is_no_work(valkey: ValkeyServer, fresh_prefix: str) -> None:
    with publishing(fresh_prefix, valkey.url) as publisher:
        assert publisher.publish_many([]) == ([], None)
        assert publisher.connections_made == 0


def test_worker_channels_of_a_group_hear_of_each(valkey: ValkeyServer, fresh_prefix: str) -> None:
    client = redis.Redis.from_url(valkey.tcp_url)
    bound: list[tuple[str, int, list[str]]] = []
    with publishing(fresh_prefix, valkey.url) as publisher:
        publisher.on_bound = lambda topic, payload, queues: bound.append(
            (topic, int.from_bytes(payload[12:20]), queues)
        )
        publisher.publish("g:a", b"before")
        client.zadd(f"{fresh_prefix}:a1:bound", {b"g:a\0thumbs\x00100\x0060000": (time.time() + 60) * 1000})
        assert publisher.publish_many(messages(6, "g:a", "g:b"))[1] is None
    assert [(topic, n) for topic, n, _ in bound] == [("g:a", 0), ("g:a", 2), ("g:a", 4)]
    client.close()


def test_shards_and_clusters_get_each_where_it_lives(
    valkey: ValkeyServer, redis7: ValkeyServer, valkey_cluster: ValkeyCluster, fresh_prefix: str
) -> None:
    topics = [f"g:{n * 7919}" for n in range(40)]
    listeners = [Listener(server.tcp_url, f"{fresh_prefix}:*") for server in (valkey, redis7)]
    with publishing(fresh_prefix, valkey.url, redis7.url) as publisher:
        nodes, exc = publisher.publish_many(messages(40, *topics))
        assert (nodes, exc) == ([1] * 40, None)
        assert publisher.connections_made == 2
    heard = [listener.heard() for listener in listeners]
    assert all(heard)
    assert sorted(n for one in heard for _, n, _ in one) == list(range(40))
    for one in heard:
        assert [n for _, n, _ in one] == sorted(n for _, n, _ in one)
    with publishing(fresh_prefix, *valkey_cluster.hosts, cluster=True) as publisher:
        assert publisher.publish_many(messages(40, *topics)) == ([0] * 40, None)


def test_a_broken_link_tells_which_were_confirmed_and_the_rest_may_be_sent_again(
    valkey: ValkeyServer, fresh_prefix: str
) -> None:
    listener = Listener(valkey.tcp_url, f"{fresh_prefix}:*")
    with Proxy(valkey.tcp_url) as proxy, publishing(fresh_prefix, proxy.url, timeout_s=1.5) as publisher:
        publisher.publish("g:a", messages(1, "g:a")[0][1])
        sent = messages(10, "g:a")
        proxy.black_hole(direction="down")
        nodes, exc = publisher.publish_many(sent)
        assert nodes == []
        assert isinstance(exc, EngineUnavailable)
        assert "may have taken effect" in str(exc)
        proxy.black_hole(False)
        assert publisher.publish_many(sent) == ([1] * 10, None)
    assert [n for _, n, _ in listener.heard()][-10:] == list(range(10))


@pytest.mark.parametrize("retry_s", [0.0, 30.0])
def test_what_had_no_reply_when_the_link_broke_is_sent_again_only_where_that_is_allowed(
    valkey: ValkeyServer, fresh_prefix: str, retry_s: float
) -> None:
    listener = Listener(valkey.tcp_url, f"{fresh_prefix}:*")
    with Proxy(valkey.tcp_url) as proxy:
        letting_go = threading.Timer(3.0, proxy.black_hole, (False,))
        with publishing(fresh_prefix, proxy.url, timeout_s=1.0, retry_s=retry_s) as publisher:
            publish = publisher.publish

            def publish_and_lose(topic: str, payload: bytes, keep: Keep | None = None) -> int:
                nodes: int = publish(topic, payload, keep)
                publisher.publish = publish  # type: ignore[method-assign]
                proxy.black_hole(direction="down")  # the rest of the batch is about to be written
                letting_go.start()
                return nodes

            publisher.publish = publish_and_lose  # type: ignore[method-assign]
            nodes, exc = publisher.publish_many(messages(10, "g:a"))
        letting_go.join()
        heard = listener.heard()
        if retry_s:
            assert (nodes, exc) == ([1] * 10, None)
            assert {n for _, n, again in heard if again} == set(range(1, 10))
        else:
            assert nodes == [1]
            assert isinstance(exc, EngineUnavailable)
        assert [n for _, n, again in heard if not again] == list(range(10))


def test_one_that_is_refused_fails_alone_and_at_its_place(fresh_prefix: str) -> None:
    with ValkeyServer() as server:
        client = redis.Redis.from_url(server.tcp_url)
        allowed = [f"&{fresh_prefix}:a1:{{g:{name}}}" for name in "ac"]
        client.execute_command(  # redis-py is typed in part
            "ACL", "SETUSER", "u", "on", ">p", "+@all", "~*", "resetchannels", *allowed
        )  # type: ignore[no-untyped-call]
        listener = Listener(server.tcp_url, f"{fresh_prefix}:*")
        url = server.tcp_url.replace("redis://", "redis://u:p@")
        with publishing(fresh_prefix, url) as publisher:
            topics = ["g:a", "g:c", "g:no", "g:c"]
            sent = [(topic, pack(MESSAGE, 7, n, 0, b"x"), None) for n, topic in enumerate(topics)]
            nodes, exc = publisher.publish_many(sent)
            assert nodes == [1, 1]
            assert isinstance(exc, AntiphonError)
            assert not isinstance(exc, EngineUnavailable)  # nobody should send it again, marked, after the fourth
            assert "NOPERM" in str(exc) or "permission" in str(exc)
        assert [n for _, n, _ in listener.heard()] == [0, 1, 3]
        client.close()


@pytest.mark.parametrize("count", [2, 500])  # 500 time-outs would be longer than a test may take
def test_a_server_that_is_away_costs_the_time_out_once(fresh_prefix: str, count: int) -> None:
    with ValkeyServer() as server, publishing(fresh_prefix, server.url, timeout_s=1.5) as publisher:
        publisher.publish("g:a", b"x")
        server.kill()
        nodes, exc = publisher.publish_many(messages(count, "g:a"))
        assert nodes == []
        assert isinstance(exc, EngineUnavailable)
