"""Whose connection it is: found at the beginning, looked at again when they log in or out, and at intervals."""

from __future__ import annotations

import asyncio
import logging
from typing import TYPE_CHECKING

from .. import framework
from ..names import user_topic

if TYPE_CHECKING:
    from .handling import Handling

__all__ = ["Identity", "over_user_limit"]

logger = logging.getLogger("antiphon.consumer")


class Identity:
    """What there is to do about the identity of one connection after its beginning. Most have none of it."""

    __slots__ = ("_connection", "_joiner", "_timer", "due")

    def __init__(self, connection: Handling) -> None:
        self._connection = connection
        self._joiner: asyncio.Task[None] | None = None
        self._timer: asyncio.TimerHandle | None = None
        self.due = False  # a check is

    def __repr__(self) -> str:
        return f"<Identity of {self._connection!r}{' due' if self.due else ''}>"

    def look_again(self) -> None:
        """Find out anew who the user is, on the connection's loop."""
        connection = self._connection
        node, mailbox, before = connection.node, connection.mailbox, connection.mailbox.user
        if node is None or connection.gone:
            return
        node.hub.identify(mailbox, *framework.current().identity(connection.scope))
        if mailbox.user != before:
            node.appear_anew(mailbox)
        if connection.consumer.user_channel and mailbox.user != before:
            if before is not None:
                node.leave(user_topic(before), mailbox)
            if mailbox.user is not None:
                self._joiner = mailbox.loop.create_task(node.join(user_topic(mailbox.user), mailbox))

    def check_later(self) -> None:
        """Have session and user checked in ``revalidate_interval_s`` seconds."""
        connection = self._connection
        if self._timer is not None:
            self._timer.cancel()
        self._timer = connection.mailbox.loop.call_later(connection.limits.revalidate_s or 0.0, self.check_now)

    def check_now(self) -> None:
        """Have session and user checked as soon as no handler runs."""
        self.due = True
        self._connection.call()

    async def check(self) -> None:
        """Check session and user; what is not valid any more is closed."""
        self.due = False
        connection = self._connection
        try:
            reason = await framework.current().revalidate(connection.scope)
        except Exception:
            # Not knowing is no reason to throw people out; the next check is due in its turn.
            logger.exception("Could not check session and user of a %s again", type(connection.consumer).__qualname__)
            reason = None
        if reason is not None:
            connection.mailbox.ask_close(reason)
        elif connection.limits.revalidate_s:
            self.check_later()

    def stop(self) -> asyncio.Task[None] | None:
        """End it; return the task that may still run."""
        if self._timer is not None:
            self._timer.cancel()
        return self._joiner


def over_user_limit(connection: Handling) -> bool:
    """Say whether the user has more connections than allowed. The newest is refused: whoever is connected stays so."""
    limit, user = connection.limits.per_user, connection.mailbox.user
    if limit is None or user is None or connection.node is None:
        return False
    return len(connection.node.hub.by_identity("user", user)) > limit
