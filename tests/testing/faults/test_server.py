"""A server as a process: killed, stopped and restarted; its options, its folder and its end."""

from __future__ import annotations

import socket
import subprocess
import sys
from pathlib import Path

import pytest

from antiphon.testing.faults import RespClient, RespError, ServerProcess, ValkeyServer, free_port
from tests.waiting import alive, eventually


def test_a_killed_server_comes_back_at_its_address_with_what_it_persisted() -> None:
    with ValkeyServer(persist=True, unix_socket=True) as server:
        before = (server.url, server.tcp_url, pid := server.pid)
        server.command("SET", "key", "value")
        server.kill()
        assert not server.running
        assert not alive(pid)
        with pytest.raises((ConnectionRefusedError, FileNotFoundError)):
            server.command("PING")
        server.restart()
        assert (server.url, server.tcp_url) == before[:2]
        assert server.pid != pid
        assert server.command("GET", "key") == b"value"


def test_without_persistence_a_restart_loses_the_data(server: ValkeyServer) -> None:
    server.command("SET", "key", "value")
    server.restart()
    assert server.command("GET", "key") is None


def test_a_stopped_server_keeps_its_sockets_and_answers_nothing(server: ValkeyServer) -> None:
    server.stop()
    assert server.running
    assert server.paused
    with pytest.raises(TimeoutError):
        server.command("PING", timeout_s=0.2)
    server.resume()
    assert server.command("PING") == "PONG"


def test_a_stopped_server_can_be_terminated() -> None:
    with ValkeyServer() as server:
        server.stop()
        assert server.terminate() == 0


def test_a_server_that_does_not_start_shows_its_log() -> None:
    with pytest.raises(RuntimeError, match="no_such_option|no-such-option"):
        ValkeyServer(no_such_option="1").__enter__()


def test_a_port_that_is_asked_for_and_taken_is_an_error(server: ValkeyServer) -> None:
    with pytest.raises(RuntimeError, match="in use"):
        ValkeyServer(port=server.port).__enter__()


def test_a_free_port_that_was_lost_to_another_is_replaced(
    server: ValkeyServer, monkeypatch: pytest.MonkeyPatch
) -> None:
    ports = iter([server.port, server.port])
    monkeypatch.setattr("antiphon.testing.faults.valkey.free_port", lambda: next(ports, None) or free_port())
    with ValkeyServer() as other:
        assert other.port != server.port
        other.command("SET", "whose", "other")
        assert server.command("GET", "whose") is None


def test_options_reach_the_server_and_its_url() -> None:
    with ValkeyServer(maxmemory="3mb", maxmemory_policy="allkeys-lru", requirepass="s e") as server:
        assert server.command("CONFIG", "GET", "maxmemory-policy")[1] == b"allkeys-lru"
        assert server.info("memory")["maxmemory"] == str(3 * 1024 * 1024)
        with RespClient(("127.0.0.1", server.port)) as stranger, pytest.raises(RespError, match="NOAUTH"):
            stranger.command("PING")
    assert "s%20e@" in server.url


def test_its_folder_is_its_users_alone_and_goes_with_it() -> None:
    with ValkeyServer(unix_socket=True) as server:
        assert server.folder.stat().st_mode & 0o777 == 0o700
        assert server.socket_path is not None
        assert Path(server.socket_path).stat().st_mode & 0o777 == 0o700
    assert not server.folder.exists()


def test_any_program_that_listens_will_do() -> None:
    port = free_port()
    args = [sys.executable, "-m", "http.server", "--bind", "127.0.0.1", str(port)]
    with ServerProcess(args, address=("127.0.0.1", port)) as server:
        with socket.create_connection(("127.0.0.1", port), timeout=30) as connection:
            connection.sendall(b"GET / HTTP/1.0\r\n\r\n")
            assert b"200 OK" in connection.recv(1000)
        assert eventually(lambda: "GET /" in server.log_tail())


def test_commands_do_not_open_a_connection_each(server: ValkeyServer) -> None:
    server.command("PING")
    before = server.info("stats")["total_connections_received"]
    server.command("PING")
    assert server.info("stats")["total_connections_received"] == before


START_AND = """
import os, signal, sys
from antiphon.testing.faults import ValkeyServer
server = ValkeyServer(unix_socket=True)
server.start()
print(server.pid, server.folder, flush=True)
{end}
"""


@pytest.mark.parametrize(
    "end",
    ["os.kill(os.getpid(), signal.SIGKILL)", "sys.exit()", "server.stop(); os._exit(0)"],
    ids=["killed", "exit", "stopped"],
)
def test_a_server_does_not_outlive_its_test(end: str) -> None:
    done = subprocess.run(
        [sys.executable, "-c", START_AND.format(end=end)], capture_output=True, text=True, timeout=50, check=False
    )
    pid, folder = done.stdout.split()
    assert eventually(lambda: not alive(int(pid)))
    assert eventually(lambda: not Path(folder).exists())


def test_a_forked_child_that_ends_leaves_its_parents_server_alone() -> None:
    program = START_AND.format(
        end="""
if os.fork() == 0:
    assert server.command("PING") == "PONG"
    sys.exit()
assert os.wait()[1] == 0
assert server.command("PING") == "PONG"
"""
    )
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, timeout=50, check=False)
    assert done.returncode == 0, done.stderr
