"""The showcase when a worker, the engine or all of it dies under it: nobody reloads, and what is missing is said."""

from __future__ import annotations

import os
import signal
import sys
import time
from collections.abc import Callable
from typing import TYPE_CHECKING

import pytest

from tests.browser.people import connected, heard, process_of, say, sign_in, until_heard, windows

if TYPE_CHECKING:
    from playwright.sync_api import Page

    from tests.browser.conftest import Arrive, Demo

if sys.platform == "win32":
    pytest.skip("several workers need sockets that can be handed over", allow_module_level=True)

pytestmark = pytest.mark.browser

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


def test_two_browsers_on_two_processes_hear_each_other_whatever_dies(
    arrive: Arrive, demo: Demo, keep: Callable[[Page, str], None]
) -> None:
    visitors = arrive(), arrive()
    for visitor in visitors:
        visitor.expect_problem(r"WebSocket connection to .* failed")
    ada = sign_in(visitors[0].open("/"), "Ada")
    grace = sign_in(visitors[1].open("/"), "Grace", "Notifications")
    # Grace has two tabs: her chat is on another process than Ada's.
    chat = visitors[1].open("/chat/")
    while process_of(chat) == process_of(ada):
        chat.reload()
    pages = ada, grace, chat
    for page in pages:
        page.evaluate("window.kept = true")
    say(ada, "From one process")
    heard(chat, "From one process")
    say(chat, "To another")
    heard(ada, "To another")

    # From processes that serve nobody: a shell, and a worker that it forks.
    demo.manage("shell", "-v", "0", "-c", SHELL)
    heard(grace, "From the shell")
    heard(grace, "From a fork")

    # Whoever speaks while the server is away is heard when it is back; what came before the listener's process was
    # back is reported there as perhaps lost.
    server = demo.valkey_pid()
    os.kill(server, signal.SIGKILL)
    said = until_heard(ada, chat, "Into the gap")
    assert demo.valkey_pid() != server
    say(chat, "Both ways")
    heard(ada, "Both ways")
    demo.manage("notify", "grace", "After the gap")
    heard(grace, "After the gap")
    assert ada.get_by_text("Reconnecting").count() == chat.get_by_text("Reconnecting").count() == 0
    keep(ada, "chat-after-the-engine-died")

    # A worker dies: its page comes back to another, or to the one started in its place.
    died = process_of(ada)
    stays = process_of(chat)
    os.kill(died, signal.SIGKILL)
    ada.locator("[data-status=open]").filter(has_not_text=str(died)).wait_for()
    assert process_of(ada) != died
    assert process_of(chat) == stays
    say(chat, "Still there?")
    heard(ada, "Still there?")
    say(ada, "Still here")
    heard(chat, "Still here")
    until = time.monotonic() + 30
    while demo.log().count("is process") < demo.log().count(", has died") + 2 and time.monotonic() < until:
        time.sleep(0.1)
    assert f"process {died}, has died" in demo.log()
    assert [page.evaluate("window.kept") for page in pages] == [True, True, True]  # nobody reloaded
    assert ada.locator(".said p").all_inner_texts() == [
        "From one process", "To another", *said, "Both ways", "Still there?", "Still here"
    ]  # fmt: skip


def test_the_page_comes_back_by_itself_when_the_server_is_killed(arrive: Arrive, demo: Demo) -> None:
    visitor = arrive()
    visitor.expect_problem(r"WebSocket connection to .* failed|ERR_CONNECTION_REFUSED")
    page = visitor.open("/")
    ada, grace = windows(page)
    say(ada, "Before")
    heard(grace, "Before")

    demo.kill()
    for side in (ada, grace):
        side.get_by_text("Reconnecting…").wait_for()
    say(grace, "Typed in between")
    demo.start()
    connected(ada)
    connected(grace)
    heard(ada, "Before")  # nobody reloaded
    ada.locator(".gap").wait_for()
    grace.locator(".gap").wait_for()

    # What could not be sent waits in its field.
    grace.get_by_role("button", name="Send", exact=True).click()
    heard(ada, "Typed in between")
    say(ada, "After")
    heard(grace, "After")


def test_what_was_sent_and_never_heard_is_marked(arrive: Arrive) -> None:
    page = sign_in(arrive().open("/"), "Ada")
    say(page, "Heard")
    heard(page, "Heard")
    worker = process_of(page)
    os.kill(worker, signal.SIGSTOP)
    say(page, "Into the void")
    page.locator(".pending", has_text="Into the void").wait_for()
    os.kill(worker, signal.SIGKILL)
    page.locator(".unsent", has_text="Into the void").get_by_text("Perhaps not sent").wait_for()
    page.locator(".gap").wait_for()
    say(page, "Again")
    heard(page, "Again")
    assert page.locator(".pending").count() == 0
    assert page.locator(".unsent").count() == 1


def test_notifications_stored_while_the_server_was_away_are_there_without_a_reload(arrive: Arrive, demo: Demo) -> None:
    visitor = arrive()
    visitor.expect_problem(r"WebSocket connection to .* failed|ERR_CONNECTION_REFUSED")
    page = sign_in(visitor.open("/"), "Grace")
    page.get_by_role("link", name="Notifications").click()
    connected(page)
    before = page.locator(".note").count()
    demo.kill()
    page.get_by_text("Reconnecting…").wait_for()
    demo.manage("notify", "grace", "While you were away")
    demo.start()
    heard(page, "While you were away")
    connected(page)
    demo.manage("notify", "grace", "Since you are back")
    heard(page, "Since you are back")
    assert page.locator("#count").inner_text() == "2 new"
    assert page.locator(".note").count() == before + 2
