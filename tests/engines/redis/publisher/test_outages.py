"""Servers that die, hang and come back: what is sent again, what is not, and what it costs."""

from __future__ import annotations

import signal
import socket
import threading
import time
from collections.abc import Sequence
from contextlib import suppress

import pytest

from antiphon.engines.redis import line as line_module
from antiphon.engines.redis import pool as pools
from antiphon.envelope import MESSAGE, mark_again, pack
from antiphon.exceptions import EngineUnavailable
from antiphon.testing.faults import ValkeyServer
from tests.engines.redis.publisher.publishing import Listener, Lua, publishing
from tests.waiting import FOR_EVER_S, eventually


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
    with publishing(server.url, timeout_s=1.5) as publisher:
        publisher.publish("g:a", b"1")
        server.kill()
        started = time.monotonic()
        with pytest.raises(EngineUnavailable, match=rf"{server.port} cannot be reached.*nothing was sent") as error:
            publisher.publish("g:a", b"2")
        assert time.monotonic() - started > 1.3
        assert error.value.__cause__ is not None


def test_a_server_that_comes_back_in_time_gets_the_message_once(server: ValkeyServer) -> None:
    with publishing(server.url, timeout_s=FOR_EVER_S) as publisher:
        publisher.publish("g:a", b"1")
        server.kill()
        timer = threading.Timer(0.5, server.restart)
        timer.start()
        started = time.monotonic()
        assert publisher.publish("g:a", b"2") == 0
        assert time.monotonic() - started > 0.4
        timer.join()


def test_while_a_server_is_known_to_be_down_nobody_else_waits(
    server: ValkeyServer, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(pools, "_DOWN_S", FOR_EVER_S)
    with publishing(server.url, timeout_s=FOR_EVER_S) as publisher:
        server.kill()
        answers: list[int] = []
        patient = threading.Thread(target=lambda: answers.append(publisher.publish("g:a", b"1")))
        patient.start()
        assert eventually(lambda: publisher._pool.failures)
        for _ in range(20):
            with pytest.raises(EngineUnavailable):
                publisher.publish("g:a", b"2")
        assert patient.is_alive()
        server.restart()
        patient.join()
        assert answers == [0]
        assert publisher.publish("g:a", b"3") == 0
        assert publisher._pool.failures == {}


def test_a_hung_server_costs_the_time_out_once_and_then_hardly_anything(
    server: ValkeyServer, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(pools, "_DOWN_S", FOR_EVER_S)
    with publishing(server.url, timeout_s=1.5) as publisher:
        publisher.publish("g:a", b"1")
        server.stop()
        started = time.monotonic()
        with pytest.raises(EngineUnavailable, match="may have taken effect or not"):
            publisher.publish("g:a", b"2")
        assert time.monotonic() - started > 1.3
        publisher.timeout_s = FOR_EVER_S
        with pytest.raises(EngineUnavailable, match="nothing was sent"):
            publisher.publish("g:a", b"3")
        server.resume()

        def well() -> bool:
            with suppress(EngineUnavailable):
                return bool(publisher.publish("g:a", b"4") == 0)
            return False

        assert eventually(well)


def test_sixteen_threads_lose_nothing_unsaid_when_the_server_is_killed(server: ValkeyServer) -> None:
    with publishing(server.url, timeout_s=30) as publisher:
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
        since = len(fates)
        assert eventually(lambda: len(fates) > since + 32 and fates[-16:].count("sent") >= 15)
        going.set()
        for thread in threads:
            thread.join()
        assert publisher.sent == fates.count("sent")
        assert fates.count("unknown") <= 32  # at most what was under way in each thread at each kill


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
    with listener, publishing(listener.getsockname()[:2], timeout_s=30, retry_s=30) as publisher:
        assert publisher.publish("g:a", payload) == 3
    assert len(seen) == 3
    assert seen[0].endswith(payload + b"\r\n")
    assert seen[1].endswith(mark_again(payload) + b"\r\n")
    assert seen[1] == seen[2] != seen[0]


def test_a_publish_without_an_answer_is_otherwise_an_error_that_says_so() -> None:
    seen: list[bytes] = []
    listener, _ = unanswering(seen, [None])
    unknown = pytest.raises(EngineUnavailable, match="may have taken effect or not")
    with listener, publishing(listener.getsockname()[:2], timeout_s=30) as publisher, unknown:
        publisher.publish("g:a", b"x")
    assert len(seen) == 1


def test_a_script_without_an_answer_is_never_sent_again() -> None:
    seen: list[bytes] = []
    listener, _ = unanswering(seen, [None, b"+OK\r\n"])
    unknown = pytest.raises(EngineUnavailable, match="may have taken effect or not")
    with listener, publishing(listener.getsockname()[:2], timeout_s=30, retry_s=30) as publisher, unknown:
        publisher.script(Lua("return 1"), b"k", [], [])
    assert len(seen) == 1


@pytest.mark.parametrize("reply", [b"-LOADING it loads\r\n", b"-BUSY a script\r\n", b"-CLUSTERDOWN down\r\n"])
def test_a_refusal_that_passes_is_waited_out(reply: bytes) -> None:
    seen: list[bytes] = []
    listener, _ = unanswering(seen, [reply, b":1\r\n"])
    with listener, publishing(listener.getsockname()[:2], timeout_s=30) as publisher:
        assert publisher.publish("g:a", b"x") == 1
    assert len(seen) == 2


def test_an_exception_in_the_middle_leaves_no_reply_for_the_next_call(server: ValkeyServer) -> None:
    class Interrupted(BaseException):
        pass

    def interrupt(*_: object) -> None:
        raise Interrupted

    with Listener(server, "g:heard"), publishing(server.url, timeout_s=30) as publisher:
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
        assert eventually(lambda: server.info("clients")["connected_clients"] == "1")
        assert publisher.publish("g:a", b"2") == 0
        assert (publisher.connections_made, publisher.sent) == (2, 2)
