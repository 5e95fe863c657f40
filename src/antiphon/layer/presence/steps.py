"""``Step``: one change on its way to a store of presence. Does no I/O."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Iterable
from typing import Any

from ...engines.base import Change

__all__ = ["Step", "all_of", "finish"]


class Step:
    """A change on its way to the store. ``quiet``: an entry that was there before, so nobody is told."""

    __slots__ = ("change", "done", "quiet")

    def __init__(self, change: Change, done: asyncio.Future[None] | None = None, *, quiet: bool = False) -> None:
        self.change = change
        self.done = done
        self.quiet = quiet

    def __repr__(self) -> str:
        return f"<Step {'enters' if self.change.enters else 'leaves'} {self.change.present.channel}>"


def finish(steps: Iterable[Step]) -> None:
    """Let go who waits for them."""
    for step in steps:
        if step.done is not None and not step.done.done():
            step.done.set_result(None)


async def all_of(calls: Iterable[Awaitable[Any]]) -> None:
    """Wait for all, then raise the first error."""
    for result in await asyncio.gather(*calls, return_exceptions=True):
        if isinstance(result, BaseException):
            raise result
