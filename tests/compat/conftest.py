"""What the tests of this folder share: subprocesses, since an import alias belongs to a whole process."""

from __future__ import annotations

import os
import re
import shutil
import subprocess
import sys
import tempfile
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[2]
LOCK = ROOT / "requirements" / "channels.lock"
UNCHANGED = Path(__file__).parent / "unchanged"

Run = Callable[..., str]


def environment(*path: Path, **variables: str) -> dict[str, str]:
    """Return the environment of a subprocess that finds ``path`` and this source tree, and no settings of ours."""
    inherited = {key: value for key, value in os.environ.items() if not key.startswith(("DJANGO_", "PYTEST_", "COV_"))}
    found = os.pathsep.join(str(folder) for folder in (*path, ROOT / "src"))
    return {**inherited, "PYTHONPATH": found, "PYTHONWARNINGS": "default", **variables}


@pytest.fixture
def run(tmp_path: Path) -> Run:
    """Run Python in a process of its own; fail with its output unless it ends well, else return the output."""

    def call(*args: str, path: tuple[Path, ...] = (), cwd: Path = tmp_path, **variables: str) -> str:
        done = subprocess.run(
            [sys.executable, *args],
            cwd=cwd,
            env=environment(*path, **variables),
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
            timeout=50,
            check=False,
        )
        assert done.returncode == 0, f"python {args[0]} … ended with {done.returncode}:\n{done.stdout}"
        return done.stdout

    return call


@pytest.fixture(scope="session")
def real_channels() -> Path:
    """Return a folder that holds the real Channels and nothing else; made once in each virtual environment."""
    folder = Path(sys.prefix) / "channels-4.3.2"
    if not folder.exists():
        fresh = Path(tempfile.mkdtemp(prefix="channels-", dir=sys.prefix))
        pip = [sys.executable, "-m", "pip", "--disable-pip-version-check", "install", "--quiet", "--no-deps"]
        subprocess.run([*pip, "--require-hashes", "--target", str(fresh), "-r", str(LOCK)], check=True)
        try:
            fresh.rename(folder)
        except OSError:  # another worker of this run was first
            shutil.rmtree(fresh)
    assert (folder / "channels" / "__init__.py").exists(), f"{folder} holds no channels: remove it and run again"
    return folder


@pytest.fixture
def serve(tmp_path: Path) -> Iterator[Callable[..., str]]:
    """Serve an ASGI application with uvicorn in a process of its own; gives "127.0.0.1:<port>"."""
    servers: list[subprocess.Popen[str]] = []

    def start(application: str, *, path: tuple[Path, ...], **variables: str) -> str:
        server = subprocess.Popen(
            [sys.executable, "-m", "uvicorn", application, "--port", "0"],
            cwd=tmp_path,
            env=environment(*path, **variables),
            stdout=subprocess.DEVNULL,
            stderr=subprocess.PIPE,
            text=True,
        )
        servers.append(server)
        assert server.stderr is not None
        said = []
        for line in server.stderr:
            said.append(line)
            if found := re.search(r"running on http://(127\.0\.0\.1:\d+)", line):
                return found[1]
        raise AssertionError(f"the server did not start:\n{''.join(said)}")

    yield start
    for server in servers:
        server.terminate()
        server.communicate(timeout=50)
