"""The proxy: it forwards, cuts, refuses, delays and black-holes."""

from __future__ import annotations

import socket
import time
from typing import Any

import pytest

from antiphon.testing.faults import Proxy, RespClient, ValkeyServer
from tests.waiting import eventually


def client_of(proxy: Proxy) -> RespClient:
    return RespClient(proxy.address)


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
    assert time.monotonic() - started >= 0.2
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
            each.settimeout(30)
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
