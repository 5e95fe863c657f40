"""The fault tools against real servers and processes: each does to them what it says."""

from __future__ import annotations

import asyncio
import os
import re
import socket
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from antiphon.testing import faults
from antiphon.testing.faults import (
    ChildProcess,
    LoopWatch,
    Peer,
    Proxy,
    RespClient,
    RespError,
    ServerProcess,
    ValkeyCluster,
    ValkeySentinel,
    ValkeyServer,
    clock_offset,
    free_port,
)

DOCUMENT = Path(__file__).resolve().parents[2] / "docs" / "testing.md"


@pytest.fixture(scope="module", params=["valkey", "redis"])
def server(request: pytest.FixtureRequest) -> Iterator[ValkeyServer]:
    with ValkeyServer(binary=request.param, unix_socket=True) as server:
        yield server


@pytest.fixture
def proxy(server: ValkeyServer) -> Iterator[Proxy]:
    with Proxy(server.tcp_url) as proxy:
        yield proxy


def client_of(proxy: Proxy) -> RespClient:
    return RespClient(proxy.address)


def gone(pid: int) -> bool:
    try:
        state = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0]
    except FileNotFoundError:
        return True
    return state == "Z"


def eventually(true: Callable[[], bool], within_s: float = 5) -> bool:
    deadline = time.monotonic() + within_s
    while not true():
        if time.monotonic() > deadline:
            return False
        time.sleep(0.02)
    return True


# A server as a process


def test_a_killed_server_comes_back_at_its_address_with_what_it_persisted() -> None:
    with ValkeyServer(persist=True, unix_socket=True) as server:
        before = (server.url, server.tcp_url, pid := server.pid)
        server.command("SET", "key", "value")
        server.kill()
        assert not server.running
        assert gone(pid)
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
        with socket.create_connection(("127.0.0.1", port), timeout=5) as connection:
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
        [sys.executable, "-c", START_AND.format(end=end)], capture_output=True, text=True, timeout=20, check=False
    )
    pid, folder = done.stdout.split()
    assert eventually(lambda: gone(int(pid)))
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
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, timeout=20, check=False)
    assert done.returncode == 0, done.stderr


# Sentinel and cluster


@pytest.mark.parametrize("how", ["kill", "stop"])
def test_sentinel_makes_the_replica_the_primary(how: Any) -> None:
    with ValkeySentinel() as service:
        old = service.primary
        old.command("SET", "key", "value")
        old.command("WAIT", 1, 2000)
        assert service.hosts[0]["master_name"] == "m"
        assert len(service.hosts[0]["sentinels"]) == 3
        new = service.failover(how)
        assert new is service.primary is not old
        assert service.replica is old
        assert new.command("GET", "key") == b"value"
        assert new.command("SET", "key", "another") == "OK"
        service.heal()
        assert eventually(lambda: old.command("GET", "key") == b"another")
        assert service.failover() is old


def test_a_cluster_serves_keys_on_each_node_and_moves_a_slot() -> None:
    with ValkeyCluster() as cluster:
        nodes = {cluster.node_of(slot).port: cluster.node_of(slot) for slot in (0, 8000, 16383)}
        assert set(nodes) == {each.port for each in cluster.primaries} == {each.port for each in cluster.servers}
        for number in range(20):
            assert cluster.command(f"key{number}", "SET", f"key{number}", number) == "OK"
        assert all(int(each.command("DBSIZE")) > 0 for each in cluster.primaries)
        source = cluster.node_of("key7")
        target = next(each for each in cluster.primaries if each is not source)
        with pytest.raises(RespError, match="MOVED"):
            target.command("GET", "key7")
        cluster.move_slot(cluster.slot_of("key7"), target)
        assert cluster.node_of("key7") is target
        assert target.command("GET", "key7") == b"7"
        with pytest.raises(RespError, match="MOVED"):
            source.command("GET", "key7")


def test_a_replica_of_the_cluster_takes_over_from_its_dead_primary() -> None:
    with ValkeyCluster(replicas=3) as cluster:
        primary = cluster.node_of("key")
        primary.command("SET", "key", "value")
        primary.command("WAIT", 1, 2000)
        replica = cluster.replica_of(primary)
        assert cluster.failover(primary) is replica is cluster.node_of("key")
        assert replica.command("GET", "key") == b"value"
        primary.restart()
        assert eventually(lambda: cluster.replica_of(replica) is primary, 10)


# The proxy


def test_the_proxy_forwards_and_counts(proxy: Proxy) -> None:
    client = client_of(proxy)
    assert client.command("ECHO", b"x" * 200_000) == b"x" * 200_000
    assert proxy.connections == proxy.accepted == 1
    assert eventually(lambda: proxy.bytes_up > 200_000 and proxy.bytes_down > 200_000)
    client.close()
    assert eventually(lambda: proxy.connections == 0)


def test_a_cut_resets_every_connection_and_new_ones_work(proxy: Proxy) -> None:
    sockets = [socket.create_connection(proxy.address) for _ in range(3)]  # type: ignore[arg-type]
    assert eventually(lambda: proxy.connections == 3)
    proxy.cut()
    assert proxy.connections == 0
    for each in sockets:
        with pytest.raises(ConnectionResetError):
            each.recv(1)
        each.close()
    client = client_of(proxy)
    assert client.command("PING") == "PONG"
    client.close()


def test_the_server_sees_a_cut_too(server: ValkeyServer, proxy: Proxy) -> None:
    before = int(server.info("clients")["connected_clients"])
    with socket.create_connection(proxy.address) as connection:  # type: ignore[arg-type]
        connection.sendall(b"PING\r\n")
        assert connection.recv(100) == b"+PONG\r\n"
        assert int(server.info("clients")["connected_clients"]) == before + 1
        proxy.cut()
        assert eventually(lambda: int(server.info("clients")["connected_clients"]) == before)


def test_refusing_keeps_open_connections_and_turns_new_ones_away(proxy: Proxy) -> None:
    open_one = client_of(proxy)
    open_one.command("PING")
    proxy.refuse()
    with pytest.raises(ConnectionRefusedError):
        client_of(proxy).command("PING")
    assert open_one.command("PING") == "PONG"
    proxy.refuse(False)
    another = client_of(proxy)
    assert another.command("PING") == "PONG"
    for each in (open_one, another):
        each.close()


def test_a_delay_holds_both_directions_and_keeps_order(proxy: Proxy) -> None:
    client = client_of(proxy)
    client.command("PING")
    proxy.delay(0.1)
    started = time.monotonic()
    assert client.command("PING") == "PONG"
    assert 0.2 <= time.monotonic() - started < 1
    proxy.delay(0)
    assert client.command("ECHO", "after") == b"after"
    client.close()


@pytest.mark.parametrize("direction", ["both", "up", "down"])
def test_a_black_hole_hangs_old_clients_and_new_ones_until_it_ends(proxy: Proxy, direction: Any) -> None:
    with (
        socket.create_connection(proxy.address) as old,  # type: ignore[arg-type]
        socket.create_connection(proxy.address) as new,  # type: ignore[arg-type]
    ):
        old.sendall(b"PING\r\n")
        assert old.recv(100) == b"+PONG\r\n"
        proxy.black_hole(direction=direction)
        for each in (old, new):
            each.settimeout(0.2)
            each.sendall(b"PING\r\n")
            with pytest.raises(TimeoutError):
                each.recv(100)
        assert proxy.connections == 2
        proxy.black_hole(False)
        for each in (old, new):
            each.settimeout(5)
            assert each.recv(100) == b"+PONG\r\n"


def test_in_a_black_hole_the_server_does_not_hear_that_a_client_left(server: ValkeyServer, proxy: Proxy) -> None:
    with socket.create_connection(proxy.address) as client:  # type: ignore[arg-type]
        client.sendall(b"PING\r\n")
        assert client.recv(100) == b"+PONG\r\n"
        there = int(server.info("clients")["connected_clients"])
        proxy.black_hole()
    time.sleep(0.2)
    assert int(server.info("clients")["connected_clients"]) == there
    proxy.cut()
    assert eventually(lambda: int(server.info("clients")["connected_clients"]) == there - 1)


def test_a_proxy_of_a_unix_socket_is_one(server: ValkeyServer) -> None:
    with Proxy(server) as proxy:
        assert proxy.url.startswith("unix:///")
        assert isinstance(proxy.address, str)
        with socket.socket(socket.AF_UNIX) as client:
            client.connect(proxy.address)
            client.sendall(b"PING\r\n")
            assert client.recv(100) == b"+PONG\r\n"
            proxy.cut()
            assert client.recv(100) == b""
        proxy.refuse()
        with pytest.raises(ConnectionRefusedError):
            RespClient(proxy.address).command("PING")
        proxy.refuse(False)
        again = client_of(proxy)
        assert again.command("PING") == "PONG"
        again.close()


def test_the_url_of_a_proxy_keeps_password_and_database() -> None:
    with Proxy("redis://user:secret@localhost:1/5") as proxy:
        assert isinstance(proxy.address, tuple)
        assert proxy.url == f"redis://user:secret@127.0.0.1:{proxy.address[1]}/5"


def test_a_proxy_before_a_dead_server_resets_and_finds_it_again() -> None:
    with ValkeyServer() as server, Proxy(server) as proxy:
        server.kill()
        client = client_of(proxy)
        with pytest.raises(ConnectionError):
            client.command("PING")
        server.restart()
        assert client.command("PING") == "PONG"
        client.close()


# The watch


def block_for(seconds: float) -> None:
    time.sleep(seconds)


async def test_a_stall_is_measured_and_its_stack_is_shown() -> None:
    async with LoopWatch() as watch:
        await asyncio.sleep(0.05)
        block_for(0.2)
        await asyncio.sleep(0.05)
    assert 0.17 < watch.longest_stall_s < 0.4
    assert len(watch.stalls) == 1
    assert "block_for(0.2)" in watch.stalls[0].stack
    with pytest.raises(AssertionError, match="block_for"):
        watch.check()


async def test_a_stall_that_lasts_until_the_end_of_the_block_counts() -> None:
    with LoopWatch() as watch:
        await asyncio.sleep(0.02)
        block_for(0.2)
    assert watch.longest_stall_s > 0.17


async def test_a_loop_that_waits_is_not_stalled() -> None:
    with LoopWatch() as watch:
        await asyncio.sleep(0.5)
    watch.check()
    assert watch.longest_stall_s < 0.1


async def test_a_thread_that_computes_is_no_stall_of_the_loop() -> None:
    over = threading.Event()

    def compute() -> None:
        while not over.is_set():
            sum(range(1000))

    thread = threading.Thread(target=compute)
    with LoopWatch(limit_s=0.3) as watch:  # it waits for the interpreter's lock now and then
        thread.start()
        await asyncio.sleep(0.4)
        over.set()
    thread.join()
    watch.check()


def test_a_busy_machine_is_no_stall() -> None:
    # On one core, beside three processes that compute: the gaps are the system's.
    program = """
import asyncio, os, subprocess, sys
os.sched_setaffinity(0, {min(os.sched_getaffinity(0))})
from antiphon.testing.faults import LoopWatch
busy = [subprocess.Popen([sys.executable, "-c", "while True: pass"]) for _ in range(6)]
async def main():
    with LoopWatch() as watch:
        for _ in range(40):
            sum(range(100_000))
            await asyncio.sleep(0.01)
    print(watch.longest_gap_s, watch.longest_stall_s)
try:
    asyncio.run(main())
finally:
    for each in busy:
        each.kill()
        each.wait()
"""
    if not Path("/proc/self/schedstat").exists():
        pytest.skip("this system does not tell how long a thread waits for a processor")
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, timeout=30, check=True)
    gap, stall = map(float, done.stdout.split())
    assert stall < 0.05
    assert stall < gap


# A function in another process


def answer(peer: Peer, greeting: str) -> None:
    peer.send({"pid": os.getpid(), "greeting": greeting})
    while (got := peer.receive(None)) is not None:
        print("got", got)
        peer.send(got * 2)


async def answer_async(peer: Peer) -> None:
    while (got := await peer.receive_async(None)) is not None:
        peer.send([got, len(asyncio.all_tasks())])


def fail(peer: Peer) -> None:
    raise LookupError("on purpose")


async def test_a_child_process_answers_line_by_line() -> None:
    with ChildProcess(answer, "hello") as child:
        assert child.receive() == {"pid": child.pid, "greeting": "hello"}
        assert child.pid != os.getpid()
        child.send("ab")
        assert await child.receive_async() == "abab"
        child.send([1])
        child.send([2])
        assert [child.receive(), child.receive()] == [[1, 1], [2, 2]]
        with pytest.raises(TimeoutError):
            child.receive(0.1)
        with pytest.raises(TimeoutError):
            await child.receive_async(0.1)
        child.send(None)
        assert child.wait() == 0
        assert "got ab" in child.log_tail()
        with pytest.raises(EOFError):
            child.receive()


def test_a_coroutine_function_runs_on_a_loop_of_the_child() -> None:
    with ChildProcess(answer_async) as child:
        child.send("x")
        assert child.receive() == ["x", 1]
        child.send("x" * 1_000_000)
        assert len(child.receive()[0]) == 1_000_000


def test_a_child_that_raises_tells_in_its_log() -> None:
    with ChildProcess(fail) as child:
        with pytest.raises(EOFError, match="on purpose"):
            child.receive()
        assert child.wait() == 1


def test_a_function_that_does_not_exist_fails_at_the_start() -> None:
    with pytest.raises(RuntimeError, match="no_such_function"):
        ChildProcess("antiphon.names:no_such_function").__enter__()


def test_a_child_is_stopped_resumed_killed_and_started_again() -> None:
    with ChildProcess(answer, "hello") as child:
        child.receive()
        child.stop()
        child.send("a")
        with pytest.raises(TimeoutError):
            child.receive(0.2)
        child.resume()
        assert child.receive() == "aa"
        child.kill()
        with pytest.raises(EOFError):
            child.receive()
        child.restart()
        assert child.receive()["greeting"] == "hello"


# The clock


def test_a_clock_runs_ahead_for_the_package_alone() -> None:
    from antiphon.layer import hub

    now = time.time()
    with clock_offset(86_400):
        assert hub.time.time() - now == pytest.approx(86_400, abs=5)  # type: ignore[attr-defined]
        assert hub.time.time_ns() / 1e9 - now == pytest.approx(86_400, abs=5)  # type: ignore[attr-defined]
        assert hub.time.monotonic() == pytest.approx(time.monotonic(), abs=5)  # type: ignore[attr-defined]
        assert time.time() - now == pytest.approx(0, abs=5)
        with clock_offset(-3600):
            assert hub.time.time() - now == pytest.approx(82_800, abs=5)  # type: ignore[attr-defined]
        assert hub.time.time() - now == pytest.approx(86_400, abs=5)  # type: ignore[attr-defined]
    assert hub.time is time  # type: ignore[attr-defined]


def test_a_name_imported_from_time_is_shifted_too() -> None:
    module = type(sys)("antiphon.layer.temporary")
    vars(module)["now"] = time.time
    sys.modules[module.__name__] = module
    try:
        with clock_offset(60), clock_offset(60):
            assert module.now() - time.time() == pytest.approx(120, abs=5)
        assert module.now is time.time
    finally:
        del sys.modules[module.__name__]


def test_the_package_exports_what_it_documents() -> None:
    documented = DOCUMENT.read_text()
    assert [name for name in faults.__all__ if f"`{name}" not in documented] == []


def test_the_example_of_the_documents_runs() -> None:
    blocks = re.findall(r"^```python\n(.*?)^```$", DOCUMENT.read_text(), re.DOTALL | re.MULTILINE)
    names: dict[str, Any] = {}
    (example,) = [block for block in blocks if "test_a_half_open_link_holds_up_nothing" in block]
    exec(example, names)
    asyncio.run(names["test_a_half_open_link_holds_up_nothing"]())
