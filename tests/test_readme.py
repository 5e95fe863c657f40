"""The README's chat: the project is built from the blocks of the README as they stand, served, and used."""

from __future__ import annotations

import asyncio
import os
import re
import socket
import subprocess
import sys
import time
import urllib.error
import urllib.request
from collections.abc import Iterator
from pathlib import Path

import pytest
from websockets.asyncio.client import connect
from websockets.exceptions import InvalidStatus

README = Path(__file__).resolve().parents[1] / "README.md"
START_LIMIT_S = 60
pytestmark = pytest.mark.timeout(120)


def blocks() -> Iterator[tuple[str, str]]:
    """Yield (path, text) of each block that opens with a comment naming its file."""
    for language, text in re.findall(r"^```(python|html)\n(.*?)^```$", README.read_text(), re.DOTALL | re.MULTILINE):
        opening = {"python": r"# ([\w/]+\.py)", "html": r"<!-- ([\w/]+\.html) -->"}[language]
        if found := re.match(opening, text):
            yield found[1], text


def run(*command: str, cwd: Path) -> str:
    environment = {key: value for key, value in os.environ.items() if not key.startswith(("DJANGO_", "PYTEST_"))}
    done = subprocess.run(
        [sys.executable, *command],
        cwd=cwd,
        env=environment,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
        timeout=60,
        check=False,
    )
    assert done.returncode == 0, done.stdout
    return done.stdout


def get(url: str) -> str:
    with urllib.request.urlopen(url, timeout=30) as answer:
        text: str = answer.read().decode()
        return text


@pytest.fixture(scope="module")
def project(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("readme")
    run("-m", "django", "startproject", "mysite", ".", cwd=folder)
    run("manage.py", "startapp", "chat", cwd=folder)
    for path, text in blocks():
        file = folder / path
        file.parent.mkdir(parents=True, exist_ok=True)
        before = file.read_text() if path == "mysite/settings.py" else ""  # "at the end"
        file.write_text(before + text)
    return folder


@pytest.fixture(scope="module")
def address(project: Path) -> Iterator[str]:
    run("manage.py", "migrate", cwd=project)
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        host = f"127.0.0.1:{free.getsockname()[1]}"
    environment = {key: value for key, value in os.environ.items() if not key.startswith(("DJANGO_", "PYTEST_"))}
    with (project / "server.log").open("wb") as log:
        server = subprocess.Popen(
            [sys.executable, "manage.py", "runserver", "--noreload", host],
            cwd=project,
            env=environment,
            stdout=log,
            stderr=log,
        )
    try:
        limit = time.monotonic() + START_LIMIT_S
        while True:
            try:
                get(f"http://{host}/chat/lobby/")
                break
            except (urllib.error.URLError, OSError):
                said = (project / "server.log").read_text()
                assert server.poll() is None, said
                assert time.monotonic() < limit, said
                time.sleep(0.1)
        yield host
    finally:
        server.terminate()
        server.wait(30)
    assert "Traceback" not in (project / "server.log").read_text()


def test_the_readme_has_the_files_it_counts() -> None:
    assert [path for path, _ in blocks()] == [
        "mysite/settings.py",
        "mysite/asgi.py",
        "chat/routing.py",
        "chat/consumers.py",
        "chat/views.py",
        "mysite/urls.py",
        "chat/templates/chat/room.html",
    ]


def test_the_project_passes_every_check(project: Path) -> None:
    assert "no issues" in run("manage.py", "check", "--fail-level", "WARNING", cwd=project)


async def test_two_visitors_chat_and_a_view_rings(address: str) -> None:
    assert "/ws/chat/lobby/" in await asyncio.to_thread(get, f"http://{address}/chat/lobby/")
    room, origin = f"ws://{address}/ws/chat/lobby/", f"http://{address}"
    async with connect(room, origin=origin) as ada, connect(room, origin=origin) as grace:  # type: ignore[arg-type]
        await ada.send("hello")
        assert [await ada.recv(), await grace.recv()] == ["hello", "hello"]
        await asyncio.to_thread(get, f"http://{address}/chat/lobby/bell/")
        assert [await ada.recv(), await grace.recv()] == ["Somebody rings."] * 2


async def test_another_site_cannot_open_the_chat(address: str) -> None:
    with pytest.raises(InvalidStatus, match="403"):
        await connect(f"ws://{address}/ws/chat/lobby/", origin="http://elsewhere.example")  # type: ignore[arg-type]
