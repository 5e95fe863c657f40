"""Two small functions that code written for Channels imports from ``channels.utils``. Nothing of Antiphon uses them."""

from __future__ import annotations

import asyncio
import types
from collections.abc import Awaitable, Callable, Sequence
from typing import Any

__all__ = ["await_many_dispatch", "name_that_thing"]


def name_that_thing(thing: object) -> str:
    """Return the dotted path of a class, function or method; of any other object, the path of its class."""
    if isinstance(thing, types.MethodType):
        owner = thing.__self__ if isinstance(thing.__self__, type) else type(thing.__self__)
        return f"{owner.__module__}.{owner.__name__}.{thing.__name__}"
    named = thing if isinstance(thing, (type, types.FunctionType)) else type(thing)
    return f"{named.__module__}.{named.__name__}"


async def await_many_dispatch(
    consumer_callables: Sequence[Callable[[], Awaitable[Any]]], dispatch: Callable[[Any], Awaitable[object]]
) -> None:
    """Await all sources at once and pass what they give to ``dispatch``, one at a time, until something raises.

    Takes callables without arguments, each returning an awaitable (a coroutine or a future), which are called again
    after each result. On the way out the awaitables that are still pending are cancelled and waited for.
    """
    pending = [asyncio.ensure_future(source()) for source in consumer_callables]
    try:
        while True:
            await asyncio.wait(pending, return_when=asyncio.FIRST_COMPLETED)
            for index, future in enumerate(pending):
                if future.done():
                    await dispatch(future.result())
                    pending[index] = asyncio.ensure_future(consumer_callables[index]())
    finally:
        for future in pending:
            future.cancel()
        # Their errors are retrieved here and go no further: what ended the loop is what the caller has to see.
        await asyncio.gather(*pending, return_exceptions=True)
