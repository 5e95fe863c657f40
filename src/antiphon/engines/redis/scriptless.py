"""``Scriptless``: appends that a server refused because it has forgotten their script. Knows no link.

SCRIPT FLUSH may come at any time. What was refused has not run; it goes again, before whatever was sent after it: so
nothing new is sent from the first refusal until the last answer to what was under way then.
"""

from __future__ import annotations

from collections import deque

from .append import Append
from .connection import Connection, look
from .history_scripts import APPEND

__all__ = ["Scriptless"]


class Scriptless:
    """The appends of one link that wait for their script."""

    def __init__(self) -> None:
        self._waiting: deque[Append] = deque()  # refused, then held back
        self._refused = 0
        self._connection: Connection | None = None

    def __repr__(self) -> str:
        return f"<Scriptless {len(self._waiting)} waiting>"

    @property
    def holds(self) -> bool:
        """Whether what is sent now has to wait."""
        return self._connection is not None

    def hold(self, append: Append) -> None:
        """Let an append wait, in line."""
        self._waiting.append(append)

    def refused(self, append: Append, connection: Connection) -> None:
        """Take an append that ``connection`` refused; the first has the script loaded."""
        if self._connection is None:
            self._connection = connection
            connection.call("SCRIPT", "LOAD", APPEND.text).add_done_callback(look)
        self._waiting.insert(self._refused, append)
        self._refused += 1

    def ready(self) -> deque[Append]:
        """Return what may be sent again now: nothing while an answer is still to come."""
        connection = self._connection
        if connection is None or any(isinstance(entry, Append) for entry in connection.pending):
            return deque()
        return deque(append for append in self.give_up() if not append.future.done())

    def give_up(self) -> deque[Append]:
        """Return all that waits, in order: the connection has ended."""
        waiting, self._waiting = self._waiting, deque()
        self._connection, self._refused = None, 0
        return waiting
