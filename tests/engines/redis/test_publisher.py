"""The blocking publisher against real servers: threads, forks, and servers that die, hang, move and come back."""

from __future__ import annotations

import asyncio
import datetime
import os
import signal
import socket
import threading
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from hashlib import sha1
from pathlib import Path
from typing import Any, Self

import pytest
import redis

from antiphon.engines.redis import line as line_module
from antiphon.engines.redis.dial import ask
from antiphon.engines.redis.hosts import parse_hosts
from antiphon.engines.redis.keys import Keys
from antiphon.engines.redis.publisher import BlockingPublisher
from antiphon.envelope import MESSAGE, mark_again, pack
from antiphon.exceptions import EngineUnavailable
from antiphon.testing.faults import ValkeyCluster, ValkeySentinel, ValkeyServer
from antiphon.testing.faults.valkey import free_port

KEYS = Keys("asgi")
SERVERS = {"valkey": None, "redis": "/usr/bin/redis-server"}


@pytest.fixture(scope="module", params=SERVERS)
def shared(request: pytest.FixtureRequest) -> Iterator[ValkeyServer]:
    """A server that no test harms."""
    binary = SERVERS[request.param]
    if binary is not None and not os.access(binary, os.X_OK):
        pytest.skip(f"no {binary}")
    with ValkeyServer(unix_socket=True, binary=binary) as server:
        yield server


@pytest.fixture
def server() -> Iterator[ValkeyServer]:
    with ValkeyServer() as server:
        yield server


@contextmanager
def publishing(
    *hosts: object, cluster: bool = False, timeout_s: float = 2.0, retry_s: float = 0.0
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
            self.pubsub.parse_response(timeout=5)

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


def connections_of(server: ValkeyServer) -> int:
    """Count the connections that the server has accepted so far, but for those that ask."""
    return int(server.info("stats")["total_connections_received"])


def within(seconds: float, check: Callable[[], bool]) -> bool:
    deadline = time.monotonic() + seconds
    while not check():
        if time.monotonic() > deadline:
            return False
        time.sleep(0.02)
    return True


# --- all is well


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
        started = time.monotonic()
        wrong = f"redis://:wrong@127.0.0.1:{server.port}"
        with publishing(wrong) as publisher, pytest.raises(EngineUnavailable, match="credentials"):
            publisher.publish("g:a", b"x")
        assert time.monotonic() - started < 0.5


@pytest.mark.skipif(not os.access("/usr/bin/redis-server", os.X_OK), reason="the packaged server has no TLS")
def test_tls_is_spoken_and_verified_and_a_dead_connection_noticed(tmp_path: Path) -> None:
    certificate, key = self_signed(tmp_path)
    options: dict[str, Any] = {
        "tls_port": free_port(),
        "tls_cert_file": certificate,
        "tls_key_file": key,
        "tls_auth_clients": "no",
    }
    with ValkeyServer(binary=SERVERS["redis"], tls_ca_cert_file=certificate, **options) as server:
        url = f"rediss://localhost:{options['tls_port']}"
        good = {"address": url, "ssl_ca_certs": certificate}
        with publishing(good) as publisher:
            assert publisher.publish("g:a", b"1") == 0
            assert publisher.publish("g:a", b"x" * 300_000) == 0
            assert publisher.connections_made == 1
            server.command("CLIENT", "KILL", "TYPE", "normal")
            assert publisher.publish("g:a", b"2") == 0
            assert publisher.connections_made == 2
            assert in_child(lambda: publisher.publish("g:a", b"3")) == b"0"
            assert publisher.publish("g:a", b"4") == 0
            assert publisher.connections_made == 2
        (host,) = parse_hosts([good])
        assert asyncio.run(ask(host.address, [("PING",)], 1.0)) == [b"PONG"]  # type: ignore[union-attr]
        with publishing(url, timeout_s=0.3) as publisher, pytest.raises(EngineUnavailable, match="certificate"):
            publisher.publish("g:a", b"1")


def self_signed(folder: Path) -> tuple[str, str]:
    """Make a certificate for localhost, and its key."""
    rsa = pytest.importorskip("cryptography.hazmat.primitives.asymmetric.rsa")
    from cryptography import x509
    from cryptography.hazmat.primitives import hashes, serialization

    key = rsa.generate_private_key(65537, 2048)
    name = x509.Name([x509.NameAttribute(x509.NameOID.COMMON_NAME, "localhost")])
    now = datetime.datetime.now(datetime.UTC)
    certificate = (
        x509.CertificateBuilder(name, name, key.public_key(), x509.random_serial_number())
        .not_valid_before(now - datetime.timedelta(days=1))
        .not_valid_after(now + datetime.timedelta(days=1))
        .add_extension(x509.SubjectAlternativeName([x509.DNSName("localhost")]), critical=False)
        .sign(key, hashes.SHA256())
    )
    plain = serialization.NoEncryption()
    pem = key.private_bytes(serialization.Encoding.PEM, serialization.PrivateFormat.TraditionalOpenSSL, plain)
    (folder / "key.pem").write_bytes(pem)
    (folder / "cert.pem").write_bytes(certificate.public_bytes(serialization.Encoding.PEM))
    return str(folder / "cert.pem"), str(folder / "key.pem")


# --- forks


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


def test_a_forked_child_has_connections_of_its_own_and_leaves_the_parents_alone(shared: ValkeyServer) -> None:
    with Listener(shared, "g:fork") as listener, publishing(shared.url) as publisher:
        publisher.publish("g:fork", b"before")
        lent = publisher._pool.take(publisher._pool.address_of(b"", 1.0), 1.0)  # as if by another thread
        publisher.publish("g:fork", b"before")
        inherited = [line._sock.fileno() for line in publisher._pool._lines]

        def child() -> object:
            shut = []
            for descriptor in inherited:
                try:
                    shut.append(os.fstat(descriptor) is None)
                except OSError:
                    shut.append(True)
            counts = [publisher.publish("g:fork", b"child %d" % number) for number in range(20)]
            return shut, set(counts), publisher.sent, publisher.connections_made

        answers = [in_child(child) for _ in range(3)]
        assert answers == [b"([True, True], {1}, 22, 3)"] * 3
        # The parent goes on with the connection it had: nobody has read from it or ended it.
        for number in range(20):
            publisher.publish("g:fork", b"parent %d" % number)
        publisher._pool.give(lent)
        publisher.publish("g:fork", b"on the one that was lent")
        assert publisher.connections_made == 2
        assert len(listener.heard()) == 2 + 3 * 20 + 20 + 1


def test_a_fork_in_the_middle_of_other_threads_publishes_hurts_neither_side(shared: ValkeyServer) -> None:
    with publishing(shared.url) as publisher:
        going, errors = threading.Event(), []

        def send() -> None:
            while not going.is_set():
                try:
                    publisher.publish("g:busy", b"x" * 2000)
                except BaseException as exc:
                    errors.append(exc)

        threads = [threading.Thread(target=send) for _ in range(4)]
        for thread in threads:
            thread.start()
        try:
            for _ in range(8):
                time.sleep(0.03)
                assert in_child(lambda: sum(publisher.publish("g:busy", b"c") for _ in range(20))) == b"0"
        finally:
            going.set()
            for thread in threads:
                thread.join()
        assert errors == []


# --- a server that dies and comes back


@pytest.mark.parametrize("told", [True, False])
def test_a_connection_that_died_of_age_is_replaced_unseen(
    server: ValkeyServer, told: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    if not told:  # where the kernel does not tell a closed connection from one with something to read
        monkeypatch.setattr(line_module, "_GONE", 0)
    with publishing(server.url) as publisher:
        publisher.publish("g:a", b"1")
        for _ in range(3):
            server.kill()
            server.restart()
            assert publisher.publish("g:a", b"2") == 0
        server.command("CLIENT", "KILL", "TYPE", "normal")
        assert publisher.publish("g:a", b"3") == 0
        assert publisher.sent == 5


def test_a_server_that_is_away_is_waited_for_until_the_time_is_up(server: ValkeyServer) -> None:
    with publishing(server.url, timeout_s=0.6) as publisher:
        publisher.publish("g:a", b"1")
        server.kill()
        started = time.monotonic()
        with pytest.raises(EngineUnavailable, match=rf"{server.port} cannot be reached.*nothing was sent") as error:
            publisher.publish("g:a", b"2")
        assert 0.5 < time.monotonic() - started < 1.2
        assert error.value.__cause__ is not None


def test_a_server_that_comes_back_in_time_gets_the_message_once(server: ValkeyServer) -> None:
    with publishing(server.url, timeout_s=5) as publisher:
        publisher.publish("g:a", b"1")
        server.kill()
        timer = threading.Timer(0.5, server.restart)
        timer.start()
        started = time.monotonic()
        assert publisher.publish("g:a", b"2") == 0
        assert 0.4 < time.monotonic() - started < 3
        timer.join()


def test_while_a_server_is_known_to_be_down_nobody_else_waits(server: ValkeyServer) -> None:
    with publishing(server.url, timeout_s=3) as publisher:
        server.kill()
        answers: list[int] = []
        patient = threading.Thread(target=lambda: answers.append(publisher.publish("g:a", b"1")))
        patient.start()
        time.sleep(0.3)
        started = time.monotonic()
        for _ in range(20):
            with pytest.raises(EngineUnavailable):
                publisher.publish("g:a", b"2")
        assert time.monotonic() - started < 0.5
        assert patient.is_alive()
        server.restart()
        patient.join()
        assert answers == [0]
        assert publisher.publish("g:a", b"3") == 0
        assert publisher._pool.failures == {}


def test_a_hung_server_costs_the_time_out_once_and_then_hardly_anything(server: ValkeyServer) -> None:
    with publishing(server.url, timeout_s=0.8) as publisher:
        publisher.publish("g:a", b"1")
        server.stop()
        started = time.monotonic()
        with pytest.raises(EngineUnavailable, match="may have taken effect or not"):
            publisher.publish("g:a", b"2")
        assert 0.7 < time.monotonic() - started < 1.2
        started = time.monotonic()
        with pytest.raises(EngineUnavailable, match="nothing was sent"):
            publisher.publish("g:a", b"3")
        assert time.monotonic() - started < 0.7
        server.resume()
        assert within(2, lambda: publisher.publish("g:a", b"4") == 0)


def test_sixteen_threads_lose_nothing_unsaid_when_the_server_is_killed(server: ValkeyServer) -> None:
    with publishing(server.url, timeout_s=5) as publisher:
        fates: list[str] = []
        going = threading.Event()

        def send() -> None:
            while not going.is_set():
                try:
                    publisher.publish("g:a", b"x")
                    fates.append("sent")
                except EngineUnavailable as exc:
                    fates.append("unknown" if "or not" in str(exc) else "not sent")
                    time.sleep(0.02)

        threads = [threading.Thread(target=send) for _ in range(16)]
        for thread in threads:
            thread.start()
        for _ in range(2):
            time.sleep(0.4)
            server.kill()
            time.sleep(0.2)
            server.restart()
        time.sleep(0.5)
        going.set()
        for thread in threads:
            thread.join()
        assert publisher.sent == fates.count("sent")
        assert fates.count("unknown") <= 32  # at most what was under way in each thread at each kill
        assert fates[-16:].count("sent") >= 15


def unanswering(payload_log: list[bytes], replies: Sequence[bytes | None]) -> tuple[socket.socket, threading.Thread]:
    """Serve connections that greet like a server and answer each publish with the next of ``replies``; None hangs up."""
    listener = socket.create_server(("127.0.0.1", 0))

    def serve() -> None:
        answers = iter(replies)
        for _ in range(len(replies)):
            connection, _ = listener.accept()
            with connection:
                while data := connection.recv(65536):
                    if b"HELLO" in data:
                        connection.sendall(b"%1\r\n+proto\r\n:3\r\n")
                        continue
                    payload_log.append(data)
                    answer = next(answers)
                    if answer is None:
                        break
                    connection.sendall(answer)

    thread = threading.Thread(target=serve, daemon=True)
    thread.start()
    return listener, thread


def test_a_publish_without_an_answer_is_sent_again_flagged_where_that_is_allowed() -> None:
    payload = pack(MESSAGE, 1, 2, 3, b"body")
    seen: list[bytes] = []
    listener, _ = unanswering(seen, [None, None, b":3\r\n"])
    with listener, publishing(listener.getsockname()[:2], timeout_s=1, retry_s=1) as publisher:
        assert publisher.publish("g:a", payload) == 3
    assert len(seen) == 3
    assert seen[0].endswith(payload + b"\r\n")
    assert seen[1].endswith(mark_again(payload) + b"\r\n")
    assert seen[1] == seen[2] != seen[0]


def test_a_publish_without_an_answer_is_otherwise_an_error_that_says_so() -> None:
    seen: list[bytes] = []
    listener, _ = unanswering(seen, [None])
    unknown = pytest.raises(EngineUnavailable, match="may have taken effect or not")
    with listener, publishing(listener.getsockname()[:2], timeout_s=1) as publisher, unknown:
        publisher.publish("g:a", b"x")
    assert len(seen) == 1


def test_a_script_without_an_answer_is_never_sent_again() -> None:
    seen: list[bytes] = []
    listener, _ = unanswering(seen, [None, b"+OK\r\n"])
    unknown = pytest.raises(EngineUnavailable, match="may have taken effect or not")
    with listener, publishing(listener.getsockname()[:2], timeout_s=1, retry_s=1) as publisher, unknown:
        publisher.script(Lua("return 1"), b"k", [], [])
    assert len(seen) == 1


@pytest.mark.parametrize("reply", [b"-LOADING it loads\r\n", b"-BUSY a script\r\n", b"-CLUSTERDOWN down\r\n"])
def test_a_refusal_that_passes_is_waited_out(reply: bytes) -> None:
    seen: list[bytes] = []
    listener, _ = unanswering(seen, [reply, b":1\r\n"])
    with listener, publishing(listener.getsockname()[:2], timeout_s=2) as publisher:
        assert publisher.publish("g:a", b"x") == 1
    assert len(seen) == 2


def test_an_exception_in_the_middle_leaves_no_reply_for_the_next_call(server: ValkeyServer) -> None:
    class Interrupted(BaseException):
        pass

    def interrupt(*_: object) -> None:
        raise Interrupted

    with Listener(server, "g:heard"), publishing(server.url, timeout_s=5) as publisher:
        publisher.publish("g:a", b"1")
        server.stop()
        old = signal.signal(signal.SIGALRM, interrupt)
        signal.setitimer(signal.ITIMER_REAL, 0.2)
        try:
            with pytest.raises(Interrupted):
                publisher.publish("g:heard", b"2")
        finally:
            signal.setitimer(signal.ITIMER_REAL, 0)
            signal.signal(signal.SIGALRM, old)
            server.resume()
        assert publisher.publish("g:nobody", b"3") == 0  # not the 1 of the publish before


def test_close_drops_connections_and_a_later_call_makes_one(server: ValkeyServer) -> None:
    with publishing(server.url) as publisher:
        publisher.publish("g:a", b"1")
        publisher.close()
        # What is left is the one that asks.
        assert within(2, lambda: server.info("clients")["connected_clients"] == "1")
        assert publisher.publish("g:a", b"2") == 0
        assert (publisher.connections_made, publisher.sent) == (2, 2)


# --- worker channels that are members of groups


def bind(server: ValkeyServer, topic: str, queue: str, for_s: float) -> None:
    seconds, micros = server.command("TIME")
    until_ms = int(seconds) * 1000 + int(micros) // 1000 + int(for_s * 1000)
    server.command("ZADD", KEYS.bound, until_ms, topic.encode() + b"\0" + queue.encode())


def noting(publisher: BlockingPublisher) -> list[tuple[str, bytes, list[str]]]:
    noted: list[tuple[str, bytes, list[str]]] = []
    publisher.on_bound = lambda topic, payload, queues: noted.append((topic, payload, sorted(queues)))
    return noted


def test_a_binding_is_known_to_every_connection_at_the_publish_after_it(shared: ValkeyServer) -> None:
    shared.command("FLUSHALL")
    with publishing(shared.url) as publisher:
        noted = noting(publisher)
        lines = [publisher._pool.take(parse_hosts([shared.url])[0].address, 1.0) for _ in range(4)]  # type: ignore[union-attr]
        for line in lines:
            publisher._pool.give(line)
        for number in range(20):
            publisher.publish("g:a", b"before")
            bind(shared, "g:a", f"w{number}", 60)
            # Each time on another of the connections, some of which have not been used for a while.
            lent = [publisher._pool.take(lines[0].address, 1.0) for _ in range(number % 4)]
            publisher.publish("g:a", b"after")
            assert noted[-1] == ("g:a", b"after", sorted(f"w{n}" for n in range(number + 1)))
            for line in lent:
                publisher._pool.give(line)
        publisher.publish("g:b", b"other")
        assert noted[-1][1] == b"after"
        assert publisher.connections_made == 4


def test_a_binding_ends_by_the_servers_clock_and_by_removal_and_by_a_flush(shared: ValkeyServer) -> None:
    shared.command("FLUSHALL")
    with publishing(shared.url) as publisher:
        noted = noting(publisher)
        bind(shared, "g:a", "short", 0.3)
        bind(shared, "g:a", "long", 60)
        publisher.publish("g:a", b"1")
        time.sleep(0.35)
        publisher.publish("g:a", b"2")
        shared.command("ZREM", KEYS.bound, b"g:a\0long")
        publisher.publish("g:a", b"3")
        bind(shared, "g:a", "again", 60)
        publisher.publish("g:a", b"4")
        shared.command("FLUSHALL")
        publisher.publish("g:a", b"5")
        assert noted == [("g:a", b"1", ["long", "short"]), ("g:a", b"2", ["long"]), ("g:a", b"4", ["again"])]


def test_publishes_cost_one_round_trip_while_nothing_is_bound_anew(shared: ValkeyServer) -> None:
    shared.command("FLUSHALL")
    with publishing(shared.url) as publisher:
        noting(publisher)
        publisher.publish("g:a", b"x")
        before = int(shared.info("stats")["total_commands_processed"])
        for _ in range(100):
            publisher.publish("g:a", b"x")
        asked = int(shared.info("stats")["total_commands_processed"]) - before
        assert 100 <= asked <= 102  # and the INFO


def test_the_callback_may_publish_and_run_scripts_itself(shared: ValkeyServer) -> None:
    shared.command("FLUSHALL")
    bind(shared, "g:a", "w", 60)
    with publishing(shared.url) as publisher:
        answers: list[object] = []
        publisher.on_bound = lambda *_: answers.append(publisher.script(Lua("return 7"), KEYS.queue("w"), [], []))
        publisher.publish("g:a", b"x")
        assert answers == [7]
        assert publisher.connections_made == 1


def test_where_changes_are_not_announced_a_binding_is_known_within_a_second(caplog: pytest.LogCaptureFixture) -> None:
    users = [("default", "on", "nopass", "~*", "&*", "+@all", "-client|tracking")]
    with ValkeyServer(user=users) as server, publishing(server.url) as publisher:
        noted = noting(publisher)
        bind(server, "g:a", "old", 60)
        publisher.publish("g:a", b"1")
        assert noted == [("g:a", b"1", ["old"])]
        bind(server, "g:a", "new", 60)

        def known() -> bool:
            publisher.publish("g:a", b"2")
            return noted[-1][2] == ["new", "old"]

        assert within(1.3, known)
        assert len([record for record in caplog.records if "CLIENT TRACKING" in record.message]) == 1


def test_a_binding_on_another_host_is_known_within_a_second(shared: ValkeyServer) -> None:
    shared.command("FLUSHALL")
    with ValkeyServer() as other, publishing(shared.tcp_url, other.tcp_url) as publisher:
        noted = noting(publisher)
        pool = publisher._pool
        home = shared if pool.known_address_of(KEYS.bound) == parse_hosts([shared.tcp_url])[0].address else other  # type: ignore[union-attr]
        away = next(
            topic
            for topic in (f"g:{number}" for number in range(99))
            if pool.known_address_of(KEYS.channel(topic)) != pool.known_address_of(KEYS.bound)
        )
        publisher.publish(away, b"1")
        bind(home, away, "w", 60)

        def known() -> bool:
            publisher.publish(away, b"2")
            return bool(noted)

        assert within(1.3, known)
        assert noted[-1] == (away, b"2", ["w"])


# --- fail-over


@pytest.mark.timeout(60)
def test_sentinels_lead_to_the_new_primary_and_away_from_the_old() -> None:
    with ValkeySentinel() as trio, publishing(*trio.hosts, timeout_s=10, retry_s=10) as publisher:
        assert publisher.publish("g:a", b"0") == 0
        old = trio.primary
        trio.failover("stop")
        with Listener(trio.primary, "g:a") as listener:
            payload = pack(MESSAGE, 1, 2, 3, b"body")
            # Written to the hung one, or not at all: either way it goes to the new one.
            publisher.timeout_s = 1
            assert publisher.publish("g:a", payload) == 1
            old.resume()  # and takes itself for the primary still
            for number in range(5):
                assert publisher.publish("g:a", b"%d" % number) == 1
            heard = listener.heard()
            assert heard[-5:] == [b"0", b"1", b"2", b"3", b"4"]
            assert len(heard) == 6


@pytest.mark.timeout(60)
def test_a_message_written_to_a_primary_that_hung_goes_to_its_successor() -> None:
    payload = pack(MESSAGE, 1, 2, 3, b"body")
    with ValkeySentinel() as trio, publishing(*trio.hosts, timeout_s=0.5, retry_s=15) as publisher:
        publisher.publish("g:a", payload)
        replica = trio.replica
        trio.primary.stop()
        publisher.publish("g:a", payload)  # raises unless some server has taken it
        (line,) = publisher._pool._lines
        assert line.address.port == replica.port
        assert line.sent == 1


@pytest.mark.timeout(60)
def test_an_ordered_failover_is_followed_within_seconds_though_the_old_primary_goes_on() -> None:
    with ValkeySentinel() as trio, publishing(*trio.hosts, timeout_s=5) as publisher:
        publisher.publish("g:a", b"0")
        new = trio.failover("command")
        with Listener(new, "g:a"):
            assert within(3, lambda: publisher.publish("g:a", b"1") == 1)
            assert publisher.publish("g:a", b"2") == 1


@pytest.fixture(scope="module")
def cluster() -> Iterator[ValkeyCluster]:
    with ValkeyCluster() as cluster:
        yield cluster


def test_a_cluster_gets_each_topic_on_its_own_server(cluster: ValkeyCluster) -> None:
    with publishing(cluster.hosts[0], cluster=True) as publisher:
        topics = [f"g:{number}" for number in range(12)]
        with ExitStack() as listeners:
            for topic in topics:
                listeners.enter_context(Listener(cluster.node_of(KEYS.channel(topic)), topic, sharded=True))
            for topic in topics * 2:
                assert publisher.publish(topic, b"x") == 1
        assert publisher.connections_made == 3


def test_a_moved_slot_is_followed_within_the_call(cluster: ValkeyCluster) -> None:
    with publishing(*cluster.hosts, cluster=True, timeout_s=3) as publisher:
        channel = KEYS.channel("g:moving")
        publisher.publish("g:moving", b"0")
        old = cluster.node_of(channel)
        new = next(each for each in cluster.primaries if each is not old)
        cluster.move_slot(cluster.slot_of(channel), new)
        with Listener(new, "g:moving", sharded=True):
            assert publisher.publish("g:moving", b"1") == 1
            assert publisher.publish("g:moving", b"2") == 1
        key = KEYS.queue("moving")
        owner = cluster.node_of(key)
        cluster.move_slot(cluster.slot_of(key), next(each for each in cluster.primaries if each is not owner))
        assert publisher.script(Lua("return redis.call('INCR', KEYS[1])"), key, [key], []) == 1


def test_bindings_of_a_cluster_are_known_at_home_at_once_and_elsewhere_within_a_second(cluster: ValkeyCluster) -> None:
    home = cluster.node_of(KEYS.bound)
    topics = {cluster.node_of(KEYS.channel(f"g:{n}")).port: f"g:{n}" for n in range(40)}
    with publishing(*cluster.hosts, cluster=True) as publisher:
        noted = noting(publisher)
        for topic in topics.values():
            publisher.publish(topic, b"0")
        for topic in topics.values():
            bind(home, topic, "w", 60)
        publisher.publish(topics[home.port], b"1")
        assert noted == [(topics[home.port], b"1", ["w"])]
        started = time.monotonic()
        away = next(topic for port, topic in topics.items() if port != home.port)
        while len(noted) < 2 and time.monotonic() - started < 1.3:
            publisher.publish(away, b"2")
            time.sleep(0.02)
        assert noted[-1] == (away, b"2", ["w"])


@pytest.mark.timeout(60)
def test_a_killed_primary_of_a_cluster_is_waited_for_until_its_replica_serves() -> None:
    with (
        ValkeyCluster(replicas=3) as cluster,
        publishing(*cluster.hosts, cluster=True, timeout_s=15, retry_s=15) as publisher,
    ):
        publisher.publish("g:a", b"0")
        cluster.node_of(KEYS.channel("g:a")).kill()
        assert publisher.publish("g:a", b"1") == 0
        other = next(f"g:{n}" for n in range(99) if cluster.slot_of(KEYS.channel(f"g:{n}")) > 16000)
        assert publisher.publish(other, b"2") == 0
