"""The usual application in one line: Django's views, WebSockets with origin check, session and user, lifespan."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Any, cast

from django.core.asgi import get_asgi_application
from django.core.exceptions import ImproperlyConfigured
from django.utils.module_loading import import_string

from .. import options
from ..types import ASGIApplication, Receive, Scope, Send
from .auth import AuthMiddlewareStack
from .handing import HandOn, handing_on
from .routing import ChannelNameRouter, ProtocolTypeRouter, URLRouter
from .security import AllowedHostsOriginValidator, OriginValidator

__all__ = ["asgi_application"]


def asgi_application(
    routes: Sequence[Any] | str,
    *,
    http: ASGIApplication | None = None,
    channels: Mapping[str, ASGIApplication] | None = None,
    allowed_origins: Sequence[str] | None = None,
    middleware: Callable[[ASGIApplication], ASGIApplication] = AuthMiddlewareStack,
) -> ProtocolTypeRouter:
    """Build a project's ASGI application from its WebSocket routes.

    ``routes``: a list of ``path()``, or the dotted path of one (``"chat.routing.websocket_urlpatterns"``). The dotted
    path is imported after Django is set up, so the consumers behind it may import models.
    ``http``: what serves HTTP; Django's views by default. ``channels``: worker channel -> consumer, for ``runworker``.
    ``allowed_origins``: see OriginValidator; by default ``ANTIPHON["allowed_origins"]``, else ``ALLOWED_HOSTS``.
    A client that sends neither an origin nor a cookie is no browser, and is let through to ``middleware``.
    ``middleware``: what goes around the routes; session and user by default.
    """
    django_application = get_asgi_application()  # sets Django up, so it comes before any import of consumers
    if isinstance(routes, str):
        try:
            routes = import_string(routes)
        except ImportError as exc:
            raise ImproperlyConfigured(f"asgi_application: cannot import the routes {routes!r}: {exc}") from exc
    if isinstance(routes, str) or not isinstance(routes, Sequence):
        raise ImproperlyConfigured(
            f"asgi_application: expected a list of path(), or the dotted path of one; got {routes!r:.120}"
        )
    websocket = middleware(URLRouter(routes))
    mapping: dict[str, ASGIApplication] = {"http": http or cast("ASGIApplication", django_application)}
    configured = options.get("allowed_origins")
    if allowed_origins is not None:
        mapping["websocket"] = OriginValidator(websocket, allowed_origins)
    elif configured is not None:
        mapping["websocket"] = OriginValidator(websocket, configured, setting='ANTIPHON["allowed_origins"]')
    else:
        mapping["websocket"] = AllowedHostsOriginValidator(websocket)
    if channels is not None:
        mapping["channel"] = ChannelNameRouter(channels)
    mapping["websocket"] = _Origins(mapping["websocket"], websocket)
    return ProtocolTypeRouter(mapping)


class _Origins:
    # The origin check keeps other sites from using the cookies of somebody's browser. A browser always sends an origin;
    # a client without origin and without cookies is none and has nothing of anybody's to use: it may come in, as
    # itself, with a token.

    def __init__(self, checked: ASGIApplication, unchecked: ASGIApplication) -> None:
        self.checked = checked
        self.unchecked = unchecked
        self.application = unchecked  # what is inside, for whoever looks for the routes

    @handing_on
    def __call__(self, scope: Scope, receive: Receive, send: Send) -> HandOn:
        browser = any(name in (b"origin", b"cookie") for name, _ in scope.get("headers", ()))
        return HandOn(self.checked if browser else self.unchecked, scope, receive, send)
