"""What becomes of a group's messages on their way to subscribed clients. Writes nothing itself.

A publication is the same bytes for all subscribers of a channel, so the hub asks ``Pushes`` once for all of them and
writes to their sockets straight. What is not the same for all comes to each connection's ``OwnPushes``.
"""

from __future__ import annotations

import logging
from collections.abc import Iterable, Mapping
from functools import partial
from typing import TYPE_CHECKING, Any

from ..consumers.handlers import markers_of
from ..envelope import MARKER, Envelope
from ..layer.mailbox import NOTHING, Failed
from ..types import Position
from ..wire.centrifuge.writing import encode, publication, publication_push
from ..wire.prebuilt import Prebuilt

if TYPE_CHECKING:
    from .client import Client

__all__ = ["MARKERS", "PUBLICATION", "OwnPushes", "Pushes", "publication_of", "sayable"]

logger = logging.getLogger("antiphon.consumer")

# The type of what clients publish; an application may send it too.
PUBLICATION = "publication"

# What a layer says by itself to the members of a group.
MARKERS = frozenset(("group.lost", "group.epoch", "presence.join", "presence.leave", "antiphon.unsubscribe"))


def publication_of(message: Mapping[str, Any], position: Position | None) -> dict[str, Any]:
    """Return a group's message as a publication: of type ``publication`` its data, of any other all of it."""
    offset = position.offset if position is not None else None
    if message.get("type") == PUBLICATION and "data" in message:
        info, tags = message.get("info"), message.get("tags")
        return publication(
            message["data"],
            offset,
            info=info if isinstance(info, Mapping) else None,
            tags=tags if isinstance(tags, Mapping) else None,
        )
    return publication(message, offset)


def sayable(publications: Iterable[dict[str, Any]], group: str) -> list[dict[str, Any]]:
    """Return those of a history's publications that JSON can hold: what was not pushed is not recovered either."""
    found = []
    for each in publications:
        try:
            encode(each)
        except (TypeError, ValueError) as exc:
            logger.error("A message in the history of group %r cannot be told in JSON: %r", group, exc)
        else:
            found.append(each)
    return found


class Pushes:
    """The publications of one consumer class, as the hub asks for them (``layer.mailbox.Relays``)."""

    __slots__ = ("owner",)

    def __init__(self, owner: str) -> None:
        self.owner = owner

    def __repr__(self) -> str:
        return f"<Pushes of {self.owner}>"

    def outcome(self, envelope: Envelope) -> Any:
        """Return the push for all subscribers, or Failed; None: each connection must see to it."""
        group = envelope.group
        return None if group is None else self.to(group, envelope)

    def to(self, channel: str, envelope: Envelope) -> Any:
        """Return the push to the subscribers of ``channel``; None for what is no publication."""
        if envelope.kind == MARKER:
            return None
        try:
            return envelope.once((self, channel), partial(self._push, channel, envelope.position))
        except ValueError:
            return None  # no message at all: the reader's own way says so

    def _push(self, channel: str, position: Position | None, message: Any) -> Any:
        if not isinstance(message, dict) or message.get("type") in MARKERS:
            return None
        try:
            return Prebuilt(publication_push(channel, publication_of(message, position)))
        except Exception as exc:
            logger.error(
                "%s could not push a message of type %.80r to channel %r: %r; nobody got it. JSON must be able to hold it",
                self.owner,
                message.get("type"),
                channel,
                exc,
                extra={"consumer": self.owner, "handler": "publication"},
            )
            return Failed(exc)


class OwnPushes:
    """What one connection makes of what arrives for it."""

    __slots__ = ("_client", "_streams", "owner", "shared")

    def __init__(self, client: Client, shared: Pushes) -> None:
        self._client = client
        self._streams = client.connection.kind == "http"  # what is shared is framed for WebSockets
        self.shared = shared
        self.owner = shared.owner

    def __repr__(self) -> str:
        return f"<OwnPushes of {self.owner}>"

    def outcome(self, envelope: Envelope) -> Any:
        """Return what goes to this client, NOTHING or Failed; None: it is for a handler of the application's."""
        group = envelope.group
        if group is None:
            return None
        subscription = self._client.groups.get(group)
        if subscription is None:
            return self._unsubscribed(envelope)
        if envelope.kind == MARKER:
            return self._told(envelope)
        position = envelope.position
        if position is not None and position.epoch != subscription.epoch:
            return self._client.framed(self._client.cut_off(subscription, "insufficient_state"))
        push = self.shared.to(subscription.channel, envelope)
        if push is None:
            return self._told(envelope)
        return self._client.framed(str(push.value)) if self._streams and isinstance(push, Prebuilt) else push

    def _unsubscribed(self, envelope: Envelope) -> Any:
        """Leave a message to the application's handlers, but not what it has asked nobody to tell it."""
        try:
            kind = envelope.message().get("type")
        except (ValueError, AttributeError):
            return None
        return NOTHING if kind in MARKERS and kind not in markers_of(type(self._client.consumer)) else None

    def _told(self, envelope: Envelope) -> Any:
        try:
            message = envelope.message()
        except ValueError:
            return None
        text = self._client.told(envelope.group or "", message)
        return NOTHING if text is None else self._client.framed(text)
