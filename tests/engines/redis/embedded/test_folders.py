"""The folder of an embedded server: whose it must be, what it holds, and that two servers never share its data."""

from __future__ import annotations

import json
import os
import subprocess
import sys
import tempfile
from pathlib import Path

import pytest

from antiphon.engines.redis.embedded import EmbeddedValkey
from antiphon.exceptions import EngineUnavailable, OptionError
from tests.engines.redis.embedded.house import USER, House
from tests.waiting import alive, eventually

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
                USER.partition("valkey.ensure_blocking")[0] + TRY,
                json.dumps({"project": house.project, "linger_s": 0}),
            ],
            capture_output=True,
            text=True,
            env=house.environment | {"TMPDIR": elsewhere},
            check=False,
            timeout=50,
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
    assert eventually(lambda: not alive(server))


def test_a_path_too_long_for_a_socket_is_refused_at_once(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    with pytest.raises(OptionError, match=r"at most \d+ bytes.*; got '"):
        EmbeddedValkey("p", directory=tmp_path / ("x" * 120))
    monkeypatch.setattr(tempfile, "tempdir", str(tmp_path / ("x" * 120)))
    with pytest.raises(OptionError, match=r"at most \d+ bytes.*; the temporary directory leads to '"):
        EmbeddedValkey("p")
