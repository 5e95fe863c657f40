"""What people do on the showcase's pages, and what they see there. Knows pages, not what is tested."""

from __future__ import annotations

import re
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from playwright.sync_api import FrameLocator, Page

__all__ = [
    "badge",
    "connected",
    "count",
    "heard",
    "overflow_px",
    "process_of",
    "said",
    "say",
    "sign_in",
    "to_room",
    "windows",
]

View = Any  # a Page or a FrameLocator: what both can do is all that is used here


def connected(view: View) -> View:
    view.locator("[data-status=open]").wait_for()
    return view


def sign_in(page: Page, name: str, slug: str = "Chat") -> Page:
    page.get_by_role("link", name=slug, exact=True).click()
    page.get_by_role("button", name=f"Sign in as {name}").click()
    connected(page)
    return page


def to_room(page: Page, room: str) -> Page:
    """Go to a room that no other test uses: rooms keep what was said."""
    page.goto(re.sub(r"/chat/.*", f"/chat/{room}/", page.url))
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


def heard(view: View, text: str) -> None:
    # What is pale was said here, and the server has not said it yet.
    view.get_by_role("log").locator("li:not(.pending)").get_by_text(text, exact=True).wait_for()


def said(view: View) -> list[str]:
    """Return everything that the view's room has heard, in order."""
    texts: list[str] = view.locator(".said:not(.pending) p").all_inner_texts()
    return texts


def badge(view: View) -> dict[str, int]:
    """Return what the view counts of its messages."""
    names = ("recovered", "duplicated", "lost")
    return {name: int(view.locator(f"[data-count={name}]").inner_text()) for name in names}


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
