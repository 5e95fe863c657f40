"""The showcase when a line, a worker, the engine or all of it dies under it: nobody reloads, and nothing is missed."""

from __future__ import annotations

import os
import signal
import sys
from collections.abc import Callable
from typing import TYPE_CHECKING

import pytest

from tests.browser.people import badge, connected, heard, process_of, said, say, sign_in, to_room, windows
from tests.waiting import eventually

if TYPE_CHECKING:
    from playwright.sync_api import Page

    from tests.browser.conftest import Arrive, Demo

if sys.platform == "win32":
    pytest.skip("several workers need sockets that can be handed over", allow_module_level=True)

pytestmark = pytest.mark.browser

# What a browser itself says of a line that broke.
BROKEN = (
    r"WebSocket connection to .* failed"
    r"|ERR_(CONNECTION_(REFUSED|RESET|CLOSED)|INCOMPLETE_CHUNKED_ENCODING|EMPTY_RESPONSE|SOCKET_NOT_CONNECTED)"
)

SHELL = """
import multiprocessing
from django.contrib.auth.models import User
from django.db import connections
from notifications.sending import notify

people = User.objects.in_bulk(["ada", "grace"], field_name="username")
notify(people["ada"], people["grace"], "From the shell", "shell")
connections.close_all()
child = multiprocessing.get_context("fork").Process(
    target=notify, args=(people["ada"], people["grace"], "From a fork", "fork")
)
child.start()
child.join()
assert child.exitcode == 0
"""


def press(page: Page, name: str) -> None:
    page.get_by_role("button", name=name).click()


def two_processes(arrive: Arrive, room: str) -> tuple[Page, Page]:
    """Return Ada and Grace in a room, each in a browser and on a process of their own."""
    visitors = arrive(), arrive()
    for visitor in visitors:
        visitor.expect_problem(BROKEN)
    ada = to_room(sign_in(visitors[0].open("/"), "Ada"), room)
    grace = to_room(sign_in(visitors[1].open("/"), "Grace"), room)
    while process_of(grace) == process_of(ada):
        grace.reload()
    for page in (ada, grace):
        page.evaluate("window.kept = true")
    return ada, grace


def all_heard(texts: list[str], *pages: Page) -> None:
    """See that each page has these texts, each once, in order, that it was not reloaded and counts no fault."""
    for page in pages:
        heard(page, texts[-1])
        assert said(page) == texts
        assert page.evaluate("window.kept") is True
        assert {**badge(page), "recovered": 0} == {"recovered": 0, "duplicated": 0, "lost": 0}


@pytest.mark.soak  # each of the three is part of the one below
def test_what_is_said_while_the_network_is_down_comes_with_it(
    arrive: Arrive, keep: Callable[[Page, str], None]
) -> None:
    ada, grace = two_processes(arrive, "network")
    say(ada, "Before")
    heard(grace, "Before")
    press(grace, "Drop my network")
    grace.get_by_text("No network for 5 s").wait_for()
    texts = [f"While you were away, {number}" for number in range(3)]
    for text in texts:
        say(ada, text)
        heard(ada, text)
    say(grace, "Typed without a network")
    grace.locator(".pending", has_text="Typed without a network").wait_for()
    keep(grace, "chat-without-a-network")
    assert said(grace) == ["Before"]
    heard(ada, "Typed without a network")
    all_heard(["Before", *texts, "Typed without a network"], ada, grace)
    assert badge(grace)["recovered"] == 3
    keep(grace, "chat-after-the-network-was-down")


@pytest.mark.soak  # each of the three is part of the one below
def test_a_page_whose_process_is_killed_comes_back_to_another_and_misses_nothing(arrive: Arrive, demo: Demo) -> None:
    ada, grace = two_processes(arrive, "process")
    say(grace, "Before")
    heard(ada, "Before")
    died, stays = process_of(ada), process_of(grace)
    press(ada, "Kill this server process")
    ada.get_by_text(f"Killed process {died}.").wait_for()
    texts = [f"While it died, {number}" for number in range(3)]
    for text in texts:
        say(grace, text)
        heard(grace, text)
    ada.locator("[data-status=open]").filter(has_not_text=str(died)).wait_for()
    all_heard(["Before", *texts], ada, grace)
    say(ada, "Still here")
    all_heard(["Before", *texts, "Still here"], ada, grace)
    assert process_of(ada) != died
    assert process_of(grace) == stays
    assert eventually(lambda: f"process {died}, has died" in demo.log())


@pytest.mark.soak  # each of the three is part of the one below
def test_the_engine_is_restarted_under_the_pages_and_nothing_is_missed(
    arrive: Arrive, demo: Demo, keep: Callable[[Page, str], None]
) -> None:
    ada, grace = two_processes(arrive, "engine")
    say(ada, "Before")
    heard(grace, "Before")
    server = demo.valkey_pid()
    press(ada, "Restart the engine")
    ada.get_by_text(f"Killed the engine, process {server}").wait_for()
    texts = [f"Into the gap, {number}" for number in range(3)]
    for text in texts:
        say(ada, text)
    heard(grace, texts[-1])
    assert demo.valkey_pid() != server
    say(grace, "Both ways")
    all_heard(["Before", *texts, "Both ways"], ada, grace)
    keep(ada, "chat-after-the-engine-died")


def test_the_network_a_process_and_the_engine_at_once(arrive: Arrive) -> None:
    ada, grace = two_processes(arrive, "at-once")
    say(ada, "Before")
    heard(grace, "Before")
    press(grace, "Drop my network")
    press(ada, "Kill this server process")
    press(ada, "Restart the engine")
    for number in range(3):
        say(ada, f"Ada {number}")
        say(grace, f"Grace {number}")
    for page in (ada, grace):
        heard(page, "Ada 2")
        heard(page, "Grace 2")
    texts = said(ada)
    for name in ("Ada", "Grace"):
        assert [text for text in texts if text.startswith(name)] == [f"{name} {number}" for number in range(3)]
    all_heard(texts, ada, grace)


def test_what_was_sent_and_never_heard_is_sent_again_and_comes_once(arrive: Arrive) -> None:
    ada, grace = two_processes(arrive, "void")
    say(ada, "Heard")
    heard(grace, "Heard")
    worker = process_of(ada)
    os.kill(worker, signal.SIGSTOP)
    say(ada, "Into the void")
    ada.locator(".pending", has_text="Into the void").wait_for()
    os.kill(worker, signal.SIGKILL)
    heard(grace, "Into the void")
    say(ada, "Again")
    all_heard(["Heard", "Into the void", "Again"], ada, grace)


def test_the_pages_come_back_by_themselves_when_the_server_is_killed(arrive: Arrive, demo: Demo) -> None:
    visitor = arrive()
    visitor.expect_problem(BROKEN)
    page = visitor.open("/")
    ada, grace = windows(page)
    inbox = sign_in(visitor.open("/"), "Grace", "Notifications")
    page.get_by_role("heading", name="Say it").evaluate("() => { window.kept = true }")
    say(ada, "Before all of it died")
    heard(grace, "Before all of it died")
    before = inbox.locator(".note").count()

    demo.kill()
    for side in (ada, grace, inbox):
        side.locator("[data-status=waiting]").get_by_text("Reconnecting…").wait_for()
    say(grace, "Typed in between")
    demo.manage("notify", "grace", "While you were away")
    demo.start()
    for side in (ada, grace, inbox):
        connected(side)
    heard(ada, "Typed in between")
    say(ada, "After")
    heard(grace, "After")
    for side in (ada, grace):
        assert said(side)[-3:] == ["Before all of it died", "Typed in between", "After"]
        assert {**badge(side), "recovered": 0} == {"recovered": 0, "duplicated": 0, "lost": 0}

    # What was stored meanwhile is there, without a reload; so is what comes now.
    heard(inbox, "While you were away")
    demo.manage("notify", "grace", "Since you are back")
    heard(inbox, "Since you are back")
    assert inbox.locator("#count").inner_text() == "2 new"
    assert inbox.locator(".note").count() == before + 2
    assert badge(inbox) == {"recovered": 1, "duplicated": 0, "lost": 0}
    assert page.evaluate("window.kept") is True  # nobody reloaded


def test_notifications_come_from_processes_that_serve_nobody_whatever_dies_meanwhile(
    arrive: Arrive, demo: Demo, keep: Callable[[Page, str], None]
) -> None:
    visitor = arrive()
    visitor.expect_problem(BROKEN)
    page = sign_in(visitor.open("/"), "Grace", "Notifications")
    before = page.locator(".note").count()
    # A shell, and a worker that it forks.
    demo.manage("shell", "-v", "0", "-c", SHELL)
    heard(page, "From the shell")
    heard(page, "From a fork")

    died = process_of(page)
    press(page, "Kill this server process")
    page.get_by_text(f"Killed process {died}.").wait_for()
    demo.manage("notify", "grace", "Without a process")
    heard(page, "Without a process")

    press(page, "Drop my network")
    demo.manage("notify", "grace", "Without a network")
    press(page, "Restart the engine")
    page.get_by_text("Killed the engine").wait_for()
    demo.manage("notify", "grace", "After the engine")
    heard(page, "After the engine")
    assert page.locator(".note").count() == before + 5
    assert page.locator(".note p").all_inner_texts()[:3] == [
        "After the engine", "Without a network", "Without a process"
    ]  # fmt: skip
    assert {**badge(page), "recovered": 0} == {"recovered": 0, "duplicated": 0, "lost": 0}
    keep(page, "notifications-after-all-that")
