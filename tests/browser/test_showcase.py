"""The showcase as people see it: two users, a real server, a real browser."""

from __future__ import annotations

import re
import sys
from collections.abc import Callable
from typing import TYPE_CHECKING, Literal

import pytest

from tests.browser.people import connected, count, heard, overflow_px, process_of, say, sign_in, windows

if TYPE_CHECKING:
    from playwright.sync_api import Page

    from tests.browser.conftest import Arrive

if sys.platform == "win32":
    pytest.skip("several workers need sockets that can be handed over", allow_module_level=True)

pytestmark = pytest.mark.browser


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
