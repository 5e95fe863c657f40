"""The user of a connection: found from its session, logged in and out. Knows no consumer.

The functions are ``database_sync_to_async`` objects: await them; each is one visit to a thread.
"""

from __future__ import annotations

import time
from typing import Any

from django.conf import settings
from django.contrib.auth import (
    BACKEND_SESSION_KEY,
    HASH_SESSION_KEY,
    SESSION_KEY,
    get_user_model,
    load_backend,
    user_logged_in,
    user_logged_out,
)
from django.contrib.sessions.backends.base import SessionBase
from django.utils.functional import LazyObject

from .. import framework
from ..middleware import BaseMiddleware
from ..types import ASGIApplication, Receive, Scope, Send
from .database import database_sync_to_async
from .framework import session_is_verified
from .handing import HandOn, handing_on, super_of
from .revoke import close_session
from .sessions import CookieMiddleware, SessionMiddleware

__all__ = ["AuthMiddleware", "AuthMiddlewareStack", "UserLazyObject", "get_user", "login", "logout"]

_NO_SESSION = "Cannot find session in scope. You should wrap your consumer in SessionMiddleware."


def _session_of(scope: Scope) -> Any:
    if "session" not in scope:
        raise ValueError(_NO_SESSION)
    return scope["session"]


@database_sync_to_async
def get_user(scope: Scope) -> Any:
    """Return the user that the session of ``scope`` names, else an ``AnonymousUser``.

    A session whose hash is verified only by one of ``SECRET_KEY_FALLBACKS`` gets the hash of the current key, which
    ``save_session`` or the next HTTP response saves. One that nothing verifies (the password changed) is flushed.
    Raises ValueError without a session.
    """
    from django.contrib.auth.models import AnonymousUser  # models exist only after django.setup()

    session = _session_of(scope)
    try:
        user_id = _user_id_in(session)
        backend_path = session[BACKEND_SESSION_KEY]
    except KeyError:
        return AnonymousUser()
    if backend_path not in settings.AUTHENTICATION_BACKENDS:
        return AnonymousUser()
    user: Any = load_backend(backend_path).get_user(user_id)
    if hasattr(user, "get_session_auth_hash"):
        session_hash = session.get(HASH_SESSION_KEY)
        if not session_is_verified(user, session_hash):
            if not session_is_verified(user, session_hash, fallback=True):
                session.flush()
                return AnonymousUser()
            # Django gives the session a new key here. A WebSocket cannot hand its browser a new cookie, so over one
            # that would log the browser out: the old key stays, and the next HTTP request turns it.
            if scope.get("type") == "http":
                session.cycle_key()
                session[HASH_SESSION_KEY] = user.get_session_auth_hash()
    return user or AnonymousUser()


@database_sync_to_async
def login(scope: Scope, user: Any, backend: str | None = None) -> None:
    """Log ``user`` (or, when it is None, the user in ``scope``) into the session of ``scope``.

    Data of an anonymous session are kept; another user's session is flushed first. Does not save the session: over a
    WebSocket call ``save_session(scope)`` afterwards. Raises ValueError without a session, without a user, or when
    several authentication backends are configured and neither ``backend`` nor ``user.backend`` says which.
    """
    session = _session_of(scope)
    if user is None:
        user = scope.get("user")
    if user is None:
        raise ValueError("User must be passed as an argument or must be present in the scope.")
    auth_hash = user.get_session_auth_hash() if hasattr(user, "get_session_auth_hash") else ""
    if SESSION_KEY not in session:
        session.cycle_key()
    elif _user_id_in(session) != user.pk or (
        auth_hash and not session_is_verified(user, session.get(HASH_SESSION_KEY))
    ):
        session.flush()
    session[SESSION_KEY] = user._meta.pk.value_to_string(user)
    session[BACKEND_SESSION_KEY] = backend or _backend_of(user)
    session[HASH_SESSION_KEY] = auth_hash
    scope["user"] = user
    _identify(scope)
    user_logged_in.send(sender=user.__class__, request=None, user=user)


@database_sync_to_async
def logout(scope: Scope) -> None:
    """Log the user of ``scope`` out and flush the session; all WebSockets of that session are closed.

    The one that calls this is closed with them, at once: what its client should still read is sent before. Where
    Channels' way holds (``install_as_channels()``) it goes on with an anonymous user, and nothing is closed.
    Raises ValueError without a session.
    """
    from django.contrib.auth.models import AnonymousUser  # models exist only after django.setup()

    session = _session_of(scope)
    user = scope.get("user")
    if not getattr(user, "is_authenticated", True):
        user = None
    if user is not None:
        user_logged_out.send(sender=user.__class__, request=None, user=user)
        # The signal has no request to find the session by.
        if not framework.compat:
            close_session(session.session_key, "unauthenticated")
    session.flush()
    if "user" in scope:
        scope["user"] = AnonymousUser()
    _identify(scope)


def _identify(scope: Scope) -> None:
    # The connection is somebody else's now: what is sent to, or closed for, a user or a session must follow.
    connection = scope.get("antiphon.connection")
    if connection is not None:
        connection.identify()


def _user_id_in(session: Any) -> Any:
    # A session holds text, whatever the type of the key is.
    return get_user_model()._meta.pk.to_python(session[SESSION_KEY])


def _backend_of(user: Any) -> str:
    try:
        named: str = user.backend
        return named
    except AttributeError:
        if len(settings.AUTHENTICATION_BACKENDS) == 1:
            only: str = settings.AUTHENTICATION_BACKENDS[0]
            return only
        raise ValueError(
            "You have multiple authentication backends configured and therefore must provide the `backend` argument "
            "or set the `backend` attribute on the user."
        ) from None


class UserLazyObject(LazyObject):  # type: ignore[type-arg]  # generic in the stubs alone
    """What ``scope["user"]`` is until AuthMiddleware knows the user; reading it too early says so."""

    def _setup(self) -> None:
        raise ValueError("Accessing scope user before it is ready.")


class AuthMiddleware(BaseMiddleware):
    """Put the user of the connection's session into ``scope["user"]``. Needs SessionMiddleware above it."""

    def populate_scope(self, scope: Scope) -> None:
        """Put a place for the user into the scope. Raises ValueError without a session."""
        if "session" not in scope:
            raise ValueError("AuthMiddleware cannot find session in scope. SessionMiddleware must be above it.")
        if "user" not in scope:
            scope["user"] = UserLazyObject()

    async def resolve_scope(self, scope: Scope) -> None:
        """Find the user, and put it into its place; a user that a middleware above found stays."""
        if not isinstance(scope["user"], LazyObject):
            return
        session = scope["session"]
        if isinstance(session, SessionBase) and session.session_key is None and session.is_empty():
            # No cookie, so nobody: the common case on public pages, and not worth a visit to the thread.
            from django.contrib.auth.models import AnonymousUser  # models exist only after django.setup()

            scope["user"]._wrapped = AnonymousUser()
        else:
            scope["user"]._wrapped = await get_user(scope)

    @handing_on
    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> HandOn:
        """Serve one connection."""
        scope = dict(scope)
        # From here on a log-out must find the connection, even before its consumer begins.
        scope.setdefault("antiphon.let_in_s", time.monotonic())
        self.populate_scope(scope)
        await self.resolve_scope(scope)
        return HandOn(super_of(AuthMiddleware, self), scope, receive, send)


def AuthMiddlewareStack(inner: ASGIApplication) -> CookieMiddleware:  # noqa: N802  -- Channels' name
    """Wrap an application in cookies, session and user."""
    return CookieMiddleware(SessionMiddleware(AuthMiddleware(inner)))
