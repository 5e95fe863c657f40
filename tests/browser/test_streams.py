"""What pages show of groups: ``EventSource`` and htmx 2 and 4 in a real browser, against servers that end and die."""

from __future__ import annotations

import re
import socket
from collections.abc import Iterator
from typing import TYPE_CHECKING

import pytest

from antiphon.testing.faults import ValkeyServer
from antiphon.wire.sse import EventReader, ServerEvent
from tests.browser.conftest import missing
from tests.browser.streaming import FILES, StreamingSite
from tests.waiting import eventually

if TYPE_CHECKING:
    from playwright.sync_api import Browser, Page

LIMIT_MS = 30_000
WAYS = ("htmx2-ws", "htmx2-sse", "htmx4-ws", "htmx4-sse")


@pytest.fixture(scope="module")
def sites(valkey: ValkeyServer) -> Iterator[list[StreamingSite]]:
    """Two servers: the one that pages talk to, and one that sends while that is away."""
    found = [StreamingSite(valkey.url, "streams") for _ in range(2)]
    for site in found:
        site.start()
    yield found
    for site in found:
        site.kill()


@pytest.fixture
def site(sites: list[StreamingSite]) -> StreamingSite:
    return sites[0]


@pytest.fixture
def office(sites: list[StreamingSite]) -> StreamingSite:
    return sites[1]


@pytest.fixture
def page(chromium: Browser) -> Iterator[Page]:
    context = chromium.new_context()
    context.set_default_timeout(LIMIT_MS)
    page = context.new_page()
    errors: list[str] = []
    page.on("pageerror", lambda error: errors.append(str(error)))
    yield page
    context.close()
    assert errors == []


def visit(page: Page, site: StreamingSite, name: str) -> None:
    """Open a page, and wait until it is a member of the group."""
    if name != "plain" and not FILES.is_dir():
        missing("htmx is not installed: npm ci in tests/browser, as make test does")
    assert eventually(lambda: site.order("members") == 0)
    page.goto(site.url(name))
    assert eventually(lambda: site.order("members") == 1)


def shown(page: Page, *lines: str) -> None:
    """Wait until the list has exactly these lines."""
    page.wait_for_function("(n) => document.querySelectorAll('#list > li').length >= n", arg=len(lines))
    assert page.locator("#list > li").all_inner_texts() == list(lines)


@pytest.mark.browser
@pytest.mark.parametrize("way", WAYS)
def test_fragments_are_shown(page: Page, site: StreamingSite, office: StreamingSite, way: str) -> None:
    visit(page, site, way)
    site.order("broadcast", template="line.html", text="<b>one</b>", target="#list")
    office.order("broadcast", template="line.html", text="two", target="ul#list")
    office.order("broadcast", template="line.html", text="zero", target="#list", swap="afterbegin")
    shown(page, "zero", "<b>one</b>", "two")
    office.order("broadcast", template="status.html", text="up & running")
    page.wait_for_function("document.querySelector('#status').textContent === 'up & running'")
    office.order("broadcast", template="line.html", text="new", target="#list", swap="innerHTML")
    page.wait_for_function("document.querySelector('#list').textContent.trim() === 'new'")
    assert page.locator("#list > div").count() == 0
    page.close()
    assert eventually(lambda: site.order("members") == 0)


@pytest.mark.browser
@pytest.mark.parametrize("way", ["htmx2-sse", "htmx4-sse"])
def test_fragments_that_were_sent_while_the_server_was_dead_are_shown(
    page: Page, site: StreamingSite, office: StreamingSite, way: str
) -> None:
    visit(page, site, way)
    site.order("broadcast", template="line.html", text="1", target="#list")
    shown(page, "1")
    site.kill()
    for text in ("2", "3"):
        office.order("broadcast", template="line.html", text=text, target="#list")
    site.start()
    shown(page, "1", "2", "3")
    office.order("broadcast", template="line.html", text="4", target="#list")
    shown(page, "1", "2", "3", "4")


@pytest.mark.browser
@pytest.mark.parametrize("way", ["htmx2-sse", "htmx4-sse"])
def test_a_page_loads_its_state_anew_when_it_is_told_to(page: Page, site: StreamingSite, way: str) -> None:
    visit(page, site, way)
    site.order("broadcast", template="line.html", text="1", target="#list")
    shown(page, "1")
    site.order("send", message={"type": "group.lost", "group": "board"})
    page.wait_for_function("document.querySelector('#list').textContent === 'the state'")


@pytest.mark.browser
@pytest.mark.parametrize("how", ["kill", pytest.param("end", marks=pytest.mark.soak)])
def test_an_event_source_survives_its_server(page: Page, site: StreamingSite, office: StreamingSite, how: str) -> None:
    visit(page, site, "plain")
    sent = 0
    for turn in range(2):
        for _ in range(3):
            site.order("send", message={"type": "note", "n": sent})
            sent += 1
        if not turn:
            page.wait_for_function("(n) => seen.length >= n", arg=sent)
        getattr(site, how)()
        for _ in range(3):
            office.order("send", message={"type": "note", "n": sent})
            sent += 1
        site.start()
    office.order("send", message={"type": "note", "n": sent})
    page.wait_for_function("(n) => seen.length >= n", arg=sent + 1)
    assert page.evaluate("seen") == [["note", {"n": n}] for n in range(sent + 1)]


@pytest.mark.browser
def test_an_event_source_that_is_refused_does_not_ask_again(page: Page, site: StreamingSite) -> None:
    page.goto(site.url("plain"))
    state = page.evaluate(
        """() => new Promise((resolve) => {
          const refused = new EventSource("/closed");
          refused.onerror = () => resolve(refused.readyState);
        })"""
    )
    assert state == 2  # EventSource.CLOSED
    assert site.order("asked") == 1


class Reading:
    """A client with a socket of its own, which leaves when it wants to."""

    def __init__(self, port: int) -> None:
        self.reader = EventReader()
        self.head = b""
        self._socket = socket.create_connection(("127.0.0.1", port), 30)
        self._socket.sendall(b"GET /events HTTP/1.1\r\nHost: localhost\r\n\r\n")
        self._rest = b""

    def events(self, count: int) -> list[ServerEvent]:
        """Read until so many events have come."""
        found: list[ServerEvent] = []
        while len(found) < count:
            data = self._socket.recv(65536)
            assert data, "the stream has ended"
            self._rest += data
            if not self.head:
                self.head, _, self._rest = self._rest.partition(b"\r\n\r\n")
            while match := re.match(rb"([0-9a-f]+)\r\n", self._rest):  # chunks, as HTTP/1.1 has them
                size = int(match[1], 16)
                if len(self._rest) < match.end() + size + 2:
                    break
                found += self.reader.feed(self._rest[match.end() : match.end() + size])
                self._rest = self._rest[match.end() + size + 2 :]
        return found

    def leave(self) -> None:
        """Go without a word."""
        self._socket.close()


@pytest.mark.parametrize("ours", [True, False], ids=["our-protocol", "uvicorns"])
def test_a_client_that_leaves_is_missed_at_once(valkey: ValkeyServer, ours: bool) -> None:
    site = StreamingSite(valkey.url, f"leaving{ours}", ours=ours)
    site.start()
    try:
        clients = [Reading(site.port) for _ in range(3)]
        assert eventually(lambda: site.order("members") == 3)
        site.order("send", message={"type": "note", "n": 1})
        assert [client.events(1)[0][:2] for client in clients] == [("note", '{"n": 1}')] * 3
        head = clients[0].head.lower()
        assert b"x-accel-buffering: no" in head
        assert b"cache-control: no-store, no-transform" in head
        assert b"content-encoding" not in head
        clients.pop().leave()
        # Neither a message nor a heartbeat was sent meanwhile: nothing was written into the void.
        assert eventually(lambda: site.order("members") == 2)
        for client in clients:
            client.leave()
        assert eventually(lambda: site.order("members") == 0)
    finally:
        site.kill()
