"""Django as Antiphon's web framework: settings, transactions, connections, users. Knows no layer and no consumer."""

from __future__ import annotations

import logging
import sys
import time
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from functools import partial
from math import inf
from types import MappingProxyType
from typing import Any

from django.conf import settings
from django.contrib.auth import BACKEND_SESSION_KEY, HASH_SESSION_KEY, SESSION_KEY, get_user_model, load_backend
from django.contrib.sessions.backends.base import SessionBase
from django.core.exceptions import ImproperlyConfigured
from django.core.signals import setting_changed
from django.db import DatabaseError, connections, transaction
from django.utils.crypto import constant_time_compare
from django.utils.encoding import force_bytes
from django.utils.functional import LazyObject, empty

from .. import framework as seam
from ..types import Scope
from .database import close_now, database_sync_to_async
from .renewal import Shared, forget_permissions, renew

__all__ = ["DjangoFramework", "framework", "password_of", "session_is_verified", "user_or_none"]

logger = logging.getLogger("antiphon.security")

# Where a token middleware leaves when its token ends (seconds since the epoch).
TOKEN_EXPIRES = "antiphon.token_expires"  # noqa: S105  -- a key of the scope


_NOTHING: Mapping[str, Any] = MappingProxyType({})
# Setting -> the settings that were found to be without it.
_without: dict[str, Any] = {}
_together = Shared()


class DjangoFramework(seam.Framework):
    """What the layers ask of Django."""

    name = "django"

    def layer_configs(self) -> Mapping[str, Mapping[str, Any]]:
        """Return ``CHANNEL_LAYERS``; empty when it is not set."""
        return self._mapping("CHANNEL_LAYERS")

    def options(self) -> Mapping[str, Any]:
        """Return ``ANTIPHON``; empty when it is not set."""
        return self._mapping("ANTIPHON")

    @staticmethod
    def _mapping(setting: str) -> Mapping[str, Any]:
        # Asked at every connect, and Django raises and catches inside for a setting that is not there.
        wrapped: Any = vars(settings).get("_wrapped")
        if wrapped is not None and _without.get(setting) is wrapped and setting not in vars(wrapped):
            return _NOTHING
        # The same object each time: who keeps what was made of it asks whether it is still that.
        value = getattr(settings, setting, None) or _NOTHING
        if value is _NOTHING:
            _without[setting] = vars(settings).get("_wrapped")
        if not isinstance(value, Mapping):
            raise ImproperlyConfigured(f"{setting}: expected a dict; got {value!r:.120}")
        return value

    def on_commit(self, callback: Callable[[], None], database: str) -> bool:
        """Run ``callback`` after the transaction that is open on this thread; False: there is none."""
        if not connections[database].in_atomic_block:
            return False
        # robust: a failure must not raise into a view whose data is committed, nor keep the next hooks from running.
        transaction.on_commit(callback, using=database, robust=True)
        return True

    def commit_hooks(self, database: str) -> Iterator[tuple[Callable[[], None], bool]]:
        """Yield what waits for the commit of this thread's transaction, the newest first.

        Each with whether one that is registered now would be rolled back with it, and never without it.
        """
        connection = connections[database]
        savepoints = set(connection.savepoint_ids)
        # Django drops the hooks of a savepoint by these ids, so hooks with the same ones stay or go together.
        for ids, hook, _ in reversed(connection.run_on_commit):  # type: ignore[misc]  # django-stubs know two of three
            yield hook, ids == savepoints

    def release_connections(self) -> None:
        """Close the old database connections of this thread."""
        close_now()

    @property
    def has_database(self) -> bool:
        """Say whether any database is configured."""
        return any(not config["ENGINE"].endswith(".dummy") for config in connections.settings.values())

    def identity(self, scope: Scope) -> tuple[str | None, str | None]:
        """Return (user key, session key) of a connection, from what is already loaded."""
        session = scope.get("session")
        session_key = getattr(session, "session_key", None) if _resolved(session) else None
        user = user_or_none(scope.get("user"))
        return (None if user is None else seam.user_key(user)), session_key

    async def revalidate(self, scope: Scope) -> str | None:
        """Ask session store and database whether the connection's user may still be here.

        None: yes, or nobody was logged in. ``unauthenticated``: the session or token ended, or belongs to somebody
        else now. ``revoked``: the user is gone or not active, or the password changed. A database that does not
        answer ends no connection: it is logged, and the next look decides. A user that stays is up to date afterwards;
        connections of one that ask in the same moment share the queries.
        """
        if scope.get(TOKEN_EXPIRES, inf) < time.time():
            return "unauthenticated"
        user = user_or_none(scope.get("user"))
        session = scope.get("session")
        if user is None or (session is None and not _is_known(user)):
            return None
        try:
            reason, fresh = await _verdict_of(user, session)
        except DatabaseError as exc:
            logger.warning("A connection could not be revalidated, and stays open: %s: %s", type(exc).__name__, exc)
            return None
        if reason is None:
            renew(_unwrapped(user), fresh)
        return reason

    def forget_permissions(self, user: Any) -> None:
        """Drop what ``ModelBackend`` remembers on a user that is loaded."""
        if user_or_none(user) is not None:
            forget_permissions(_unwrapped(user))

    def signing_keys(self) -> Sequence[bytes]:
        """Return ``ANTIPHON["signing_keys"]``, else ``SECRET_KEY`` and its fallbacks."""
        own = self.options().get("signing_keys") or (settings.SECRET_KEY, *settings.SECRET_KEY_FALLBACKS)
        return [force_bytes(key) for key in own]

    async def read_connection_token(self, token: str) -> Any:
        """Return what a connection's token says: see ``subscription_tokens``."""
        from .subscription_tokens import read_connection_token  # it needs users, which are not there yet at the import

        return await database_sync_to_async(read_connection_token)(token)

    async def read_subscription_token(self, token: str) -> Any:
        """Return what a subscription's token says, likewise."""
        from .subscription_tokens import read_subscription_token

        return await database_sync_to_async(read_subscription_token)(token)

    def under_test(self) -> bool:
        """Say whether Django's test environment is set up, or pytest is at work."""
        utils = sys.modules.get("django.test.utils")
        return "pytest" in sys.modules or (utils is not None and hasattr(utils._TestState, "saved_data"))

    def debug(self) -> bool:
        """Return ``DEBUG``."""
        return bool(settings.DEBUG)


def _resolved(value: Any) -> bool:
    """Say whether a value of the scope can be read without a query."""
    return not (isinstance(value, LazyObject) and value.__dict__.get("_wrapped") is empty)


def user_or_none(user: Any) -> Any:
    """Return a user that is loaded and logged in, else None. Never queries."""
    if user is None or not _resolved(user) or not getattr(user, "is_authenticated", False):
        return None
    return user


def session_is_verified(user: Any, session_hash: str | None, *, fallback: bool = False) -> bool:
    """Compare a session's hash with that of the user: the current one, or those of ``SECRET_KEY_FALLBACKS``."""
    if not session_hash:
        return False
    # A user model of one's own may have the current hash alone.
    hashes: Iterable[str]
    hashes = getattr(user, "get_session_auth_fallback_hash", tuple)() if fallback else [user.get_session_auth_hash()]
    return any(constant_time_compare(session_hash, one) for one in hashes)


def _is_known(user: Any) -> bool:
    """Say whether a user is one of Django's: an application may have others, which no table of ours has."""
    try:
        return isinstance(_unwrapped(user), get_user_model())
    except ImproperlyConfigured:  # a project without users
        return False


async def _verdict_of(user: Any, session: Any) -> tuple[str | None, Any]:
    work = partial(database_sync_to_async(_verdict), user, session)
    if session is None:
        about: Any = ()
    else:
        content = vars(_unwrapped(session)).get("_session_cache") if _resolved(session) else None
        if content is None or session.modified:  # what is in it, this connection alone knows
            return await work()
        about = (type(_unwrapped(session)), session.session_key, content.get(SESSION_KEY))
    return await _together.do((type(_unwrapped(user)), str(user.pk), password_of(user), about), work)


def _verdict(user: Any, session: Any) -> tuple[str | None, Any]:
    """Return the reason to close a connection, or None; and the user, loaded anew, where there is one."""
    logged_in = session is not None and str(session.get(SESSION_KEY)) == str(user.pk)
    if not logged_in:  # a token or a middleware of the application says who this is
        if not _is_known(user):
            return None, None
        fresh = get_user_model()._default_manager.filter(pk=user.pk).first()
        if fresh is None or not getattr(fresh, "is_active", True):
            return "revoked", None
        # The user of the connection is as it was when it came.
        before = password_of(user)
        return (None if before is None or before == password_of(fresh) else "revoked"), fresh
    stored: SessionBase = type(_unwrapped(session))(session.session_key)
    if str(stored.get(SESSION_KEY)) != str(user.pk):
        # What was not saved yet, the store cannot know; "modified" alone does not say so, it stays true after save().
        unsaved = session.modified and (session.session_key is None or stored.session_key is not None)
        if not unsaved:
            return "unauthenticated", None
        stored = session
    backend_path = stored.get(BACKEND_SESSION_KEY)
    if backend_path is None or backend_path not in settings.AUTHENTICATION_BACKENDS:
        return "unauthenticated", None
    fresh = load_backend(backend_path).get_user(user.pk)
    if fresh is None or not getattr(fresh, "is_active", True):
        return "revoked", None
    if hasattr(fresh, "get_session_auth_hash"):
        session_hash = stored.get(HASH_SESSION_KEY)
        if not (session_is_verified(fresh, session_hash) or session_is_verified(fresh, session_hash, fallback=True)):
            return "revoked", None
    return None, fresh


def password_of(user: Any) -> Any:
    """Return the password's hash; None where it is not loaded (a deferred field) or there is none. Never queries."""
    return getattr(_unwrapped(user), "__dict__", {}).get("password")


def _unwrapped(value: Any) -> Any:
    return value.__dict__["_wrapped"] if isinstance(value, LazyObject) else value


def _settings_changed(*, setting: str, **kwargs: Any) -> None:
    """Build the layers again when a test overrides their settings."""
    if setting in ("CHANNEL_LAYERS", "ANTIPHON"):
        from ..layer.registry import channel_layers

        channel_layers._reset_backends(setting, **kwargs)


setting_changed.connect(_settings_changed, dispatch_uid="antiphon.settings")

framework = DjangoFramework()
