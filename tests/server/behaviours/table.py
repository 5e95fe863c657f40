"""Every row of the table, in its order, and how one is run on servers that rows share."""

from __future__ import annotations

import contextlib
from typing import Self

from . import endings, nonsense, pressure
from .running import Kind, Server, running
from .verdict import Row, Verdict

__all__ = ["ROWS", "Bench"]

ROWS = (*endings.ROWS, *pressure.ROWS, *nonsense.ROWS)


class Bench:
    """Runs rows on one kind of server, with a process for those that want one alone and two for all others."""

    def __init__(self, kind: Kind, python: str, patience_s: float) -> None:
        self.kind = kind
        self.python = python
        self.patience_s = patience_s
        self._shared: dict[bool, Server] = {}
        self._stack = contextlib.AsyncExitStack()

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(self, *_: object) -> None:
        await self._stack.aclose()

    def _running(self, row: Row) -> contextlib.AbstractAsyncContextManager[Server]:
        return running(self.kind, self.python, hasty=row.hasty, patience_s=self.patience_s)

    async def verdict(self, row: Row, side: str) -> Verdict:
        """Run one row."""
        if row.alone:
            async with self._running(row) as alone:
                return await row.probe(alone, side)
        server = self._shared.get(row.hasty)
        if server is None or server.process.poll() is not None:
            server = self._shared[row.hasty] = await self._stack.enter_async_context(self._running(row))
        return await row.probe(server, side)

    def warned(self) -> bool:
        """Say whether a server that rows share has warned of its gaps."""
        return any("warning" in server.seen("log") for server in self._shared.values())
