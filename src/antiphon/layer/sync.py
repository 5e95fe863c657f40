"""Plain functions for synchronous code: views, threads, tasks, commands, the shell. Knows no engine.

Each checks and encodes at the call, so that what is wrong fails there. Inside a transaction a send waits for the commit
and is gone with a rollback; what becomes of it then is in ``deferred.py``.
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Coroutine, Iterable
from typing import Any, TypeVar

from ..framework import user_key
from ..names import inbox_topic, is_local, node_of, queue_topic, require_channel, require_group, user_topic
from ..types import Message, Receipt
from .background import background_loop
from .deferred import Send
from .layer import ChannelLayer
from .presence import PresenceStats, Roster
from .registry import DEFAULT_CHANNEL_LAYER, get_channel_layer
from .sends import checked_channels, checked_groups

__all__ = [
    "close_channel", "close_session", "close_user", "disconnect_user", "group_send", "groups_send", "online",
    "post", "presence", "presence_stats",
    "recheck_user", "send",    "unsubscribe_user", "user_send",
]  # fmt: skip

logger = logging.getLogger("antiphon.layer")

T = TypeVar("T")


def send(
    channel: str,
    message: Message,
    *,
    layer: str = DEFAULT_CHANNEL_LAYER,
    database: str = "default",
    on_commit: bool = True,
) -> Receipt:
    """Send to one channel from synchronous code, a worker channel or a connection's; after the commit, as ``group_send``.

    Raises ChannelFull when a worker channel is full, unless it waits for a commit: then that is reported as any
    failure after a commit.
    """
    ours = _ours(layer, "send(channel, message)")
    require_channel(channel)
    if is_local(channel):
        node = ours._owner(channel)
        topic = node.inbox if node is not None else inbox_topic(node_of(channel) or "")
    else:
        topic = queue_topic(channel)
    one = Send("channel", channel, [topic], message, ours, alias=layer)
    return one.go(database if on_commit else None)


def group_send(
    group: str,
    message: Message,
    *,
    exclude: Iterable[str] = (),
    exclude_author: Any = None,
    idempotency_key: str | None = None,
    version: int = 0,
    version_epoch: str = "",
    layer: str = DEFAULT_CHANNEL_LAYER,
    database: str = "default",
    on_commit: bool = True,
) -> Receipt:
    """Send to a group from synchronous code; inside a transaction of ``database``, after its commit.

    ``exclude_author``, ``idempotency_key``, ``version``, ``version_epoch``: as of the layer's ``group_send``.
    ``on_commit=False`` sends at once. Returns a Receipt, whose state is ``deferred`` while the send waits. Errors as
    of the layer's ``group_send``; RuntimeError on a running event loop, which must ``await`` that one.
    """
    ours = _ours(layer, "group_send(group, message)")
    require_group(group)
    excluded = tuple(checked_channels(exclude)) if exclude else ()
    one = Send(
        "group",
        group,
        ["g:" + group],
        message,
        ours,
        alias=layer,
        exclude=excluded,
        exclude_author=exclude_author,
        terms=ours.terms(idempotency_key, version, version_epoch),
    )
    return one.go(database if on_commit else None)


def groups_send(
    groups: Iterable[str],
    message: Message,
    *,
    exclude: Iterable[str] = (),
    layer: str = DEFAULT_CHANNEL_LAYER,
    database: str = "default",
    on_commit: bool = True,
) -> Receipt:
    """Send to several groups, as ``group_send`` to one; who is in more of them gets the message once."""
    ours = _ours(layer, "groups_send(groups, message)")
    topics = checked_groups(groups)
    excluded = tuple(checked_channels(exclude))
    target = tuple(topic[2:] for topic in topics)
    one = Send("group", target, topics, message, ours, alias=layer, exclude=excluded)
    return one.go(database if on_commit else None) if topics else Receipt(nodes=0, delivered=0, dropped=0)


def user_send(
    user: Any,
    message: Message,
    *,
    exclude: Iterable[str] = (),
    layer: str = DEFAULT_CHANNEL_LAYER,
    database: str = "default",
    on_commit: bool = True,
) -> Receipt:
    """Send to all connections of a user (object or primary key), as ``group_send`` does to a group's."""
    ours = _ours(layer, "user_send(user, message)")
    key = user_key(user)
    excluded = tuple(checked_channels(exclude))
    one = Send("user", key, [user_topic(key)], message, ours, alias=layer, exclude=excluded)
    return one.go(database if on_commit else None)


def close_channel(channel: str, reason: str = "revoked", *, layer: str = DEFAULT_CHANNEL_LAYER) -> bool:
    """Close the connection behind a channel; False when there is none."""
    return _run(_ours(layer, "close_channel(channel)").close_channel(channel, reason))


def close_user(user: Any, reason: str = "revoked", *, layer: str = DEFAULT_CHANNEL_LAYER) -> int:
    """Close all connections of a user (object or primary key); return how many."""
    return _run(_ours(layer, "close_user(user)").close_user(user, reason))


def disconnect_user(user: Any, *, reconnect: bool = False, layer: str = DEFAULT_CHANNEL_LAYER) -> int:
    """Close all connections of a user (object or primary key); return how many.

    ``reconnect``: clients may come back at once, as after a restart; else they are told to stay away.
    """
    return close_user(user, "restart" if reconnect else "revoked", layer=layer)


def unsubscribe_user(user: Any, group: str, *, layer: str = DEFAULT_CHANNEL_LAYER) -> int:
    """Take all connections of a user (object or primary key) out of a group; they stay open. Return how many were in it."""
    return _run(_ours(layer, "unsubscribe_user(user, group)").unsubscribe_user(user, group))


def presence(group: str, *, limit: int = 100, cursor: str | None = None, layer: str = DEFAULT_CHANNEL_LAYER) -> Roster:
    """Return who is in a group, a page of members: as the layer's ``presence``."""
    return _run(_ours(layer, "presence(group)").presence(group, limit=limit, cursor=cursor))


def presence_stats(group: str, *, layer: str = DEFAULT_CHANNEL_LAYER) -> PresenceStats:
    """Count a group's connections and its distinct users."""
    return _run(_ours(layer, "presence_stats(group)").presence_stats(group))


def online(users: Iterable[Any], *, layer: str = DEFAULT_CHANNEL_LAYER) -> list[Any]:
    """Return those of ``users`` (objects or keys) who are in any group with presence."""
    return _run(_ours(layer, "online(users)").online(users))


def recheck_user(user: Any = None, *, layer: str = DEFAULT_CHANNEL_LAYER) -> int:
    """Have all connections of a user look again at what they may; None: of every user. Return how many there are."""
    return _run(_ours(layer, "recheck_user(user)").recheck_user(user))


def close_session(session_key: str, reason: str = "unauthenticated", *, layer: str = DEFAULT_CHANNEL_LAYER) -> int:
    """Close all connections of a session; return how many."""
    return _run(_ours(layer, "close_session(session_key)").close_session(session_key, reason))


def post(coroutine: Coroutine[Any, Any, Any]) -> None:
    """Run a coroutine on the background loop without waiting for it, from anywhere; its failure is logged."""
    asyncio.run_coroutine_threadsafe(_logged(coroutine), background_loop())


async def _logged(coroutine: Coroutine[Any, Any, Any]) -> None:
    try:
        await coroutine
    except Exception:
        logger.exception("A call without a waiter failed")


def _run(coroutine: Coroutine[Any, Any, T]) -> T:
    return asyncio.run_coroutine_threadsafe(coroutine, background_loop()).result()


def _ours(alias: str, call: str) -> ChannelLayer:
    """Return the layer that a function works for; refuse where the function cannot. ``call`` is the layer's own."""
    if asyncio._get_running_loop() is not None:
        raise RuntimeError(
            f"{_function(call)} is for synchronous code; on a running event loop: await get_channel_layer().{call}"
        )
    layer = get_channel_layer(alias)
    if not isinstance(layer, ChannelLayer):
        raise TypeError(
            f"{_function(call)} needs a layer of Antiphon; {alias!r} is {type(layer).__module__}."
            f"{type(layer).__qualname__}: what that one can do it does through async_to_sync(get_channel_layer().…)"
        )
    return layer


def _function(call: str) -> str:
    return f"antiphon.{call.partition('(')[0]}()"
