from __future__ import annotations

import contextlib
import itertools
import os
import re
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any, cast

import httpx
import pytest
from django.core.management import call_command, get_commands, load_command_class
from django.core.management.base import CommandError
from websockets.exceptions import InvalidStatus
from websockets.sync import client

from antiphon.django.commands import runserver
from antiphon.django.development import DevelopmentApplication
from tests.django.asgi import DENIED, Recorder, http, play, websocket

# The stubs want origins of a type of their own.
connect: Any = client.connect

ROOT = Path(__file__).parents[2]


@contextmanager
def server(tmp_path: Path, *arguments: str, **environment: str) -> Iterator[tuple[str, Path]]:
    """Run the command in a process of its own; give its address, and the file that its output goes to."""
    env = {
        **os.environ,
        "DJANGO_SETTINGS_MODULE": "tests.project.settings",
        "TESTS_DATABASE": str(tmp_path / "db.sqlite3"),
        "PYTHONPATH": os.pathsep.join([str(tmp_path), str(ROOT), str(ROOT / "src")]),
        "PYTHONUNBUFFERED": "1",
        **environment,
    }
    manage = [sys.executable, "-m", "django"]
    subprocess.run([*manage, "migrate", "-v0"], check=True, env=env, cwd=tmp_path, timeout=50)
    output = tmp_path / "output"
    with output.open("w") as stream:
        process = subprocess.Popen(
            [*manage, "runserver", *arguments],
            env=env,
            cwd=tmp_path,
            stdout=stream,
            stderr=stream,
            start_new_session=True,
        )
        try:
            yield wait_for(output, r"at http://(\S+)/"), output
            end(process, "SIGINT")
            process.wait(30)
        finally:
            if process.poll() is None:
                end(process, "SIGKILL")
                process.wait()


def end(process: subprocess.Popen[Any], name: str) -> None:
    if sys.platform == "win32":
        process.kill()
    else:  # the reloader and its child are one group, as at a terminal
        os.killpg(process.pid, signal.Signals[name])


def wait_for(output: Path, pattern: str, count: int = 1) -> str:
    deadline = time.monotonic() + 40
    while time.monotonic() < deadline:
        found = re.findall(pattern, output.read_text())
        if len(found) >= count:
            return str(found[-1])
        time.sleep(0.05)
    pytest.fail(f"{pattern!r} did not appear {count} times in:\n{output.read_text()}")


@pytest.mark.timeout(90)
@pytest.mark.skipif(sys.platform == "win32", reason="ends the server with a signal")
def test_it_serves_views_static_files_and_websockets(tmp_path: Path) -> None:
    with server(tmp_path, "127.0.0.1:0", "--noreload") as (address, output):
        page = httpx.get(f"http://{address}/", timeout=30)
        assert (page.status_code, page.text) == (200, "anonymous")
        assert httpx.get(f"http://{address}/static/probe.css", timeout=30).text.startswith("body")
        with connect(f"ws://{address}/ws/echo/", origin=f"http://{address}") as socket:
            socket.send("hello")
            assert socket.recv(timeout=30) == ": hello"
        with pytest.raises(InvalidStatus) as denied, connect(f"ws://{address}/ws/ech/", origin=f"http://{address}"):
            pass
        assert denied.value.response.status_code == 403
        with pytest.raises(InvalidStatus), connect(f"ws://{address}/ws/echo/", origin="http://evil.test"):
            pass
    text = output.read_text()
    assert "Serving tests.project.asgi.application with uvicorn" in text
    assert "System check identified no issues" in text
    assert "Quit the server with CONTROL-C." in text
    assert '"GET / HTTP/1.1" 200' in text
    assert '"GET /static/probe.css HTTP/1.1" 200' in text
    assert '"WebSocket /ws/echo/" 101 open' in text
    assert "near: 'ws/echo/'" in text
    assert "its origin 'http://evil.test' matches no allowed one" in text
    assert "Traceback" not in text


@pytest.mark.timeout(90)
@pytest.mark.skipif(sys.platform == "win32", reason="ends the server with a signal")
def test_it_reloads_when_the_code_changes(tmp_path: Path) -> None:
    module = tmp_path / "reloaded.py"
    source = "from antiphon.routing import asgi_application\napplication = asgi_application([])\n"
    module.write_text(source)
    (tmp_path / "own_settings.py").write_text(
        "from tests.project.settings import *\nASGI_APPLICATION = 'reloaded.application'\n"
    )
    with server(tmp_path, "127.0.0.1:0", DJANGO_SETTINGS_MODULE="own_settings") as (address, output):
        assert httpx.get(f"http://{address}/", timeout=30).status_code == 200
        # The reloader compares modification times once a second with those it saw first; on a busy machine its first
        # look may come after our change, so there is more than one, and perhaps more than one reload.
        until_s = time.monotonic() + 40
        for change in itertools.count():
            assert time.monotonic() < until_s, output.read_text()
            time.sleep(1.1)
            if len(found := re.findall(r"at http://(\S+)/", output.read_text())) > 1:
                with contextlib.suppress(httpx.TransportError):
                    assert httpx.get(f"http://{found[-1]}/", timeout=30).status_code == 200
                    break
            else:
                module.write_text(source + f"# changed {change}\n")
    assert "Traceback" not in output.read_text()


def test_it_is_the_runserver_of_the_project() -> None:
    assert get_commands()["runserver"] == "antiphon"
    assert isinstance(load_command_class("antiphon", "runserver"), runserver.Command)


def test_a_missing_server_is_one_line_that_says_what_to_install(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(runserver, "find_spec", lambda name: None if name == "uvicorn" else object())
    with pytest.raises(CommandError, match=re.escape('pip install "antiphon[server]"')):
        call_command("runserver", "--noreload")


def test_a_missing_application_is_one_line(settings: Any) -> None:
    settings.DEBUG, settings.ASGI_APPLICATION = True, None
    with pytest.raises(CommandError, match="ASGI_APPLICATION"):
        call_command("runserver", "--noreload")


async def test_a_ticket_stays_out_of_the_line_of_its_request(caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level("INFO", "django.server")
    await play(DevelopmentApplication(Recorder()), http("/events/", query_string=b"a=1&ticket=secret&b=2"))
    [record] = caplog.records
    assert '"GET /events/?a=1&ticket=***&b=2 HTTP/1.1"' in record.getMessage()


async def test_each_request_is_one_line_of_django_server(caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level("INFO", "django.server")
    app = DevelopmentApplication(Recorder())
    await play(app, http("/a\x1b[2J/", query_string=b"x=1"))
    await play(app, websocket("/ws/"))
    assert [record.getMessage() for record in caplog.records] == [
        '"GET /a\\x1b[2J/?x=1 HTTP/1.1" 200 -',
        '"WebSocket /ws/" 101 open',
    ]


async def test_a_websocket_at_plain_django_is_denied_with_one_line(caplog: pytest.LogCaptureFixture) -> None:
    from django.core.asgi import get_asgi_application

    assert await play(DevelopmentApplication(cast("Any", get_asgi_application())), websocket("/ws/")) == DENIED
    [record] = caplog.records
    assert "serves HTTP alone" in record.getMessage()
    assert "asgi_application" in record.getMessage()
