"""One server a project, whoever starts it: found by all, started again when killed, ended after the last has left."""

from __future__ import annotations

import asyncio
import os
import signal
import socket
import stat
import threading
import time
from pathlib import Path

import pytest

from antiphon.engines.redis import embedded
from antiphon.engines.redis.embedded import SOCKET_PATH_MAX
from tests.engines.redis.embedded.house import LINGER_S, House
from tests.waiting import alive, eventually


def test_four_processes_at_once_start_exactly_one_server(house: House) -> None:
    users = [house.user() for _ in range(4)]
    for user in users:
        user.ready()
    assert len({user.do("ask('INFO server').partition('process_id:')[2].split()[0]") for user in users}) == 1
    assert house.log().count("just started") == 1


def test_the_server_is_reached_through_a_socket_that_is_ours_alone(house: House) -> None:
    house.here.ensure_blocking()
    for path, mode in ((house.here.folder, 0o700), (Path(house.here.path), 0o700), (house.here.data, 0o700)):
        state = path.lstat()
        assert stat.S_IMODE(state.st_mode) == mode
        assert state.st_uid == os.getuid()
    assert "*2\r\n$4\r\nport\r\n$1\r\n0\r\n" in "*2\r\n" + house.ask("CONFIG GET port")
    assert "noeviction" in house.ask("CONFIG GET maxmemory-policy")
    assert "everysec" in house.ask("CONFIG GET appendfsync")
    assert len(os.fsencode(house.here.path)) <= SOCKET_PATH_MAX


def test_it_survives_the_death_of_whoever_started_it_and_disturbs_nobody(house: House) -> None:
    starter = house.user()
    starter.ready()
    other = house.user()
    other.ready()
    server = house.server()
    with socket.socket(socket.AF_UNIX) as link:
        link.connect(house.here.path)
        os.killpg(starter.process.pid, signal.SIGKILL)
        time.sleep(3 * LINGER_S)
        assert embedded._ask(link, b"PING") == b"PONG"
    assert other.do("ask('PING')") == "PONG"
    assert house.server() == server


def test_a_killed_server_is_started_again_with_its_data(house: House) -> None:
    user = house.user()
    user.ready()
    user.do("ask('SET kept yes')")
    server = house.server()
    os.kill(server, signal.SIGKILL)
    house.here.ensure_blocking()
    assert house.server() != server
    assert house.ask("GET kept") == "yes\r\n"


def test_a_server_that_keeps_nothing_is_started_again_empty(house: House) -> None:
    user = house.user(persist=False)
    user.ready()
    user.do("ask('SET kept yes')")
    os.kill(house.server(), signal.SIGKILL)
    user.do("valkey.ensure_blocking()")
    assert house.ask("EXISTS kept") == "0"
    assert not list(house.here.data.glob("appendonly*"))


def test_server_and_warden_killed_together_are_both_replaced(house: House) -> None:
    user = house.user()
    user.ready()
    server, warden = house.server(), house.warden()
    os.kill(warden, signal.SIGKILL)
    os.kill(server, signal.SIGKILL)
    user.do("valkey.ensure_blocking()")
    assert house.server() != server
    assert house.warden() != warden


def test_a_server_without_its_warden_gets_another_and_is_ended_by_it(house: House) -> None:
    user = house.user()
    user.ready()
    server, warden = house.server(), house.warden()
    os.kill(warden, signal.SIGKILL)
    assert eventually(lambda: not house.watched())
    user.do("valkey.ensure_blocking()")
    assert house.server() == server  # it is the same, and nobody noticed
    assert house.watched()
    user.kill()
    assert eventually(lambda: not alive(server))


def test_the_last_to_leave_ends_a_server_whose_warden_was_killed(house: House) -> None:
    user = house.user()
    user.ready()
    server, warden = house.server(), house.warden()
    os.kill(warden, signal.SIGKILL)
    assert eventually(lambda: not house.watched())
    user.leave()
    assert eventually(lambda: not alive(server))


@pytest.mark.parametrize("how", ["leave", "kill"])
def test_it_ends_when_the_last_process_has_left(house: House, how: str) -> None:
    users = [house.user(linger_s=1.5), house.user(linger_s=1.5)]
    for user in users:
        user.ready()
    server, warden = house.server(), house.warden()
    getattr(users[0], how)()
    time.sleep(2)
    assert alive(server)
    getattr(users[1], how)()
    assert alive(server)  # somebody may come back
    assert eventually(lambda: not alive(server) and not alive(warden))
    assert not Path(house.here.path).exists()
    # What it kept is there for the next.
    again = house.user()
    again.ready()
    assert house.server() != server


def test_who_comes_back_in_time_finds_the_same_server(house: House) -> None:
    first = house.user(linger_s=4.0)
    first.ready()
    server = house.server()
    first.leave()
    second = house.user()
    second.ready()
    time.sleep(4.5)
    assert house.server() == server


def test_a_forked_child_is_a_user_of_its_own(house: House) -> None:
    user = house.user()
    user.ready()
    server = house.server()
    # The child holds no pipe of ours, and lives on after its parent.
    child = user.do("os.fork() or (os.setsid(), os.closerange(0, 3), time.sleep(30), os._exit(0))")
    try:
        user.kill()
        time.sleep(4 * LINGER_S)
        assert alive(server)
    finally:
        os.kill(child, signal.SIGKILL)
    assert eventually(lambda: not alive(server))


async def test_while_it_is_started_and_found_the_loop_runs_on(house: House, monkeypatch: pytest.MonkeyPatch) -> None:
    ran_on = threading.Event()
    prepare = house.here._prepare

    def wait_for_the_loop() -> None:
        assert ran_on.wait(30), "the loop stood still"
        prepare()

    monkeypatch.setattr(house.here, "_prepare", wait_for_the_loop)
    finding = asyncio.gather(*(house.here.find() for _ in range(5)))
    await asyncio.sleep(0.01)
    assert not finding.done()
    ran_on.set()
    assert {address.path for address in await finding} == {house.here.path}


def test_a_removed_folder_is_made_anew(house: House) -> None:
    house.here.ensure_blocking()
    server, warden = house.server(), house.warden()
    os.kill(warden, signal.SIGTERM)
    assert eventually(lambda: not alive(server))
    for path in house.here.folder.iterdir():
        path.unlink()
    house.here.folder.rmdir()
    house.here.ensure_blocking()
    assert house.server() != server
