"""Cookies and sessions in the scope. Knows no user and no consumer.

A session is loaded when it is first read, not when the connection comes. It is saved when an HTTP response starts;
a WebSocket has no such moment, so its handlers call ``await save_session(self.scope)``.
"""

from __future__ import annotations

import datetime
import functools
import logging
import time
from collections.abc import Sequence
from http.cookies import SimpleCookie
from importlib import import_module
from typing import Any, cast

from django.conf import settings
from django.contrib.sessions.backends.base import SessionBase, UpdateError
from django.core.exceptions import SuspiciousOperation
from django.db import DatabaseError
from django.http import parse_cookie
from django.utils import timezone
from django.utils.encoding import force_str
from django.utils.functional import LazyObject
from django.utils.http import http_date

from .. import framework
from ..types import ASGIApplication, Receive, Scope, Send
from .denial import describe, refuse_websocket
from .handing import HandOn, handing_on, settle
from .tables import missing_table

__all__ = ["CookieMiddleware", "InstanceSessionWrapper", "SessionMiddleware", "SessionMiddlewareStack", "save_session"]

logger = logging.getLogger("antiphon.security")

_LONG_AGO = "Thu, 01 Jan 1970 00:00:00 GMT"


class CookieMiddleware:
    """Put the cookies of an HTTP or WebSocket connection into ``scope["cookies"]``, as ``request.COOKIES`` has them."""

    def __init__(self, inner: ASGIApplication) -> None:
        self.inner = inner

    @handing_on
    def __call__(self, scope: Scope, receive: Receive, send: Send) -> HandOn:
        """Serve one connection. Raises ValueError for a scope without headers."""
        if "headers" not in scope:
            raise ValueError(
                "CookieMiddleware was passed a scope that did not have a headers key "
                "(make sure it is only passed HTTP or WebSocket connections)"
            )
        # HTTP/2 clients may split the cookie header (RFC 9113, 8.2.3); they are joined with "; ".
        header = b"; ".join(value for name, value in scope["headers"] if name == b"cookie")
        cookies = parse_cookie(header.decode("latin1")) if header else {}
        return HandOn(self.inner, dict(scope, cookies=cookies), receive, send)

    @classmethod
    def set_cookie(
        cls,
        message: dict[str, Any],
        key: str,
        value: str = "",
        max_age: int | None = None,
        expires: datetime.datetime | str | None = None,
        path: str | None = "/",
        domain: str | None = None,
        secure: bool = False,
        httponly: bool = False,
        samesite: str | None = "lax",
    ) -> None:
        """Add a Set-Cookie header to the start message of an HTTP response.

        ``expires`` is text in the format of cookies, or a datetime (a naive one is UTC); ``max_age`` is in seconds.
        Raises AssertionError unless ``samesite`` is strict, lax, none or None.
        """
        if samesite is not None and samesite.lower() not in ("strict", "lax", "none"):
            # An AssertionError, because that is what users of this method know; never switched off by -O.
            raise AssertionError(f"samesite must be either 'strict', 'lax' or 'none'; got {samesite!r}")
        if isinstance(expires, datetime.datetime):
            if timezone.is_naive(expires):
                expires = expires.replace(tzinfo=datetime.UTC)
            left = expires - datetime.datetime.now(datetime.UTC)
            # Whole seconds, rounded up, so that the date printed is the date given.
            max_age = max(0, left.days * 86400 + left.seconds + 1)
            expires = None
        if expires is None:
            # Old browsers ignore max-age, so the date goes beside it.
            expires = http_date(time.time() + max_age) if max_age is not None else ""
        cookie: SimpleCookie = SimpleCookie()
        cookie[key] = force_str(value)
        morsel = cookie[key]
        morsel["expires"] = expires
        if max_age is not None:
            morsel["max-age"] = max_age
        if path is not None:
            morsel["path"] = path
        if domain is not None:
            morsel["domain"] = domain
        if secure:
            morsel["secure"] = True
        if httponly:
            morsel["httponly"] = True
        if samesite is not None:
            morsel["samesite"] = samesite
        message.setdefault("headers", []).append((b"Set-Cookie", morsel.OutputString().encode()))

    @classmethod
    def delete_cookie(cls, message: dict[str, Any], key: str, path: str = "/", domain: str | None = None) -> None:
        """Add a Set-Cookie header that removes the cookie."""
        return cls.set_cookie(message, key, max_age=0, path=path, domain=domain, expires=_LONG_AGO)


class InstanceSessionWrapper:
    """One connection's session: puts it into the scope, and saves it when an HTTP response starts."""

    # Message types that save a session that was changed.
    save_message_types: Sequence[str] = ["http.response.start"]

    # Message types that can carry its cookie back.
    cookie_response_message_types: Sequence[str] = ["http.response.start"]

    def __init__(self, scope: Scope, send: Send) -> None:
        self.cookie_name = settings.SESSION_COOKIE_NAME
        self.session_store: type[SessionBase] = import_module(settings.SESSION_ENGINE).SessionStore
        self.scope: dict[str, Any] = dict(scope)
        # A session that is there already belongs to a middleware above, which saves it.
        self.activated = "session" not in self.scope
        self.accepted = False
        if self.activated:
            if "cookies" not in self.scope:
                raise ValueError("No cookies in scope - SessionMiddleware needs to run inside of CookieMiddleware.")
            self.scope["session"] = LazyObject()
        self.real_send = send

    async def resolve_session(self) -> None:
        """Put the session store of the connection's cookie behind ``scope["session"]``. Its data stay unread."""
        if self.activated:
            session_key = self.scope["cookies"].get(self.cookie_name)
            self.scope["session"]._wrapped = self.session_store(session_key)

    async def send(self, message: dict[str, Any]) -> Any:
        """Send a message; one that starts a response saves the session first, and carries its cookie."""
        kind = message["type"]
        if kind == "websocket.accept":
            self.accepted = True
        if self.activated and kind in self.save_message_types and message.get("status", 200) != 500:
            session = self.scope["session"]
            empty = session.is_empty()
            if session.modified or settings.SESSION_SAVE_EVERY_REQUEST:
                # An empty one was flushed, and its row with it: saving would make a row that nobody asks for again.
                if not empty:
                    await self.save_session()
                if kind in self.cookie_response_message_types:
                    self._set_cookie(message, empty=empty)
        return await self.real_send(message)

    def _set_cookie(self, message: dict[str, Any], *, empty: bool) -> None:
        session = self.scope["session"]
        if empty:
            if self.cookie_name in self.scope["cookies"]:
                CookieMiddleware.delete_cookie(
                    message, self.cookie_name, path=settings.SESSION_COOKIE_PATH, domain=settings.SESSION_COOKIE_DOMAIN
                )
            return
        until_browser_closes = session.get_expire_at_browser_close()
        CookieMiddleware.set_cookie(
            message,
            self.cookie_name,
            session.session_key,
            max_age=None if until_browser_closes else session.get_expiry_age(),
            path=settings.SESSION_COOKIE_PATH,
            domain=settings.SESSION_COOKIE_DOMAIN,
            secure=settings.SESSION_COOKIE_SECURE,
            httponly=settings.SESSION_COOKIE_HTTPONLY,
            samesite=settings.SESSION_COOKIE_SAMESITE or None,
        )

    async def save_session(self) -> None:
        """Save the session. Raises SuspiciousOperation when it was deleted meanwhile."""
        await save_session(self.scope)


async def save_session(scope: Scope) -> None:
    """Save the session of a connection to its store, changed or not.

    A WebSocket's session is saved by nothing else. A session without a key gets one here, and no cookie can carry
    it to the browser any more: change sessions over HTTP where you can. Raises ValueError without a session,
    SuspiciousOperation when it was deleted meanwhile (the user logged out in another tab).
    """
    session = scope.get("session")
    if session is None:
        raise ValueError("Cannot find session in scope. You should wrap your consumer in SessionMiddleware.")
    try:
        await session.asave()
    except UpdateError:
        raise SuspiciousOperation(
            "The request's session was deleted before the request completed. The user may have logged out in a "
            "concurrent request, for example."
        ) from None
    # Django leaves this to the end of the request; here it says whether there is anything left to save.
    session.modified = False


class SessionMiddleware:
    """Put the session of a connection's cookie into ``scope["session"]``. Needs CookieMiddleware above it."""

    def __init__(self, inner: ASGIApplication) -> None:
        self.inner = inner

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> Any:
        """Serve one connection."""
        wrapper = InstanceSessionWrapper(scope, send)
        await wrapper.resolve_session()
        scope = wrapper.scope  # the other is not kept: this frame lives as long as the connection
        websocket = scope.get("type") == "websocket"
        outward = _stepping_aside(wrapper) if websocket else wrapper.send
        if not wrapper.activated or not websocket:
            return await self.inner(scope, receive, outward)
        try:
            inner = await settle(HandOn(self.inner, scope, receive, outward))
            del outward
            result = None if inner is None else await inner
        except DatabaseError as exc:
            table = None if wrapper.accepted or framework.compat else await missing_table()
            if table is None:
                raise
            logger.error(
                '%s denied: the table %r does not exist, run "manage.py migrate" (%s)', describe(scope), table, exc
            )
            return await refuse_websocket(scope, receive, send)
        await _warn_if_unsaved(wrapper.scope)
        return result


# As the class says above. Whoever changes it wants to see more messages than those.
_STOCK = (InstanceSessionWrapper.send, ["http.response.start"], ["http.response.start"])


def _stepping_aside(wrapper: InstanceSessionWrapper) -> Send:
    """Return the wrapper's ``send``; after a WebSocket's accept its sender may go past the stock one, and does."""
    kinds = wrapper.save_message_types, wrapper.cookie_response_message_types
    if (type(wrapper).send, *map(list, kinds)) != _STOCK:
        return wrapper.send
    outward: Any = functools.partial(wrapper.send)  # a bound method takes no attribute
    outward.after_accept = wrapper.real_send
    return cast("Send", outward)


async def _warn_if_unsaved(scope: Scope) -> None:
    session = scope["session"]
    if not getattr(session, "modified", False) or session.is_empty():
        return
    # The flag stays up after session.asave(); what the store has decides. Asked only of a session that was changed.
    try:
        changed = dict(session._session)
        stored: Any = type(session._wrapped)(session.session_key)
        saved = dict(await stored.aload()) if session.session_key else {}
    except Exception:  # whatever the store's trouble is, a warning about saving must not become an error
        logger.debug("Could not compare a session with its store", exc_info=True)
        return
    names = sorted(str(key) for key in changed.keys() | saved.keys() if changed.get(key) != saved.get(key))
    if names:
        logger.warning(
            "%s ended with changes to its session that were never saved (keys: %s); "
            'call "await antiphon.sessions.save_session(self.scope)" after changing it',
            describe(scope),
            ", ".join(map(repr, names)),
        )


def SessionMiddlewareStack(inner: ASGIApplication) -> CookieMiddleware:  # noqa: N802  -- Channels' name
    """Wrap an application in cookies and session."""
    return CookieMiddleware(SessionMiddleware(inner))
