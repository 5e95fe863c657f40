"""What a node lets in of the bytes that other processes send: opened if sealed, and each message once. Knows no member.

A message is sent again when nobody knows whether the first one arrived, and says so. The messages of one lane on one
topic arrive in the order of their counts, so remembering the last count of each lane is enough to know one again. The
first one may come after the second: what a server that was wedged finds in its sockets when it goes on. So the last
count that was sent again is remembered, too.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from ..envelope import FLAG_AGAIN, HeadedEnvelope

if TYPE_CHECKING:
    from .cipher import Cipher

__all__ = ["Gate"]

# Lanes that are remembered of one topic. Threads come and go: those that were silent while so many others spoke are
# forgotten, in two generations, which costs nothing a message.
LANES_MAX = 64


class Gate:
    """One node's gate. ``duplicates``: messages that were sent again and had arrived already."""

    __slots__ = ("_again", "_before", "_cipher", "_lanes", "duplicates")

    def __init__(self, cipher: Cipher | None = None) -> None:
        self.duplicates = 0
        self._cipher = cipher
        self._lanes: dict[str, dict[bytes, bytes]] = {}
        self._before: dict[str, dict[bytes, bytes]] = {}
        self._again: dict[str, dict[bytes, bytes]] = {}

    def __repr__(self) -> str:
        return f"<Gate {len(self._lanes)} topics, {self.duplicates} duplicates>"

    def admit(self, envelope: HeadedEnvelope) -> bool:
        """Open the body; False when this message has been here. Raises ValueError for one that is not ours."""
        payload = envelope.payload
        if self._cipher is not None:
            if not envelope.encrypted:
                raise ValueError("the body is not encrypted, and this layer has symmetric_encryption_keys")
            envelope.body = self._cipher.open(envelope.topic, envelope.header, envelope.body)
        elif envelope.encrypted:
            raise ValueError("the body is encrypted, and this layer has no symmetric_encryption_keys")
        try:
            lanes = self._lanes[envelope.topic]
        except KeyError:
            lanes = self._lanes[envelope.topic] = {}
        lane, n = payload[4:12], payload[12:20]
        # Big endian: bytes compare as the numbers do.
        if payload[3] & FLAG_AGAIN:
            again = self._again.setdefault(envelope.topic, {})
            again[lane] = max(again.get(lane, b""), n)
            if len(again) > LANES_MAX:
                del again[next(iter(again))]
            if (lanes.get(lane) or self._before.get(envelope.topic, {}).get(lane, b"")) >= n:
                self.duplicates += 1
                return False
        elif self._again and self._again.get(envelope.topic, {}).get(lane, b"") >= n:
            self.duplicates += 1
            return False
        lanes[lane] = n
        if len(lanes) > LANES_MAX:
            self._before[envelope.topic] = lanes
            self._lanes[envelope.topic] = {}
        return True

    def forget(self, topic: str) -> None:
        """Forget a topic that has no member left."""
        self._lanes.pop(topic, None)
        self._before.pop(topic, None)
        self._again.pop(topic, None)
