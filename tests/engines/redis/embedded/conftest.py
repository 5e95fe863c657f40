"""A project of one test, whose processes and server end with it."""

from __future__ import annotations

import contextlib
import shutil
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.waiting import alive, eventually

if sys.platform == "win32":  # no embedded Valkey there
    collect_ignore_glob = ["test_*.py"]
else:
    from tests.engines.redis.embedded.house import House


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
        assert eventually(lambda: not alive(server)), house.log()
    shutil.rmtree(house.here.folder, ignore_errors=True)
