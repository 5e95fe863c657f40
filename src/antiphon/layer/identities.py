"""Whose connections the mailboxes of a node belong to: (user or session) -> mailboxes. Knows no message."""

from __future__ import annotations

from time import monotonic

from .mailbox import Mailbox

__all__ = ["Identities"]


class Identities:
    """The mailboxes of one node by user and by session."""

    __slots__ = ("_boxes",)

    def __init__(self) -> None:
        self._boxes: dict[tuple[str, str], dict[str, Mailbox]] = {}

    def __repr__(self) -> str:
        return f"<Identities of {len(self._boxes)} users and sessions>"

    def set(self, mailbox: Mailbox, user: str | None, session: str | None, let_in_s: float | None = None) -> None:
        """Say whose connection a mailbox belongs to. ``let_in_s``: when they were let in (monotonic), if not now."""
        mailbox.let_in_s = monotonic() if let_in_s is None else let_in_s
        for kind, old, new in (("user", mailbox.user, user), ("session", mailbox.session, session)):
            if old == new:
                continue
            if old is not None:
                boxes = self._boxes[kind, old]
                boxes.pop(mailbox.channel, None)
                if not boxes:
                    del self._boxes[kind, old]
            if new is not None:
                self._boxes.setdefault((kind, new), {})[mailbox.channel] = mailbox
        mailbox.user, mailbox.session = user, session

    def of(self, kind: str, key: str) -> list[Mailbox]:
        """Return the mailboxes of a user or a session (``kind``)."""
        return list(self._boxes.get((kind, key), {}).values())
