"""The live pages, in the order of the navigation. A page added here gets its tab, its two windows and its code drawer."""

from dataclasses import dataclass


@dataclass(frozen=True, slots=True)
class Page:
    """One live page: ``slug`` is also the name of its URL; ``code`` lists the files its drawer shows, consumer first."""

    slug: str
    title: str
    headline: str
    summary: str
    code: tuple[str, ...]


PAGES = {
    page.slug: page
    for page in [
        Page(
            slug="chat",
            title="Chat",
            headline="Say it on one side, hear it on the other.",
            summary="Two people, two WebSockets, one group that keeps its last messages. Cut a line, kill a process, "
            "restart the engine: whoever was away gets what was said, once and in order.",
            code=(
                "chat/consumers.py",
                "chat/templates/chat/room.html",
                "chat/views.py",
                "chat/static/chat/room.js",
                "stage/static/stage/live.js",
                "showcase/routing.py",
            ),
        ),
        Page(
            slug="notifications",
            title="Notifications",
            headline="Notify a person from anywhere in your code.",
            summary="Each user has a group of their own, and a page listens to it with an EventSource. A view, a command "
            "and a thread send to it with one plain function; inside a transaction the message waits for the commit.",
            code=(
                "notifications/consumers.py",
                "notifications/sending.py",
                "notifications/management/commands/notify.py",
                "notifications/views.py",
                "notifications/templates/notifications/inbox.html",
                "notifications/static/notifications/inbox.js",
                "stage/static/stage/live.js",
            ),
        ),
    ]
}
