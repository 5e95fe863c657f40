"""The warning of a server's known gaps. On the servers themselves it is seen by ``make servers``."""

from __future__ import annotations

import functools
import logging
import sys
from typing import Any

import pytest

from antiphon.consumers import servers
from antiphon.consumers.servers import GAPS, warn_of_gaps
from tests.server.behaviours.running import KINDS, running

SCOPE = {"type": "websocket"}


@pytest.fixture(autouse=True)
def first_socket(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(servers, "_looked", False)


class Sender:
    """As servers hand out ``send``: a method of an object of theirs."""

    async def send(self, event: Any) -> None:
        """Take an event."""


def send_of(module: str) -> Any:
    return type("Sender", (Sender,), {"__module__": module})().send


def passed_on(send: Any) -> Any:
    async def wrapper(event: Any) -> None:
        await send(event)

    return wrapper


# Where each server's ``send`` comes from, and the classes of ours that a project may have derived.
MODULES = {
    "daphne.server": "daphne",
    "hypercorn.protocol.ws_stream": "hypercorn",
    "granian._granian": "granian",
    "uvicorn.protocols.websockets.wsproto_impl": "uvicorn",
    "antiphon.server.protocol": "",
    "antiphon.django.security": "",
    "somebody.else": "",
}


@pytest.mark.parametrize(("module", "package"), MODULES.items())
@pytest.mark.parametrize(
    "wrap",
    [
        pytest.param(lambda send: send, id="bare"),
        pytest.param(lambda send: functools.partial(send, None), id="daphne"),
        pytest.param(lambda send: functools.partial(passed_on(print), send=send), id="starlette"),
        pytest.param(lambda send: passed_on(passed_on(send)), id="middlewares"),
    ],
)
def test_a_server_is_known_by_its_send_whatever_is_around_it(
    module: str, package: str, wrap: Any, caplog: pytest.LogCaptureFixture
) -> None:
    warn_of_gaps(SCOPE, wrap(send_of(module)))
    assert [GAPS[package] in text for text in caplog.messages] == ([True] if package else [])
    assert all("docs/servers.md" in text for text in caplog.messages)
    assert {record.name for record in caplog.records} <= {"antiphon.server"}


def test_a_process_is_warned_once_and_not_for_http(caplog: pytest.LogCaptureFixture) -> None:
    send = send_of("daphne.server")
    warn_of_gaps({"type": "http"}, send)
    assert caplog.records == []
    warn_of_gaps(SCOPE, send)
    warn_of_gaps(SCOPE, send)
    assert [record.levelno for record in caplog.records] == [logging.WARNING]


def test_a_send_that_holds_itself_is_looked_through_once(caplog: pytest.LogCaptureFixture) -> None:
    async def send(event: Any) -> None:
        await send(event)

    warn_of_gaps(SCOPE, send)
    assert caplog.records == []


@pytest.mark.skipif(sys.platform == "win32", reason="the server runs in a process group, as POSIX has them")
@pytest.mark.parametrize(("kind", "warns"), [("uvicorn", True), ("antiphon", False)])
async def test_uvicorn_is_warned_of_with_its_own_class_and_not_with_ours(kind: str, warns: bool) -> None:
    async with running(KINDS[kind], sys.executable, patience_s=30.0) as server:
        # A running server has served a WebSocket already.
        warning = server.seen("log").get("warning", "")
    assert warning.startswith("uvicorn ") is warns
