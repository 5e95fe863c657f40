"""Who looks through which window of the landing page: an identity carried by the path. For this demo only.

Two frames of one page share one cookie jar, so a session cannot tell Ada's window from Grace's. The path can:
``/as/<signed name>/chat/lobby/`` is ``/chat/lobby/`` as that user sees it, for pages and for WebSockets alike. An
application must not do this: whoever has the link is the user, and links end up in histories and logs. Outside the
windows the showcase uses Django's sessions, as an application would.
"""

import re

from django.contrib.auth import get_user_model
from django.core import signing

_PREFIX = re.compile(r"/as/(?P<token>[^/]+)(?=/)")
_signer = signing.Signer(salt="showcase.sides")


def prefix(username: str) -> str:
    """Return the path prefix under which every page belongs to ``username``: ``/as/ada:c2lnbmVk``."""
    return f"/as/{_signer.sign(username)}"


class Sides:
    """ASGI middleware: move ``/as/<token>`` from the path to ``root_path``, and the name in it to ``scope["side"]``.

    Everything below sees the plain path, and ``reverse()`` adds the prefix by itself. A forged token stays in the path,
    where no route knows it.
    """

    def __init__(self, app):
        self.app = app

    async def __call__(self, scope, receive, send):
        match = _PREFIX.match(scope.get("path", ""))
        if match:
            try:
                side = _signer.unsign(match["token"])
            except signing.BadSignature:
                pass
            else:
                scope = {**scope, "root_path": match[0], "side": side}
        await self.app(scope, receive, send)


class SideUser:
    """ASGI middleware for WebSockets: inside a window, ``scope["user"]`` is the window's user, not the session's."""

    def __init__(self, app):
        self.app = app

    async def __call__(self, scope, receive, send):
        if "side" in scope:
            scope = {**scope, "user": await get_user_model().objects.aget(username=scope["side"])}
        await self.app(scope, receive, send)


def side_user(get_response):
    """Django middleware: the same for ``request.user``."""

    def middleware(request):
        if side := getattr(request, "scope", {}).get("side"):
            request.user = get_user_model().objects.get(username=side)
        return get_response(request)

    return middleware
