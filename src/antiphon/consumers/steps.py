"""Runs a handler a step at a time, in its connection's own context. Knows coroutines and nothing of consumers.

A handler that need not wait runs to its end in one step, wherever that step is taken: by the connection's task, or by
the hub that has just delivered its message. The second costs neither a future nor a turn of the event loop, and that
is half of what a message to one connection costs. A handler that does wait is finished by the connection's task:
what it yielded is yielded again there, so for asyncio it is that task which waits, and which is cancelled.
"""

from __future__ import annotations

import asyncio
from asyncio import current_task

# Documented for those who implement tasks: https://docs.python.org/3/library/asyncio-extending.html
from asyncio.tasks import _enter_task, _leave_task
from collections.abc import Coroutine, Generator
from contextvars import Context
from typing import Any

__all__ = ["Steps", "first_step"]

_UNSTARTED: Any = object()


class Steps:
    """The (rest of the) way of a coroutine, to be awaited by the task it belongs to.

    ``yielded``: what a first step taken elsewhere has left it waiting for. ``thrown``: an exception that reached the
    task before the task could begin to wait for that.
    """

    __slots__ = ("context", "coroutine", "thrown", "yielded")

    def __init__(
        self,
        context: Context,
        coroutine: Coroutine[Any, Any, Any],
        yielded: Any = _UNSTARTED,
        thrown: BaseException | None = None,
    ) -> None:
        self.context = context
        self.coroutine = coroutine
        self.yielded = yielded
        self.thrown = thrown

    def __await__(self) -> Generator[Any, Any, Any]:
        run, coroutine, yielded = self.context.run, self.coroutine, self.yielded
        try:
            if self.thrown is not None:
                yielded = run(coroutine.throw, self.thrown)
            elif yielded is _UNSTARTED:
                yielded = run(coroutine.send, None)
            while True:
                if yielded is not None:
                    yielded._asyncio_future_blocking = True
                try:
                    sent = yield yielded
                except GeneratorExit:
                    coroutine.close()
                    raise
                except BaseException as exc:
                    yielded = run(coroutine.throw, exc)
                else:
                    yielded = run(coroutine.send, sent)
        except StopIteration as end:
            return end.value


def first_step(
    loop: asyncio.AbstractEventLoop, task: asyncio.Task[Any], context: Context, coroutine: Coroutine[Any, Any, Any]
) -> Any:
    """Take the first step of a coroutine on behalf of ``task``, which waits elsewhere; return what it waits for.

    Raises StopIteration when the coroutine has ended with that step, else what the coroutine raised.
    """
    # For asyncio (timeouts, task groups, cancel scopes) the handler belongs to its own task, not to whoever sends.
    sender = current_task(loop)
    if sender is not None:
        _leave_task(loop, sender)
    _enter_task(loop, task)
    try:
        yielded = context.run(coroutine.send, None)
    finally:
        _leave_task(loop, task)
        if sender is not None:
            _enter_task(loop, sender)
    if yielded is not None:
        # How a future says to the task it is yielded to that it was awaited. That task sees it later: until then others
        # must be able to await the same future, and ``Steps`` says it again.
        yielded._asyncio_future_blocking = False
    return yielded
