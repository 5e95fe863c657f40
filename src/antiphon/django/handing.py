"""How our middlewares hand a connection on, so that an idle one keeps no frame and no scope of theirs.

A middleware that has nothing to do once the inner application runs *prepares*: it says who goes on, with what. Its
``__call__`` is a coroutine function all the same, as servers, Channels' users and subclasses expect. Knows no Django.
"""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Coroutine
from functools import wraps
from typing import Any, NamedTuple, TypeAlias

from ..middleware import BaseMiddleware
from ..types import ASGIApplication, Receive, Scope, Send

__all__ = ["HandOn", "Step", "handing_on", "settle", "super_of"]


class HandOn(NamedTuple):
    """Who goes on with a connection, and with what."""

    application: ASGIApplication
    scope: Scope
    receive: Receive
    send: Send


# What a preparation returns. None, in the end: the connection was answered.
Step: TypeAlias = HandOn | Awaitable[HandOn | None]


def handing_on(prepare: Callable[..., Step]) -> Callable[[Any, Scope, Receive, Send], Coroutine[Any, Any, Any]]:
    """Make the ``__call__`` of a middleware from its preparation.

    A middleware of ours around it runs the preparation alone. A subclass with a ``__call__`` of its own is called.
    """

    @wraps(prepare)
    async def call(self: Any, scope: Scope, receive: Receive, send: Send) -> Any:
        inner = await settle(prepare(self, scope, receive, send))
        del scope, receive, send  # this frame lives as long as the connection
        return None if inner is None else await inner

    call.antiphon_prepare = prepare  # type: ignore[attr-defined]  # functions take attributes
    return call


async def settle(step: Step) -> Awaitable[Any] | None:
    """Go on as long as middlewares only prepare; return what the first other application wants awaited, or None."""
    while True:
        if not isinstance(step, HandOn):
            prepared = await step
            if prepared is None:
                return None
            step = prepared
        application, scope, receive, send = step
        prepare = getattr(type(application).__call__, "antiphon_prepare", None)
        if prepare is None:
            return application(scope, receive, send)
        step = prepare(application, scope, receive, send)


def super_of(cls: type[BaseMiddleware], middleware: BaseMiddleware) -> ASGIApplication:
    """Return what ``super().__call__`` of ``cls`` leads to: the inner application, or a class between the two."""
    above: Any = super(cls, middleware).__call__  # type: ignore[misc]  # cls is below BaseMiddleware
    # The scope is a copy already.
    return middleware.inner if above.__func__ is BaseMiddleware.__call__ else above
