"""The official clients on their stages, and the servers that they talk to."""

from __future__ import annotations

import importlib.util
import itertools
import os
import shutil
import time
from collections.abc import Callable, Iterator
from typing import Any, NoReturn

import pytest

from antiphon.testing.faults import Proxy
from tests.clients.players import HERE, Player, Stage, node_program
from tests.clients.site import Site

_numbers = itertools.count(1)
Name = Callable[[str], str]
Enter = Callable[..., Player]


def missing(what: str) -> NoReturn:
    """Skip the test for want of a client, or fail it where all are required."""
    if os.environ.get("ANTIPHON_REQUIRE_BROWSER") == "1":
        pytest.fail(what)
    pytest.skip(what)


def staged(kind: str) -> Iterator[Stage]:
    chromium = None
    if kind == "python":
        if importlib.util.find_spec("centrifuge") is None:
            missing("the package centrifuge-python is not installed")
    elif not (HERE / "node_modules").is_dir():
        missing("the JavaScript client is not installed: make test installs it")
    elif kind == "node":
        if node_program() is None:
            missing("no node found")
    else:
        chromium = os.environ.get("CHROMIUM") or shutil.which("chromium")
        if not chromium:
            missing("no chromium found; CHROMIUM=<path> names one")
        if importlib.util.find_spec("playwright") is None:
            missing("the package playwright is not installed")
    stage = Stage.of(kind, chromium)
    yield stage
    stage.close()
    assert stage.page_errors == []


@pytest.fixture(scope="session")
def node_stage() -> Iterator[Stage]:
    yield from staged("node")


@pytest.fixture(scope="session")
def chromium_stage() -> Iterator[Stage]:
    yield from staged("chromium")


@pytest.fixture(scope="session")
def python_stage() -> Iterator[Stage]:
    yield from staged("python")


@pytest.fixture(params=["node", "chromium", "python"])
def stage(request: pytest.FixtureRequest) -> Stage:
    """Each kind of client in turn."""
    found: Stage = request.getfixturevalue(f"{request.param}_stage")
    return found


@pytest.fixture(scope="session")
def database(tmp_path_factory: pytest.TempPathFactory) -> Any:
    return tmp_path_factory.mktemp("clients") / "users.sqlite3"


@pytest.fixture(scope="session")
def site(database: Any) -> Iterator[Site]:
    """A server on the memory engine."""
    site = Site(database)
    site.start()
    yield site
    site.close()


@pytest.fixture(scope="session")
def user(site: Site) -> int:
    """A user; who changes one makes another."""
    number: int = site.order("user", name="somebody")
    return number


@pytest.fixture(scope="session")
def old_tokens(site: Site, user: int) -> tuple[str, str]:
    """Tokens whose time is over: of a connection, and of a subscription to the group "token_old"."""
    tokens = site.order("token", user=user, ttl_s=0.001), site.order("token", user=user, group="token_old", ttl_s=0.001)
    time.sleep(1.1)  # they count in whole seconds
    return tokens


@pytest.fixture
def wire(site: Site) -> Iterator[Proxy]:
    """A network to the server, which can be cut."""
    with Proxy(("127.0.0.1", site.port)) as proxy:
        yield proxy


@pytest.fixture
def name() -> Name:
    """Return a new name, with a beginning that says what it is for."""
    return lambda beginning: f"{beginning}_{os.getpid()}_{next(_numbers)}"


@pytest.fixture
def enter(stage: Stage, site: Site) -> Iterator[Enter]:
    """Make clients of this test's kind: ``enter()``, ``enter("quick", port=wire.address[1], token=…)``."""
    players: list[Player] = []

    def new(path: str = "live", *, port: int | None = None, **options: Any) -> Player:
        url = options.pop("url", None) or f"ws://127.0.0.1:{port or site.port}/{path}"
        player = Player(stage, f"http://127.0.0.1:{options.pop('page', site.port)}/page", url, **options)
        players.append(player)
        return player

    yield new
    for player in players:
        player.close()
