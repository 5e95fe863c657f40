"""Plain functions for synchronous code: views, threads, tasks, commands, the shell. Knows no engine.

Each checks and encodes at the call, so that what is wrong fails there. Inside a transaction the send waits for the
commit and is gone with a rollback; a failure after the commit is retried, then logged, counted and given to
``on_publish_error``: it never raises into code whose data is committed.
"""

from __future__ import annotations

import asyncio
import logging
import time
from collections.abc import Coroutine, Iterable
from typing import Any, TypeVar

from .. import framework, options
from ..exceptions import CrossProcessError, EngineUnavailable
from ..framework import user_key
from ..names import group_topic, require_group, user_topic
from ..types import Message, Receipt
from .background import background_loop
from .capture import Sent, record, recorders
from .drops import Drop, resolve_hook
from .layer import ChannelLayer
from .registry import DEFAULT_CHANNEL_LAYER, channel_layers, get_channel_layer
from .sends import checked_channels

__all__ = ["close_channel", "close_session", "close_user", "group_send", "post", "user_send"]

logger = logging.getLogger("antiphon.layer")

T = TypeVar("T")


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
    send = _Send("group", group, group_topic(group), message, tuple(checked_channels(exclude)), layer)
    return send.go(database if on_commit else None)


def user_send(
    user: Any,
    message: Message,
    *,
    layer: str = DEFAULT_CHANNEL_LAYER,
    database: str = "default",
    on_commit: bool = True,
) -> Receipt:
    """Send to all connections of a user (object or primary key), as ``group_send`` does to a group's."""
    _refuse_on_loop("user_send", "await get_channel_layer().user_send(user, message)")
    key = user_key(user)
    return _Send("user", key, user_topic(key), message, (), layer).go(database if on_commit else None)


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


class _Send:
    """One send, checked and encoded, that leaves now or after a commit."""

    __slots__ = ("alias", "body", "exclude", "kind", "layer", "message", "target", "topic")

    def __init__(
        self, kind: str, target: str, topic: str, message: Message, exclude: tuple[str, ...], alias: str
    ) -> None:
        layer = _ours(alias, f"{kind}_send")
        self.kind, self.target, self.topic = kind, target, topic
        self.message, self.exclude, self.alias, self.layer = message, exclude, alias, layer
        self.body = layer.encode(message)
        # Now, not after the commit, where it could only be logged.
        layer.require_reach()

    def __repr__(self) -> str:
        return f"<send to {self.kind} {self.target!r} on {self.alias!r}: {self.message.get('type')!r}>"

    def go(self, database: str | None) -> Receipt:
        deferred = database is not None and framework.current().on_commit(self.after_commit, database)
        if recorders:
            record(Sent(self.kind, self.target, self.message, self.exclude, deferred, self.alias, database))
        return Receipt(state="deferred") if deferred else self.publish()

    def publish(self) -> Receipt:
        extra = {"x": list(self.exclude)} if self.exclude else None
        return self.layer.publish_blocking([self.topic], self.body, extra)

    def after_commit(self) -> None:
        deadline = time.monotonic() + options.get("publish_retry_s")
        pause = 0.02
        while True:
            try:
                self.publish()
                return
            except Exception as exc:
                # What another try cannot mend fails at once; nobody's commit hook should sleep for nothing.
                mendable = isinstance(exc, EngineUnavailable) and not isinstance(exc, CrossProcessError)
                if not mendable or time.monotonic() + pause > deadline:
                    self._failed(exc)
                    return
            time.sleep(pause)
            pause = min(pause * 2, 0.4)

    def _failed(self, exc: Exception) -> None:
        logger.error("Not sent after the commit: %r: %s", self, exc, exc_info=exc)
        self.layer.drops.add(Drop("publish_failed", self.target if self.kind == "group" else None, repr(self)))
        hook = resolve_hook(options.get("on_publish_error"))
        if hook is not None:
            try:
                hook(exc, self)
            except Exception:
                logger.exception("on_publish_error raised")


# For the manager's other users: the layers that exist now.
def made_layers() -> list[ChannelLayer]:
    """Return the layers of Antiphon that were made in this process."""
    return [layer for layer in channel_layers.backends.values() if isinstance(layer, ChannelLayer)]
