"""``Question``: a message that one consumer is to answer, and the calls that bring it there. Knows no engine."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Mapping
from typing import Any

from ..codec import decode, encode
from ..envelope import Envelope
from ..exceptions import AskFailed, ChannelFull
from .node import Node

__all__ = ["Question", "answered", "ask_here"]


class Question(Envelope):
    """A message with somebody who waits for what its handler returns."""

    __slots__ = ("answer",)

    def __init__(self, topic: str, body: bytes, answer: asyncio.Future[bytes]) -> None:
        super().__init__(topic, time.monotonic(), body)
        self.answer = answer

    def take(self, value: Any) -> None:
        """Take the handler's word; what does not encode fails here."""
        if not self.answer.done():
            self.answer.set_result(encode({"value": value}))

    def forsaken(self) -> None:
        """Tell whoever waits that nobody will answer."""
        self.fail("the connection that was asked has ended")

    def fail(self, why: str) -> None:
        """Say that there is no answer."""
        if not self.answer.done():
            self.answer.set_exception(AskFailed(why))


async def ask_here(node: Node, channel: str, body: bytes) -> bytes:
    """Put a question into the mailbox of a consumer of this node, and wait for the answer, encoded.

    Raises AskFailed when there is no such consumer, it has no handler for it, or the handler raised; ChannelFull.
    """
    hub = node.hub
    mailbox = hub.mailboxes.get(channel)
    if mailbox is None or mailbox.owner is None:
        raise AskFailed(f"no consumer has the channel {channel!r} (any more)")
    if len(mailbox.queue) >= mailbox.capacity and not hub.make_room(mailbox):
        raise ChannelFull(channel)
    answer: asyncio.Future[bytes] = node.loop.create_future()
    question = Question(node.inbox, body, answer)
    if not hub.put(mailbox, question):
        raise AskFailed(f"the connection of {channel!r} is being closed")
    hub.delivered += 1
    try:
        return await answer
    finally:
        if question in mailbox.queue:  # whoever asked has given up
            mailbox.queue.remove(question)


def answered(answer: bytes) -> Any:
    """Return what an encoded answer says."""
    value: Mapping[str, Any] = decode(answer)
    return value["value"]
