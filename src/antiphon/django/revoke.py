"""Closes the sockets of a user or a session, in every layer, once the transaction that says so is committed."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Iterable
from functools import partial
from typing import Any

from django.db import DEFAULT_DB_ALIAS

from .. import framework
from ..layer import sync
from ..layer.layer import ChannelLayer
from ..layer.registry import DEFAULT_CHANNEL_LAYER, channel_layers
from .database import database_sync_to_async

__all__ = ["arevoke_user", "close_session", "close_user", "recheck_users", "revoke_user"]

logger = logging.getLogger("antiphon.security")


def close_user(user: Any, reason: str, *, database: str = DEFAULT_DB_ALIAS) -> None:
    """Close the sockets of ``user`` with ``reason``, after the transaction that is open on ``database``."""
    _after_commit("close_user", framework.user_key(user), reason, database)


def close_session(session_key: str | None, reason: str, *, database: str = DEFAULT_DB_ALIAS) -> None:
    """Close the sockets of a session with ``reason``, likewise. Without a key there are none."""
    if session_key:
        _after_commit("close_session", session_key, reason, database)


def revoke_user(user: Any, *, database: str = DEFAULT_DB_ALIAS) -> None:
    """Close all sockets of ``user``, and have every token and ticket made for them until now be worth nothing.

    The sockets after the transaction that is open on ``database``. It is remembered in Django's default cache, which all
    processes must share, until that forgets it. Sessions stay: end those by ``logout``, or by a new password.
    """
    from .token_users import note_revoked  # it needs users, which are not there yet at the import

    note_revoked(user)
    close_user(user, "revoked", database=database)


async def arevoke_user(user: Any, *, database: str = DEFAULT_DB_ALIAS) -> None:
    """Do the same in a coroutine."""
    await database_sync_to_async(revoke_user)(user, database=database)


def _after_commit(method: str, key: str, reason: str, database: str) -> None:
    # Not Django's on_commit(): outside a transaction that one opens a connection to the database, to ask for nothing.
    close = partial(_close, method, key, reason)
    if not framework.current().on_commit(close, database):
        close()


def recheck_users(users: Iterable[Any] | None, *, database: str = DEFAULT_DB_ALIAS) -> None:
    """Have the sockets of ``users`` look again at what they may; None: those of all. After the open transaction."""
    recheck = partial(_recheck, None if users is None else [framework.user_key(user) for user in users])
    if not framework.current().on_commit(recheck, database):
        recheck()


def _recheck(keys: list[str] | None) -> None:
    for alias in framework.current().layer_configs() or (DEFAULT_CHANNEL_LAYER,):
        try:
            layer = channel_layers[alias]
            if isinstance(layer, ChannelLayer):
                for key in [None] if keys is None else keys:
                    sync.post(layer.recheck_user(key))
        except Exception:
            logger.exception("Could not have the sockets of users checked again in layer %r", alias)


def _close(method: str, key: str, reason: str) -> None:
    for alias in framework.current().layer_configs() or (DEFAULT_CHANNEL_LAYER,):
        try:
            layer = channel_layers[alias]
            if not isinstance(layer, ChannelLayer):  # a foreign layer knows no users and no sessions
                continue
            if asyncio._get_running_loop() is None:
                # Waits: a command may end right after this, and the close with it.
                getattr(sync, method)(key, reason, layer=alias)
            else:
                sync.post(getattr(layer, method)(key, reason))
        except Exception:
            logger.exception("Could not close the sockets of a %s in layer %r", method.removeprefix("close_"), alias)
