"""The showcase as people see it: two users, a real server, a real browser."""

from __future__ import annotations

import sys
from collections.abc import Callable
from typing import TYPE_CHECKING, Literal

import pytest

from tests.browser.people import (
    badge,
    connected,
    count,
    heard,
    overflow_px,
    process_of,
    said,
    say,
    sign_in,
    to_room,
    windows,
)

if TYPE_CHECKING:
    from playwright.sync_api import Page, Route

    from tests.browser.conftest import Arrive

if sys.platform == "win32":
    pytest.skip("several workers need sockets that can be handed over", allow_module_level=True)

pytestmark = pytest.mark.browser


def test_two_people_in_two_browsers_chat(arrive: Arrive) -> None:
    ada = to_room(sign_in(arrive().open("/"), "Ada"), "two-people")
    grace = to_room(sign_in(arrive().open("/"), "Grace"), "two-people")
    say(ada, "Is the engine running?")
    heard(grace, "Is the engine running?")
    say(grace, "Since five. <b>No</b> smoke & no 'quotes'.")
    heard(ada, "Since five. <b>No</b> smoke & no 'quotes'.")
    # Each line once, on both sides, with who said it.
    assert grace.locator(".said").count() == ada.locator(".said").count() == 2
    assert ada.locator(".said.mine p").all_inner_texts() == ["Is the engine running?"]
    assert grace.locator(".said:not(.mine) .who").inner_text() == "Ada"


def test_a_page_begins_with_what_was_said_and_looks_as_it_did_when_it_was_heard(arrive: Arrive) -> None:
    page = to_room(sign_in(arrive().open("/"), "Ada"), "history")
    for text in ("First", "Second <b>&amp;</b>", "Third"):
        say(page, text)
        heard(page, text)
    look = "(log) => [...log.children].map((item) => [...item.classList].sort().join() + item.innerText)"
    before = page.get_by_role("log").evaluate(look)
    page.reload()
    connected(page)
    assert said(page) == ["First", "Second <b>&amp;</b>", "Third"]
    assert page.get_by_role("log").evaluate(look) == before
    assert badge(page) == {"recovered": 0, "duplicated": 0, "lost": 0}


def test_what_is_said_between_the_page_and_its_connection_is_not_missed(arrive: Arrive) -> None:
    ada = to_room(sign_in(arrive().open("/"), "Ada"), "between")
    say(ada, "Before the page")
    heard(ada, "Before the page")
    grace = to_room(sign_in(arrive().open("/"), "Grace"), "elsewhere")
    held: list[Route] = []
    grace.route("**/live.js", lambda route: held.append(route))
    with grace.expect_request("**/live.js"):
        grace.goto(ada.url, wait_until="commit")
    say(ada, "Between the two")
    heard(ada, "Between the two")
    assert said(grace) == ["Before the page"]
    held[0].continue_()
    heard(grace, "Between the two")
    assert said(grace) == ["Before the page", "Between the two"]
    assert badge(grace) == {"recovered": 1, "duplicated": 0, "lost": 0}


def test_one_sees_who_is_here_and_who_is_typing(arrive: Arrive) -> None:
    ada = to_room(sign_in(arrive().open("/"), "Ada"), "who-is-here")
    ada.locator("#here").get_by_text("Nobody else is here.").wait_for()
    grace = to_room(sign_in(arrive().open("/"), "Grace"), "who-is-here")
    grace.locator("#here").get_by_text("Ada is here, too.").wait_for()
    ada.locator("#here").get_by_text("Grace is here, too.").wait_for()
    ada.get_by_label("Message to").press_sequentially("Hm")
    grace.locator("#typing").get_by_text("Ada is typing…").wait_for()
    say(ada, "Hm, no")
    heard(grace, "Hm, no")
    assert grace.locator("#typing").inner_text() == ada.locator("#typing").inner_text() == ""
    grace.close()
    ada.locator("#here").get_by_text("Nobody else is here.").wait_for()


def test_the_badge_counts_what_comes_twice_and_what_never_comes(arrive: Arrive) -> None:
    page = sign_in(arrive().open("/"), "Ada")
    seen = page.evaluate(
        """async () => {
            const { Seen } = await import("/static/stage/live.js");
            const seen = new Seen({ epoch: "a", offset: 4 });
            const heard = [["a", 5], ["a", 5], ["a", 8], ["b", 8], ["b", 9]];
            const taken = heard.map(([epoch, offset]) => seen.take({ epoch, offset }));
            seen.lose({ epoch: "c", offset: 0 });
            taken.push(seen.take({ epoch: "c", offset: 1 }));
            return { taken, duplicated: seen.duplicated, lost: seen.lost };
        }"""
    )
    assert seen == {"taken": [True, False, True, False, True, True], "duplicated": 2, "lost": 3}


def test_the_two_windows_of_the_landing_page_are_two_people(arrive: Arrive) -> None:
    page = arrive().open("/")
    ada, grace = windows(page)
    say(ada, "Left")
    heard(grace, "Left")
    say(grace, "Right")
    heard(ada, "Right")
    for side, text in ((ada, "Left"), (grace, "Right")):
        assert side.locator(".said.mine", has_text=text).count() == count(side, text) == 1


@pytest.mark.parametrize("slug", ["chat", "notifications"])
def test_the_two_windows_of_the_landing_page_are_served_by_two_processes(arrive: Arrive, slug: str) -> None:
    page = arrive().open(f"/both/{slug}/")
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
    page = to_room(sign_in(arrive().open("/"), "Ada"), "attic-2")
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


def test_signing_out_closes_the_connections_of_the_session_for_good(arrive: Arrive) -> None:
    visitor = arrive()
    visitor.expect_problem(r"\b403\b")  # an event stream that asks once more than it had to
    first = sign_in(visitor.open("/"), "Ada")
    others = connected(visitor.open("/chat/kitchen/")), connected(visitor.open("/notifications/"))
    first.get_by_role("button", name="Sign out").click()
    for other in others:
        other.locator("[data-status=closed]").wait_for()
        assert other.locator("[data-status]").inner_text() == "You are signed out."


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


@pytest.mark.parametrize(
    ("width", "scheme"),
    [
        (1280, "light"),
        (380, "dark"),
        pytest.param(1280, "dark", marks=pytest.mark.soak),
        pytest.param(380, "light", marks=pytest.mark.soak),
    ],
)
def test_every_page_fits_its_window(
    arrive: Arrive, keep: Callable[[Page, str], None], width: int, scheme: Literal["light", "dark"]
) -> None:
    visitor = arrive(width=width, scheme=scheme)
    name = f"{'narrow' if width < 600 else 'wide'}-{scheme}"
    today = f"the {name.replace('-', ', ')} day"  # no two tests say the same: rooms keep it

    page = visitor.open("/")
    ada, grace = windows(page)
    long = "pneumonoultramicroscopicsilicovolcanoconiosis" * 2
    for speaker, listener, text in (
        (ada, grace, f"Good morning, Grace. Did the engine run through {today}?"),
        (grace, ada, f"It did, on {today}: {long}"),
        (ada, grace, f"Then let us show it to the others, on {today}."),
    ):
        say(speaker, text)
        heard(listener, text)
        heard(speaker, text)
    grace.locator("#here").get_by_text("Ada is here, too.").wait_for()
    grace.get_by_label("Message to").press_sequentially("And")
    ada.locator("#typing").get_by_text("Grace is typing…").wait_for()
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
