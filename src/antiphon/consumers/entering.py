"""How a connection becomes a member of a group: from now on, or with what it missed. Knows no engine."""

from __future__ import annotations

from typing import TYPE_CHECKING

from ..names import group_topic
from ..types import Position
from .join_result import JoinResult

if TYPE_CHECKING:
    from .handling import Handling

__all__ = ["enter"]


async def enter(connection: Handling, group: str, since: Position | None) -> JoinResult:
    """Make a connection a member of a group; what it missed waits in its mailbox when this returns."""
    node, mailbox, topic = connection.node, connection.mailbox, group_topic(group)
    assert node is not None  # noqa: S101  # for types: it is called only where the layer is ours
    if since is None:
        await node.join(topic, mailbox, appear=False)
        position = node.position(topic) if topic in mailbox.topics else None
        if position is not None:
            connection.note(group, position)
        return JoinResult(group, None, position)
    newest = connection.consumer.channel_layer.group_options(group).recovery == "cache"
    found = await node.recover(topic, mailbox, since, newest=newest, author=mailbox.user)
    if found.position is None:
        return JoinResult(group)
    # Without a turn of the loop in between: what is delivered live from now on stands behind it.
    node.hub.replay(mailbox, found.envelopes)
    connection.note(group, since if found.envelopes else found.position)
    return JoinResult(group, found.recovered, found.position, len(found.envelopes))
