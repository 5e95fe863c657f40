"""Which application serves which connection: by protocol, by path, by channel. Knows no consumer.

Paths are Django's ``path()`` and ``re_path()``. A path that nobody serves is denied with one log line that names near
routes; under ``install_as_channels()`` it raises ValueError, as applications written for Channels expect.
"""

from __future__ import annotations

import copy
import difflib
import functools
import logging
from collections.abc import Iterable, Iterator, Mapping, Sequence
from importlib import import_module
from typing import Any

from django.conf import settings
from django.core.exceptions import ImproperlyConfigured
from django.urls.exceptions import Resolver404
from django.urls.resolvers import RegexPattern, RoutePattern, URLPattern, URLResolver

from .. import framework
from ..types import ASGIApplication, Receive, Scope, Send
from .apps import note_missing_app
from .denial import describe, not_found
from .handing import HandOn, Step, handing_on

__all__ = ["ChannelNameRouter", "NoRoute", "ProtocolTypeRouter", "URLRouter", "get_default_application"]

logger = logging.getLogger("antiphon.routing")

# How deep middleware may be stacked between two routers before the search for the inner one gives up.
_MAX_WRAPPERS = 32


class NoRoute(Resolver404):
    """A nested URLRouter has no route for what is left of the path; the router around it tries its next one."""


def get_default_application() -> ASGIApplication:
    """Return the application that ``ASGI_APPLICATION`` names. Raises ImproperlyConfigured when that fails."""
    try:
        path, name = settings.ASGI_APPLICATION.rsplit(".", 1)
    except (ValueError, AttributeError):
        raise ImproperlyConfigured(
            "Cannot find ASGI_APPLICATION setting. Set it to the dotted path of the application, "
            'such as "mysite.asgi.application".'
        ) from None
    try:
        module = import_module(path)
    except ImportError as exc:
        raise ImproperlyConfigured(f"Cannot import ASGI_APPLICATION module {path!r}: {exc}") from exc
    try:
        application: ASGIApplication = getattr(module, name)
    except AttributeError:
        raise ImproperlyConfigured(f"Cannot find {name!r} in ASGI_APPLICATION module {path}") from None
    return application


class ProtocolTypeRouter:
    """Dispatch on the type of a connection: ``{"http": …, "websocket": …, "channel": …}``.

    ``lifespan`` is answered here when the mapping has no application for it.
    """

    def __init__(self, application_mapping: Mapping[str, ASGIApplication]) -> None:
        self.application_mapping = application_mapping

    @handing_on
    def __call__(self, scope: Scope, receive: Receive, send: Send) -> Step:
        """Serve one connection. Raises ValueError for a type that is not mapped, KeyError for a scope without type."""
        note_missing_app()
        kind = scope["type"]
        application = self.application_mapping.get(kind)
        if application is not None:
            return HandOn(application, scope, receive, send)
        if kind == "lifespan":
            return lifespan(scope, receive, send)
        mapped = ", ".join(self.application_mapping) or "nothing"
        if kind == "websocket" and not framework.compat:
            logger.error(
                "%s denied: the ProtocolTypeRouter maps only %s; add "
                '"websocket": URLRouter([...]), or build the application with antiphon.routing.asgi_application([...])',
                describe(scope),
                mapped,
            )
            return not_found(scope, receive, send)
        raise ValueError(f"No application configured for scope type {kind!r}; mapped: {mapped}")


async def lifespan(scope: Scope, receive: Receive, send: Send) -> None:
    """Answer a server's lifespan events: there is nothing to prepare."""
    while True:
        event = await receive()
        await send({"type": f"{event['type']}.complete"})
        if event["type"] == "lifespan.shutdown":
            return


def _layers_of(application: Any) -> Iterator[Any]:
    """Yield an application and what it wraps, by the names under which middleware usually keeps it."""
    for _ in range(_MAX_WRAPPERS):
        if application is None:
            return
        yield application
        attributes = getattr(application, "__dict__", {})
        application = next((attributes[name] for name in ("inner", "application", "app") if name in attributes), None)


def _routes_further(application: Any) -> bool:
    """Say whether ``application`` is a URLRouter, or middleware around one."""
    return any(getattr(layer, "_path_routing", False) is True for layer in _layers_of(application))


class URLRouter:
    """Dispatch on the path: ``URLRouter([path("ws/chat/<room>/", ChatConsumer.as_asgi())])``.

    What the pattern captured is in ``scope["url_route"]``: ``args`` and ``kwargs``. Routers nest, with or without
    middleware between them; captures add up. Raises ImproperlyConfigured for ``include()``, ValueError for a pattern
    that is neither ``path()`` nor ``re_path()`` around a nested router.
    """

    # Whatever bears this attribute is routed into with the rest of the path, as include() would.
    _path_routing = True

    def __init__(self, routes: Iterable[URLPattern | URLResolver | Any]) -> None:
        self.routes = [self._prepare(route) for route in routes]

    @staticmethod
    def _prepare(route: Any) -> Any:
        if not route.callback and isinstance(route, URLResolver):
            raise ImproperlyConfigured(
                f"{route}: include() is not supported in URLRouter. Use nested URLRouter instances instead."
            )
        if isinstance(route.callback, type) and hasattr(route.callback, "as_asgi"):
            name = route.callback.__name__
            raise ImproperlyConfigured(f"{route}: {name} is a class. Route to the application: {name}.as_asgi()")
        if not _routes_further(route.callback):
            return route
        pattern = route.pattern
        if isinstance(pattern, RegexPattern):
            text = pattern._regex  # type: ignore[attr-defined]  # the stubs leave it out
        elif isinstance(pattern, RoutePattern):
            text = pattern._route  # type: ignore[attr-defined]  # likewise
        else:
            raise ValueError(f"Unsupported pattern type: {type(pattern)}")
        # A copy: the caller's list may serve another router, or Django's own URLconf.
        route = copy.copy(route)
        route.pattern = type(pattern)(text, pattern.name, is_endpoint=False)
        return route

    @handing_on
    def __call__(self, scope: Scope, receive: Receive, send: Send) -> Step:
        """Serve one connection. Raises ValueError for a scope without a path."""
        nested = "path_remaining" in scope
        path = scope["path_remaining"] if nested else scope.get("path")
        if path is None:
            raise ValueError("No 'path' key in connection scope, cannot route URLs")
        if not nested:
            # A server that knows where it is mounted says so, and the path begins with it (ASGI, HTTP scope).
            root_path = scope.get("root_path", "").rstrip("/")
            if root_path and path != root_path and not path.startswith(root_path + "/"):
                return self._refuse(scope, receive, send, path)
            path = path[len(root_path) :]
        if not framework.compat:
            # A consumer is the end of the way: no other route is tried after it.
            for route in self.routes:
                match = route.pattern.match(path.lstrip("/"))
                if match:
                    if not hasattr(route.callback, "consumer_class"):
                        break
                    remaining, args, kwargs = match
                    inner = self._inner_scope(scope, remaining, args, {**kwargs, **route.default_args})
                    return HandOn(route.callback, inner, receive, send)
        return HandOn(functools.partial(self._try_routes, path), scope, receive, send)

    async def _try_routes(self, path: str, scope: Scope, receive: Receive, send: Send) -> Any:
        nested = "path_remaining" in scope
        relative = path.lstrip("/")
        no_route: type[Resolver404] = Resolver404 if framework.compat else NoRoute
        for route in self.routes:
            match = route.pattern.match(relative)
            if not match:
                continue
            remaining, args, kwargs = match
            try:
                return await route.callback(
                    self._inner_scope(scope, remaining, args, {**kwargs, **route.default_args}), receive, send
                )
            except no_route:
                # Nothing further in: the next route may match.
                continue
        if nested:
            raise NoRoute(f"No route found for path {path!r}.")
        return await self._refuse(scope, receive, send, path)

    @staticmethod
    def _inner_scope(scope: Scope, remaining: str, args: tuple[Any, ...], kwargs: dict[str, Any]) -> Scope:
        outer = scope.get("url_route", {})
        url_route = {"args": outer.get("args", ()) + args, "kwargs": {**outer.get("kwargs", {}), **kwargs}}
        return dict(scope, path_remaining=remaining, url_route=url_route)

    async def _refuse(self, scope: Scope, receive: Receive, send: Send, path: str) -> None:
        if framework.compat or scope.get("type") not in ("websocket", "http"):
            raise ValueError(f"No route found for path {path!r}.")
        known = list(self._patterns())
        root_path = scope.get("root_path", "")
        logger.warning(
            "%s denied: no route matches%s; %s",
            describe(scope),
            f" below root_path {root_path!r}" if root_path else "",
            _near(path.removeprefix(root_path).lstrip("/"), known),
        )
        await not_found(scope, receive, send)

    def _patterns(self) -> Iterator[str]:
        for route in self.routes:
            text = str(route.pattern).removeprefix("^").removesuffix("$")
            inner = next((layer for layer in _layers_of(route.callback) if isinstance(layer, URLRouter)), None)
            if inner is None:
                yield text
            else:
                yield from (text + further for further in inner._patterns())


def _near(path: str, known: Sequence[str]) -> str:
    near = difflib.get_close_matches(path[:200], known, n=3, cutoff=0.5)
    if near:
        return "near: " + ", ".join(map(repr, near))
    shown = ", ".join(map(repr, known[:5]))
    return f"routes: {shown}{', …' if len(known) > 5 else ''}" if known else "it has no routes at all"


class ChannelNameRouter:
    """Dispatch on the channel that a worker reads: ``{"thumbnails": ThumbnailConsumer.as_asgi()}``."""

    def __init__(self, application_mapping: Mapping[str, ASGIApplication]) -> None:
        self.application_mapping = application_mapping

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> Any:
        """Serve one channel. Raises ValueError for a scope without a channel, or one that is not mapped."""
        if "channel" not in scope:
            raise ValueError(
                "ChannelNameRouter got a scope without a 'channel' key. "
                "Did you make sure it's only being used for 'channel' type messages?"
            )
        application = self.application_mapping.get(scope["channel"])
        if application is None:
            mapped = ", ".join(self.application_mapping) or "none"
            raise ValueError(f"No application configured for channel name {scope['channel']!r}; mapped: {mapped}")
        return await application(scope, receive, send)
