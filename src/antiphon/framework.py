"""What the layers need from a web framework, and what they get without one. Must not import any framework.

``antiphon.django`` fills it; an application without Django runs on the defaults. The framework is found when it is
needed, so that ``import antiphon`` never loads settings.
"""

from __future__ import annotations

import os
import secrets
import sys
from collections.abc import Callable, Iterable, Mapping, Sequence
from contextvars import ContextVar
from importlib import import_module
from importlib.util import find_spec
from typing import Any

from .types import Scope

__all__ = ["Framework", "current", "install", "keep_connections", "user_key"]

# True once install_as_channels() ran: where Channels and Antiphon differ on purpose, Channels' way holds.
compat = False

_OWN_KEY = secrets.token_bytes(32)

# True in the context of an application under a test communicator: its database connections belong to the test.
keep_connections: ContextVar[bool] = ContextVar("antiphon_keep_connections", default=False)


class Framework:
    """The seam between Antiphon and a web framework. As it stands: no framework."""

    name = "none"

    def __init__(self, layers: Mapping[str, Mapping[str, Any]] | None = None, **options: Any) -> None:
        self._layers = layers or {}
        self._options = options

    def layer_configs(self) -> Mapping[str, Mapping[str, Any]]:
        """Return alias -> {BACKEND, CONFIG, TEST_CONFIG}; empty when nothing is configured."""
        return self._layers

    def options(self) -> Mapping[str, Any]:
        """Return the options that belong to no layer (Django: the ``ANTIPHON`` setting)."""
        return self._options

    def on_commit(self, callback: Callable[[], None], database: str) -> bool:
        """Run ``callback`` after the transaction that is open on this thread; False: there is none."""
        return False

    def commit_hooks(self, database: str) -> Iterable[tuple[Callable[[], None], bool]]:
        """Return what waits for the commit of this thread's transaction, the newest first.

        Each with whether one that is registered now would be rolled back with it, and never without it.
        """
        return ()

    def release_connections(self) -> None:
        """Close the old database connections of this thread."""

    def identity(self, scope: Scope) -> tuple[str | None, str | None]:
        """Return (user key, session key) of a connection, without any query."""
        user = scope.get("user")
        return (user_key(user) if user is not None and getattr(user, "is_authenticated", False) else None), None

    async def revalidate(self, scope: Scope) -> str | None:
        """Return None while the connection's user and session are still valid, else the reason to close it."""
        return None

    def forget_permissions(self, user: Any) -> None:
        """Have what a user may do be asked anew: it may be remembered in the object."""

    def signing_keys(self) -> Sequence[bytes]:
        """Return the secrets that tokens of positions are signed with: the first signs, each is good for reading.

        Without a framework: the option ``signing_keys``, else one of this process and its children alone.
        """
        return [key.encode() if isinstance(key, str) else key for key in self._options.get("signing_keys", ())] or [
            _OWN_KEY
        ]

    def under_test(self) -> bool:
        """Say whether a test runner is at work."""
        return "pytest" in sys.modules

    def debug(self) -> bool:
        """Say whether this is a developer's machine."""
        return True

    @property
    def has_database(self) -> bool:
        """Say whether ``release_connections`` can have anything to do."""
        return False


def user_key(user: Any) -> str:
    """Return the text that stands for a user: its primary key, or the value itself.

    Takes a user object (``pk``, else ``id``, else ``username``) or the bare key (str, int, UUID).
    """
    named = [value for name in ("pk", "id", "username") if not callable(value := getattr(user, name, callable))]
    # A UUID or Decimal may be a key; an object that has no text of its own cannot be one, nor can one that has a
    # place for its key and nothing there, such as Django's AnonymousUser.
    textless = getattr(type(user), "__str__", None) is object.__str__ and not isinstance(user, int)
    keys = named or ([] if textless else [user])
    for key in keys:
        if key is not None and key != "":
            return str(key)
    raise TypeError(f"expected a user with a primary key, or the key itself; got {user!r}")


_installed: Framework | None = None


def install(framework: Framework | None) -> Framework | None:
    """Make ``framework`` the one in use, and return the one before it. None: look again at the next need."""
    global _installed
    previous, _installed = _installed, framework
    return previous


def current() -> Framework:
    """Return the framework in use: the installed one, else Django where its settings are set up, else none."""
    global _installed
    if _installed is None:
        found = _discover()
        if found is None:
            return _NONE  # not kept: a program may configure Django's settings after its first layer
        _installed = found
    return _installed


_NONE = Framework()


def _discover() -> Framework | None:
    conf = sys.modules.get("django.conf")
    configured = conf is not None and conf.settings.configured
    if configured or (os.environ.get("DJANGO_SETTINGS_MODULE") and find_spec("django") is not None):
        # Named by text: nothing below django/ may import it, and this is the one place that finds it.
        found: Framework = import_module("antiphon.django.framework").framework
        return found
    return None
