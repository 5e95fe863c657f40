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
from .registry import DEFAULT_CHANNEL_LAYER, channel_layers, get_channel_layer
from .sends import checked_channels, checked_groups

__all__ = ["close_channel", "close_session", "close_user", "group_send", "groups_send", "post", "send", "user_send"]

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
    _refuse_on_loop("send", "await get_channel_layer().send(channel, message)")
    require_channel(channel)
    ours = _ours(layer, "send")
    if is_local(channel):
        node = ours._owner(channel)
        topic = node.inbox if node is not None else inbox_topic(node_of(channel) or "")
    else:
        topic = queue_topic(channel)
    return Send("channel", channel, [topic], message, ours, alias=layer).go(database if on_commit else None)


def group_send(
    group: str,
    message: Message,
    *,
    exclude: Iterable[str] = (),
    layer: str = DEFAULT_CHANNEL_LAYER,
    database: str = "default",
    on_commit: bool = True,
) -> Receipt:
    """Send to a group from synchronous code; inside a transaction of ``database``, after its commit.

    ``on_commit=False`` sends at once. Returns a Receipt, whose state is ``deferred`` while the send waits. Errors as
    of the layer's ``group_send``; RuntimeError on a running event loop, which must ``await`` that one.
    """
    _refuse_on_loop("group_send", "await get_channel_layer().group_send(group, message)")
    require_group(group)
    excluded = tuple(checked_channels(exclude)) if exclude else ()
    one = Send("group", group, ["g:" + group], message, _ours(layer, "group_send"), alias=layer, exclude=excluded)
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
    _refuse_on_loop("groups_send", "await get_channel_layer().groups_send(groups, message)")
    topics = checked_groups(groups)
    excluded = tuple(checked_channels(exclude))
    target = tuple(topic[2:] for topic in topics)
    one = Send("group", target, topics, message, _ours(layer, "groups_send"), alias=layer, exclude=excluded)
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
    _refuse_on_loop("user_send", "await get_channel_layer().user_send(user, message)")
    key = user_key(user)
    excluded = tuple(checked_channels(exclude))
    one = Send("user", key, [user_topic(key)], message, _ours(layer, "user_send"), alias=layer, exclude=excluded)
    return one.go(database if on_commit else None)


def close_channel(channel: str, reason: str = "revoked", *, layer: str = DEFAULT_CHANNEL_LAYER) -> bool:
    """Close the connection behind a channel; False when there is none."""
    _refuse_on_loop("close_channel", "await get_channel_layer().close_channel(channel)")
    return _run(_ours(layer, "close_channel").close_channel(channel, reason))


def close_user(user: Any, reason: str = "revoked", *, layer: str = DEFAULT_CHANNEL_LAYER) -> int:
    """Close all connections of a user (object or primary key); return how many."""
    _refuse_on_loop("close_user", "await get_channel_layer().close_user(user)")
    return _run(_ours(layer, "close_user").close_user(user, reason))


def close_session(session_key: str, reason: str = "unauthenticated", *, layer: str = DEFAULT_CHANNEL_LAYER) -> int:
    """Close all connections of a session; return how many."""
    _refuse_on_loop("close_session", "await get_channel_layer().close_session(session_key)")
    return _run(_ours(layer, "close_session").close_session(session_key, reason))


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


def _refuse_on_loop(name: str, awaitable: str) -> None:
    if asyncio._get_running_loop() is not None:
        raise RuntimeError(f"antiphon.{name}() is for synchronous code; on a running event loop: {awaitable}")


def _ours(alias: str, name: str) -> ChannelLayer:
    layer = get_channel_layer(alias)
    if not isinstance(layer, ChannelLayer):
        raise TypeError(
            f"antiphon.{name}() needs a layer of Antiphon; {alias!r} is {type(layer).__module__}."
            f"{type(layer).__qualname__}: what that one can do it does through async_to_sync(get_channel_layer().…)"
        )
    return layer


# For the manager's other users: the layers that exist now.
def made_layers() -> list[ChannelLayer]:
    """Return the layers of Antiphon that were made in this process."""
    return [layer for layer in channel_layers.backends.values() if isinstance(layer, ChannelLayer)]
