"""The showcase as people see it: two users, a real server, a real browser."""

from __future__ import annotations

import os
import re
import signal
import sys
import time
from collections.abc import Callable
from typing import TYPE_CHECKING, Any, Literal

import pytest

if TYPE_CHECKING:
    from playwright.sync_api import FrameLocator, Page

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

View = Any  # a Page or a FrameLocator: what both can do is all that is used here


def connected(view: View) -> View:
    view.locator("[data-status=open]").wait_for()
    return view


def sign_in(page: Page, name: str, slug: str = "Chat") -> Page:
    page.get_by_role("link", name=slug, exact=True).click()
    page.get_by_role("button", name=f"Sign in as {name}").click()
    connected(page)
    return page


def windows(page: Page) -> tuple[FrameLocator, FrameLocator]:
    ada = page.frame_locator("iframe[title$='as Ada sees it']")
    grace = page.frame_locator("iframe[title$='as Grace sees it']")
    connected(ada)
    connected(grace)
    return ada, grace


def say(view: View, text: str) -> None:
    view.get_by_label("Message to").fill(text)
    view.get_by_role("button", name="Send", exact=True).click()


def until_heard(speaker: Page, listener: Page, text: str) -> list[str]:
    """Say something until it is heard; return all that was said."""
    from playwright.sync_api import TimeoutError as PlaywrightTimeoutError  # as conftest.py has it: only with a browser

    said: list[str] = []
    while True:
        said.append(f"{text} {len(said) + 1}")
        say(speaker, said[-1])
        try:
            listener.get_by_role("log").get_by_text(said[-1], exact=True).wait_for(timeout=10_000)
        except PlaywrightTimeoutError:
            assert len(said) < 4, f"none of {said} was heard"
        else:
            return said


def heard(view: View, text: str) -> None:
    # What is pale was said here, and the server has not said it yet.
    view.get_by_role("log").locator("li:not(.pending)").get_by_text(text, exact=True).wait_for()


def count(view: View, text: str) -> int:
    number: int = view.get_by_role("log").get_by_text(text, exact=True).count()
    return number


def process_of(view: View) -> int:
    """Return the process that serves the view, as its status line says."""
    status = connected(view).get_by_role("status").filter(has_text="Connected").inner_text()
    named = re.fullmatch(r"Connected to process (\d+)", status)
    assert named is not None, status
    return int(named[1])


def overflow_px(page: Page) -> list[int]:
    """Return how much wider than its window each frame's content is, in pixels."""
    measure = "document.documentElement.scrollWidth - document.documentElement.clientWidth"
    return [frame.evaluate(measure) for frame in page.frames]


def test_two_people_in_two_browsers_chat(arrive: Arrive) -> None:
    ada = sign_in(arrive().open("/"), "Ada")
    grace = sign_in(arrive().open("/"), "Grace")
    say(ada, "Is the engine running?")
    heard(grace, "Is the engine running?")
    say(grace, "Since five. <b>No</b> smoke & no 'quotes'.")
    heard(ada, "Since five. <b>No</b> smoke & no 'quotes'.")
    # Each line once, on both sides, with who said it.
    assert grace.locator(".said").count() == ada.locator(".said").count() == 2
    assert ada.locator(".said.mine p").all_inner_texts() == ["Is the engine running?"]
    assert grace.locator(".said:not(.mine) .who").inner_text() == "Ada"


def test_the_two_windows_of_the_landing_page_are_two_people(arrive: Arrive) -> None:
    page = arrive().open("/")
    ada, grace = windows(page)
    say(ada, "Left")
    heard(grace, "Left")
    say(grace, "Right")
    heard(ada, "Right")
    assert ada.locator(".said.mine").count() == grace.locator(".said.mine").count() == 1


def test_the_two_windows_of_the_landing_page_are_served_by_two_processes(arrive: Arrive) -> None:
    page = arrive().open("/")
    ada, grace = windows(page)
    assert process_of(ada) != process_of(grace)
    page.reload()
    ada, grace = windows(page)
    assert process_of(ada) != process_of(grace)


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


def test_what_is_said_in_one_room_is_not_heard_in_another(arrive: Arrive) -> None:
    page = arrive().open("/")
    ada, grace = windows(page)
    grace.get_by_role("link", name="kitchen").click()
    grace.get_by_role("log", name="Messages in kitchen", include_hidden=True).wait_for(state="attached")
    connected(grace)
    say(ada, "For the lobby")
    heard(ada, "For the lobby")
    say(grace, "For the kitchen")
    heard(grace, "For the kitchen")
    assert count(grace, "For the lobby") == 0
    assert count(ada, "For the kitchen") == 0


def test_any_name_makes_a_room(arrive: Arrive) -> None:
    page = sign_in(arrive().open("/"), "Ada")
    page.goto(re.sub(r"/chat/.*", "/chat/attic-2/", page.url))
    connected(page)
    say(page, "Dusty")
    heard(page, "Dusty")


def test_notifications_arrive_from_a_view_a_command_and_a_thread_and_none_after_a_rollback(arrive: Arrive) -> None:
    page = arrive().open("/both/notifications/")
    ada, grace = windows(page)
    report = ada.locator("#report")

    for source in ("view", "command"):
        ada.get_by_label("Text").fill(f"By {source}")
        ada.get_by_role("button", name=f"a {source}").click()
        heard(grace, f"By {source}")

    ada.get_by_label("Text").fill("By thread")
    ada.get_by_role("button", name="a thread").click()
    report.get_by_text("still open").wait_for()
    assert count(grace, "By thread") == 0
    report.get_by_text("Committed").wait_for()
    heard(grace, "By thread")

    ada.get_by_label("Text").fill("By rollback")
    ada.get_by_role("button", name="a rollback").click()
    report.get_by_text("Rolled back").wait_for()
    # One more from the view: had anything been sent before it, it would be here too.
    ada.get_by_label("Text").fill("The last")
    ada.get_by_role("button", name="a view").click()
    heard(grace, "The last")
    assert grace.locator(".note p").all_inner_texts()[:4] == ["The last", "By thread", "By command", "By view"]
    assert grace.locator("#count").inner_text() == "4 new"
    assert ada.locator(".note").count() == 0

    page.reload()
    _, grace = windows(page)
    heard(grace, "The last")
    assert count(grace, "By rollback") == 0


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


def test_signing_out_closes_the_sockets_of_the_session_for_good(arrive: Arrive) -> None:
    visitor = arrive()
    first = sign_in(visitor.open("/"), "Ada")
    second = visitor.open("/chat/kitchen/")
    connected(second)
    first.get_by_role("button", name="Sign out").click()
    second.locator("[data-status=closed]").wait_for()
    assert second.get_by_role("status").inner_text() == "You are signed out."


def test_strangers_get_neither_a_page_nor_a_socket(arrive: Arrive) -> None:
    visitor = arrive()
    page = visitor.open("/chat/lobby/")
    assert page.get_by_role("heading", name="Say it on one side").is_visible()  # the landing page
    assert visitor.context.request.get(visitor.address("/as/ada:forged/chat/lobby/")).status == 404
    close_code = page.evaluate(
        """() => new Promise((resolve) => {
            const socket = new WebSocket(location.origin.replace("http", "ws") + "/ws/chat/lobby/");
            socket.onclose = ({ code }) => resolve(code);
        })"""
    )
    assert close_code == 4401


def test_nothing_inline_and_nothing_foreign_may_run(arrive: Arrive) -> None:
    visitor = arrive()
    visitor.expect_problem(r"Content Security Policy")
    page = visitor.context.new_page()
    for path in ("/", "/both/notifications/"):
        response = page.goto(visitor.address(path))
        assert response is not None
        policy = response.headers["content-security-policy"]
        assert "default-src 'self'" in policy
        assert "unsafe" not in policy
        assert response.headers["x-frame-options"] == "SAMEORIGIN"
    assert visitor.problems == []
    page.evaluate(
        """() => {
            const script = document.createElement("script");
            script.textContent = "window.ran = true";
            document.body.append(script);
        }"""
    )
    assert page.evaluate("window.ran") is None
    assert visitor.problems != []


def test_the_code_drawer_shows_the_files_and_answers_to_the_keyboard(arrive: Arrive) -> None:
    page = arrive().open("/")
    button = page.get_by_role("button", name="Show the code")
    button.focus()
    page.keyboard.press("Enter")
    drawer = page.get_by_role("dialog", name="The code of this page")
    drawer.wait_for()
    assert "class ChatConsumer(AsyncJsonWebsocketConsumer):" in drawer.inner_text()
    assert '{% extends "stage/live.html" %}' in drawer.inner_text()
    page.keyboard.press("Escape")
    drawer.wait_for(state="hidden")
    assert button.evaluate("(element) => element === document.activeElement")


def test_one_can_chat_with_the_keyboard_alone(arrive: Arrive) -> None:
    page = sign_in(arrive().open("/"), "Grace")
    page.keyboard.press("Tab")
    assert page.evaluate("document.activeElement.textContent") == "Skip to the page"
    for _ in range(20):
        page.keyboard.press("Tab")
        if page.evaluate("document.activeElement.id") == "text":
            break
    page.keyboard.type("No mouse")
    page.keyboard.press("Enter")
    heard(page, "No mouse")
    assert page.evaluate("document.activeElement.id") == "text"


@pytest.mark.parametrize("scheme", ["light", "dark"])
@pytest.mark.parametrize("width", [1280, 380])
def test_every_page_fits_its_window(
    arrive: Arrive, keep: Callable[[Page, str], None], width: int, scheme: Literal["light", "dark"]
) -> None:
    visitor = arrive(width=width, scheme=scheme)
    name = f"{'narrow' if width < 600 else 'wide'}-{scheme}"

    page = visitor.open("/")
    ada, grace = windows(page)
    say(ada, "Good morning, Grace. Did the engine run overnight?")
    heard(grace, "Good morning, Grace. Did the engine run overnight?")
    say(grace, "It did: " + "pneumonoultramicroscopicsilicovolcanoconiosis" * 2)
    heard(ada, "It did: " + "pneumonoultramicroscopicsilicovolcanoconiosis" * 2)
    say(ada, "Then let us show it to the others.")
    heard(grace, "Then let us show it to the others.")
    assert overflow_px(page) == [0, 0, 0]
    keep(page, f"chat-{name}")

    page.get_by_role("button", name="Show the code").click()
    page.get_by_role("dialog").wait_for()
    assert overflow_px(page) == [0, 0, 0]
    keep(page, f"code-{name}")
    page.keyboard.press("Escape")

    page.get_by_role("link", name="Notifications").click()
    ada, grace = windows(page)
    for source in ("view", "command"):
        ada.get_by_role("button", name=f"a {source}").click()
        grace.locator(".note.fresh", has_text=source).wait_for()
    assert overflow_px(page) == [0, 0, 0]
    keep(page, f"notifications-{name}")

    sign_in(page, "Grace")
    assert overflow_px(page) == [0]
    keep(page, f"own-chat-{name}")
    page.get_by_role("link", name="Notifications").click()
    connected(page)
    assert overflow_px(page) == [0]
    keep(page, f"own-notifications-{name}")
