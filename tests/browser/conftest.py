"""A headless Chromium and the real demo server, for the tests of what people see."""

from __future__ import annotations

import contextlib
import os
import re
import shutil
import signal
import socket
import subprocess
import sys
import time
import urllib.error
import urllib.request
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal, NoReturn

import pytest
import redis

from antiphon.project import project_key, runtime_home

if TYPE_CHECKING:
    from playwright.sync_api import Browser, BrowserContext, ConsoleMessage, Page, Response

SHOWCASE = Path(__file__).resolve().parents[2] / "examples" / "showcase"
ARTEFACTS = Path(__file__).parent / "artefacts"
START_LIMIT_S = 50
# What these switches leave out would only ask for the network, or for what a container does not have.
SWITCHES = [
    "--no-sandbox",
    "--disable-gpu",
    "--disable-quic",
    "--no-first-run",
    "--disable-background-networking",
    "--disable-component-update",
    "--disable-sync",
]


def missing(what: str) -> NoReturn:
    """Skip the test for want of a browser, or fail it where one is required."""
    if os.environ.get("ANTIPHON_REQUIRE_BROWSER") == "1":
        pytest.fail(what)
    pytest.skip(what)


@pytest.fixture(scope="module")
def chromium() -> Iterator[Browser]:
    # A module's, not a session's: while Playwright's loop is open, other tests of this process could not run theirs.
    try:
        from playwright.sync_api import sync_playwright
    except ImportError:
        missing("the package playwright is not installed")
    executable = os.environ.get("CHROMIUM") or shutil.which("chromium")
    if not executable:
        missing("no chromium found; CHROMIUM=<path> names one")
    with sync_playwright() as playwright:
        browser = playwright.chromium.launch(executable_path=executable, args=SWITCHES)
        yield browser
        browser.close()


class Demo:
    """The showcase, ``manage.py demo``: its supervisor, two workers, and the Valkey that they share."""

    def __init__(self, folder: Path) -> None:
        with socket.socket() as free:
            free.bind(("127.0.0.1", 0))
            self.port: int = free.getsockname()[1]
        self.url = f"http://127.0.0.1:{self.port}"
        self._log = folder / "server.log"
        home = {"SHOWCASE_DATA": str(folder), "XDG_STATE_HOME": str(folder / "state"), "PYTHONUNBUFFERED": "1"}
        unset = {"DJANGO_SETTINGS_MODULE", "LAYER", "XDG_STATE_HOME"}
        self._environment = {key: value for key, value in os.environ.items() if key not in unset} | home
        self._project = str(folder.resolve())
        self._process: subprocess.Popen[bytes] | None = None

    def start(self, *arguments: str, **environment: str) -> None:
        """Start the server and wait until it answers."""
        with self._log.open("ab") as log:
            self._process = subprocess.Popen(
                [sys.executable, "manage.py", "demo", "--port", str(self.port), *arguments],
                cwd=SHOWCASE,
                env=self._environment | environment,
                stdout=log,
                stderr=log,
                start_new_session=True,
            )
        limit = time.monotonic() + START_LIMIT_S
        while time.monotonic() < limit and self._process.poll() is None:
            try:
                with urllib.request.urlopen(self.url, timeout=20):
                    return
            except (urllib.error.URLError, OSError):
                time.sleep(0.1)
        self.kill()
        pytest.fail(f"the demo did not start:\n{self.log()}")

    def kill(self) -> None:
        """Kill the server and all it started, as a crash would."""
        if self._process is not None:
            if sys.platform == "win32":
                self._process.kill()
            else:
                with contextlib.suppress(ProcessLookupError):  # it did not even start
                    os.killpg(self._process.pid, signal.SIGKILL)
            self._process.wait()
            self._process = None

    def interrupt(self) -> int:
        """Press Ctrl-C, which reaches the whole group of processes; return the exit code."""
        assert self._process is not None
        if sys.platform != "win32":
            os.killpg(self._process.pid, signal.SIGINT)
        return self._process.wait(30)

    def kill_supervisor(self) -> None:
        """Kill only the process that was started."""
        assert self._process is not None
        self._process.kill()
        self._process.wait()

    def manage(self, *arguments: str) -> None:
        """Run a command of the project, as in another terminal."""
        done = subprocess.run(
            [sys.executable, "manage.py", *arguments],
            cwd=SHOWCASE,
            env=self._environment,
            capture_output=True,
            text=True,
            check=False,
            timeout=50,
        )
        assert done.returncode == 0, done.stderr

    def valkey_pid(self) -> int:
        """Return the process of the server that carries the messages."""
        path = runtime_home() / project_key(self._project) / "valkey.sock"
        with redis.Redis(unix_socket_path=str(path)) as client:
            return int(client.info("server")["process_id"])

    def log(self) -> str:
        """Return what the server has printed."""
        return self._log.read_text(errors="replace")


@pytest.fixture(scope="module")
def demo(tmp_path_factory: pytest.TempPathFactory, chromium: Browser) -> Iterator[Demo]:
    server = Demo(tmp_path_factory.mktemp("showcase"))
    server.start()
    yield server
    server.kill()
    assert "Traceback" not in server.log(), server.log()


class Visitor:
    """One browser context with the demo in it, which notes everything that goes wrong on its pages."""

    def __init__(self, context: BrowserContext, url: str) -> None:
        self.context = context
        self.problems: list[str] = []
        self._url = url
        self._expected: list[str] = []
        context.on("console", self._console)
        context.on("weberror", lambda error: self.problems.append(f"uncaught: {error.error}"))
        context.on("response", self._response)

    def expect_problem(self, pattern: str) -> None:
        """Let pass what matches ``pattern``, an expression: this test provokes it."""
        self._expected.append(pattern)

    def open(self, path: str) -> Page:
        """Open a page of the demo in a new tab."""
        page = self.context.new_page()
        page.goto(self.address(path))
        return page

    def address(self, path: str) -> str:
        """Return the full address of a path of the demo."""
        return self._url + path

    def unexpected(self) -> list[str]:
        """Return the problems that the test did not expect."""
        return [each for each in self.problems if not any(re.search(pattern, each) for pattern in self._expected)]

    def _console(self, message: ConsoleMessage) -> None:
        # Violations of the Content-Security-Policy are reported here too, as errors.
        if message.type in {"error", "warning"}:
            self.problems.append(f"console: {message.text}")

    def _response(self, response: Response) -> None:
        if response.status >= 400:
            self.problems.append(f"{response.status}: {response.url}")


class Arrive:
    """Make visitors; a fixture's callable: ``arrive()``, ``arrive(width=380, scheme="dark")``."""

    def __init__(self, browser: Browser, url: str) -> None:
        self.visitors: list[Visitor] = []
        self._browser = browser
        self._url = url

    def __call__(
        self, *, width: int = 1280, height: int = 800, scheme: Literal["light", "dark"] = "light", **options: Any
    ) -> Visitor:
        context = self._browser.new_context(
            viewport={"width": width, "height": height}, color_scheme=scheme, reduced_motion="reduce", **options
        )
        context.set_default_timeout(40_000)
        visitor = Visitor(context, self._url)
        self.visitors.append(visitor)
        return visitor


@pytest.fixture
def arrive(chromium: Browser, demo: Demo) -> Iterator[Arrive]:
    arrivals = Arrive(chromium, demo.url)
    yield arrivals
    problems = [each for visitor in arrivals.visitors for each in visitor.unexpected()]
    for visitor in arrivals.visitors:
        visitor.context.close()
    assert problems == []


@pytest.fixture
def keep() -> Callable[[Page, str], None]:
    """Take a screenshot of a page and keep it among the artefacts."""

    def screenshot(page: Page, name: str) -> None:
        ARTEFACTS.mkdir(exist_ok=True)
        page.screenshot(path=ARTEFACTS / f"{name}.png", full_page=True)

    return screenshot
