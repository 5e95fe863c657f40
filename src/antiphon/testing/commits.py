"""The commit hooks that wait in a test's transaction, which never commits. Imports Django when there is any."""

from __future__ import annotations

import logging
from typing import Any

from .. import framework

__all__ = ["CommitHooks"]

logger = logging.getLogger("antiphon.testing")


class CommitHooks:
    """The ``on_commit`` hooks registered since this was made, of one database of this thread."""

    def __init__(self, database: str = "default") -> None:
        self.database = database
        self._connection = _connection(database)
        self._first = 0 if self._connection is None else len(self._connection.run_on_commit)

    def __repr__(self) -> str:
        return f"<CommitHooks of {self.database!r}: {self.waiting} waiting>"

    @property
    def waiting(self) -> int:
        """How many hooks wait now."""
        connection, first = self._now()
        return 0 if connection is None else max(len(connection.run_on_commit) - first, 0)

    def run(self) -> int:
        """Run the hooks as a commit would, with those they register in turn; return how many ran.

        A hook that is not robust raises out of here, and the ones after it still wait.
        """
        connection, first = self._now()
        ran = 0
        while connection is not None and len(connection.run_on_commit) > first:
            _, hook, robust = connection.run_on_commit.pop(first)
            ran += 1
            try:
                hook()
            except Exception:
                if not robust:
                    raise
                logger.exception("A robust on_commit hook failed: %r", hook)
        return ran

    def _now(self) -> tuple[Any, int]:
        # Asynchronous tests have their transaction on another thread than their set-up: nothing there is older.
        connection = _connection(self.database)
        return connection, (self._first if connection is self._connection else 0)


def _connection(database: str) -> Any:
    if framework.current().name != "django":
        return None
    from django.db import connections

    return connections[database]
