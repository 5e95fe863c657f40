"""Who has had a message that comes on several topics. Knows ids and mailboxes, and nothing of topics."""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Iterable

from .mailbox import Mailbox

__all__ = ["Copies"]

# Copies are told apart for this many messages.
_MAX = 1024


class Copies:
    """The mailboxes that had the latest messages of several topics, by the message's id."""

    __slots__ = ("_had",)

    def __init__(self) -> None:
        self._had: OrderedDict[tuple[int, int], set[str]] = OrderedDict()

    def __repr__(self) -> str:
        return f"<Copies of {len(self._had)} messages>"

    def first(self, message: tuple[int, int], mailboxes: Iterable[Mailbox]) -> list[Mailbox]:
        """Return those of ``mailboxes`` that have not had a copy, and note that they have now."""
        had = self._had.setdefault(message, set())
        chosen = [mailbox for mailbox in mailboxes if mailbox.every_copy or mailbox.channel not in had]
        had.update(mailbox.channel for mailbox in chosen)
        while len(self._had) > _MAX:
            self._had.popitem(last=False)
        return chosen
