"""``Desk``: where the requests of one node's streams arrive, from whichever process took them. Knows sessions by name.

One mailbox a node, of a kind that only such requests are addressed to: what an outsider writes into a request can reach
no other.
"""

from __future__ import annotations

import logging
import re
from typing import TYPE_CHECKING, Protocol
from weakref import WeakKeyDictionary

from ..envelope import Envelope
from ..layer.mailbox import Mailbox
from ..layer.node import Node
from ..names import node_of

if TYPE_CHECKING:
    from .consumer import SubscriptionConsumer

__all__ = ["COMMANDS", "Desk", "channel_of", "desk_of"]

logger = logging.getLogger("antiphon.consumer")

# The type of the message that brings a client's commands.
COMMANDS = "antiphon.commands"
# Requests that may wait: they wait for a turn of the loop alone.
CAPACITY = 10_000

_PREFIX = "streams."
_NAME = re.compile(r"[0-9a-f]{12}\.[0-9a-f]{1,16}")


class Brings(Protocol):
    """Who has a session."""

    def bring(self, frame: str, /) -> None:
        """Take commands."""


class Desk:
    """The sessions of one node. ``name``: what clients call it."""

    def __init__(self, node: Node, mailbox: Mailbox) -> None:
        self.sessions: dict[str, Brings] = {}
        self.name = f"{node_of(mailbox.channel)}.{mailbox.channel.rpartition('!')[2]}"
        self._node = node
        self._mailbox = mailbox
        self._task = node.loop.create_task(self._run(), name=f"antiphon streams {node.id}")

    def __repr__(self) -> str:
        return f"<Desk {self.name} {len(self.sessions)} sessions>"

    async def _run(self) -> None:
        while True:
            self._take(await self._mailbox.get(self._node.hub.expired))

    def _take(self, envelope: Envelope) -> None:
        try:
            message = envelope.message()
            session, data = message["session"], message["data"]
        except (ValueError, TypeError, KeyError) as exc:
            logger.warning("What came for the streams of %s was not theirs: %r", self.name, exc)
            return
        found = self.sessions.get(session) if isinstance(session, str) and isinstance(data, str) else None
        if found is not None:  # else its stream has ended, which its client will see
            found.bring(data)

    def leave(self, session: str) -> None:
        """Forget a session; with the last one the desk is closed."""
        self.sessions.pop(session, None)
        if not self.sessions and _desks.get(self._node) is self:
            del _desks[self._node]
            self._task.cancel()
            self._node.close(self._mailbox)


_desks: WeakKeyDictionary[Node, Desk] = WeakKeyDictionary()


def desk_of(consumer: SubscriptionConsumer) -> Desk:
    """Return the desk of a consumer's node, opened at the first need."""
    node = consumer._antiphon.node
    assert node is not None  # noqa: S101  # for types: there are no clients without
    desk = _desks.get(node)
    if desk is None:
        _, mailbox = consumer.channel_layer.open_mailbox(
            "SubscriptionConsumer", capacity=CAPACITY, overflow="drop_new", prefix=_PREFIX
        )
        desk = _desks[node] = Desk(node, mailbox)
    return desk


def channel_of(name: str) -> str | None:
    """Return the channel of a desk, by the name that a client gave; None: it cannot be one."""
    if not _NAME.fullmatch(name):
        return None
    node, _, number = name.partition(".")
    return f"{_PREFIX}{node}!{number}"
