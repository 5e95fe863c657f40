"""The blocking publisher while all is well: who is reached, from how many threads, over how few connections."""

from __future__ import annotations

import os
import threading

import pytest

from antiphon.exceptions import EngineUnavailable
from antiphon.testing.faults import ValkeyServer
from tests.engines.redis.publisher.publishing import KEYS, Listener, Lua, publishing


def connections_of(server: ValkeyServer) -> int:
    """Count the connections that the server has accepted so far, but for those that ask."""
    return int(server.info("stats")["total_connections_received"])


def test_a_publish_reaches_subscribers_and_says_how_many(shared: ValkeyServer) -> None:
    with Listener(shared, "g:a") as one, Listener(shared, "g:a") as two, publishing(shared.url) as publisher:
        assert publisher.publish("g:a", b"hello\r\n\0") == 2
        assert publisher.publish("g:nobody", b"x") == 0
        assert one.heard() == two.heard() == [b"hello\r\n\0"]
        assert publisher.sent == 2


def test_no_call_but_the_first_makes_a_connection(shared: ValkeyServer) -> None:
    with publishing(shared.url) as publisher:
        publisher.publish("g:a", b"")
        before = connections_of(shared)
        for _ in range(500):
            publisher.publish("g:a", b"x")
        assert connections_of(shared) == before
        assert publisher.connections_made == 1


def test_a_megabyte_travels_whole(shared: ValkeyServer) -> None:
    payload = os.urandom(1 << 20)
    with Listener(shared, "g:big") as listener, publishing(shared.url) as publisher:
        publisher.publish("g:big", payload)
        assert listener.heard() == [payload]


def test_sixteen_threads_share_connections_and_keep_their_own_order(shared: ValkeyServer) -> None:
    with Listener(shared, "g:many") as listener, publishing(shared.url) as publisher:

        def send(name: int) -> None:
            for count in range(100):
                publisher.publish("g:many", b"%d %d" % (name, count))

        threads = [threading.Thread(target=send, args=(name,)) for name in range(16)]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
        heard = [tuple(map(int, data.split())) for data in listener.heard()]
        assert len(heard) == 1600
        for name in range(16):
            assert [count for who, count in heard if who == name] == list(range(100))
        assert publisher.sent == 1600
        assert publisher.connections_made <= 16


def test_a_topic_of_several_hosts_lives_on_one_and_always_the_same(shared: ValkeyServer) -> None:
    with ValkeyServer() as other, publishing(shared.tcp_url, other.tcp_url) as publisher:
        topics = [f"g:{number}" for number in range(40)]
        with Listener(shared, *topics) as one, Listener(other, *topics) as two:
            for topic in topics * 2:
                assert publisher.publish(topic, topic.encode()) == 1
            here, there = one.heard(), two.heard()
            assert len(here) + len(there) == 80
            assert set(here).isdisjoint(there)
            assert min(len(here), len(there)) > 10


def test_a_script_runs_where_its_key_lives_and_is_loaded_when_unknown(shared: ValkeyServer) -> None:
    script = Lua(f"return {{KEYS[1], ARGV[1], ARGV[2], '{os.urandom(4).hex()}'}}")
    with publishing(shared.url) as publisher:
        key = KEYS.queue("thumbs")
        for _ in range(2):
            assert publisher.script(script, key, [key], [b"a", 7])[:3] == [key, b"a", b"7"]


def test_an_error_of_a_script_is_raised_with_its_text_and_costs_no_connection(shared: ValkeyServer) -> None:
    with publishing(shared.url) as publisher:
        for _ in range(3):
            with pytest.raises(EngineUnavailable, match="out of paper"):
                publisher.script(Lua("return redis.error_reply('ERR out of paper')"), b"k", [], [])
        assert publisher.publish("g:a", b"x") == 0
        assert publisher.connections_made == 1


def test_credentials_and_databases_are_used_and_wrong_ones_fail_at_once() -> None:
    with ValkeyServer(requirepass="s3cret", unix_socket=True) as server:
        for url in (server.tcp_url, server.unix_url):
            with publishing(url) as publisher:
                assert publisher.publish("g:a", b"x") == 0
        wrong = f"redis://:wrong@127.0.0.1:{server.port}"
        with publishing(wrong, timeout_s=1000) as publisher, pytest.raises(EngineUnavailable, match="credentials"):
            publisher.publish("g:a", b"x")
