"""A user that is loaded again for the connections that have it: one query for several, and each keeps its own object.

Knows no session and no connection.
"""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable, Hashable
from typing import Any, TypeVar

from django.db.models import ForeignKey, Model

__all__ = ["Shared", "forget_permissions", "renew"]

Result = TypeVar("Result")

# The tabs of a user are told of a change within this.
_TOGETHER_S = 0.02


class Shared:
    """Work that several ask for in one moment, done once for all of them."""

    def __init__(self) -> None:
        self._waiting: dict[Hashable, asyncio.Task[Any]] = {}

    def __repr__(self) -> str:
        return f"<Shared {len(self._waiting)} waiting>"

    async def do(self, key: Hashable, work: Callable[[], Awaitable[Result]]) -> Result:
        """Return what ``work`` returns, or what that of somebody else with this key on this loop does.

        It never begins before the call: who asks because something has changed must not be told of what was before.
        """
        loop = asyncio.get_running_loop()
        task = self._waiting.get((loop, key))
        if task is None:
            task = self._waiting[loop, key] = loop.create_task(self._begin((loop, key), work))
        result: Result = await asyncio.shield(task)
        return result

    async def _begin(self, key: Hashable, work: Callable[[], Awaitable[Result]]) -> Result:
        try:
            await asyncio.sleep(_TOGETHER_S)
        finally:
            del self._waiting[key]
        return await work()


def renew(user: Any, fresh: Any) -> None:
    """Give ``user`` what was read anew: its fields, in place, so that whatever an application has put on it stays."""
    if not isinstance(user, Model) or not isinstance(fresh, type(user)):
        return
    for field in fresh._meta.concrete_fields:
        if field.attname not in fresh.__dict__ or field.attname not in user.__dict__:
            continue  # left out by defer() or only(): it is loaded when it is read
        value = fresh.__dict__[field.attname]
        if value != user.__dict__[field.attname]:
            user.__dict__[field.attname] = value
            if isinstance(field, ForeignKey) and field.is_cached(user):
                field.delete_cached_value(user)
    forget_permissions(user)


def forget_permissions(user: Any) -> None:
    """Drop what ``ModelBackend`` remembers on a user."""
    kept = getattr(user, "__dict__", {})
    for name in ("_perm_cache", "_user_perm_cache", "_group_perm_cache"):
        kept.pop(name, None)
