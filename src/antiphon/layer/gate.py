"""What a node lets in of the bytes that other processes send: opened if sealed, once, and in order. Knows no member.

A message is sent again when nobody knows whether the first one arrived, and says so. The messages of one lane on one
topic arrive in the order of their counts, so remembering the last count of each lane is enough to know one again. The
first one may come after the second: what a server that was wedged finds in its sockets when it goes on. So the last
count that was sent again is remembered, too. One that nobody sent again and that comes after later ones is from a
connection that its sender had given up; its sender went on without it, and so do we.
"""

from __future__ import annotations

import time
from typing import TYPE_CHECKING

from ..envelope import FLAG_AGAIN, HeadedEnvelope

if TYPE_CHECKING:
    from .cipher import Cipher

__all__ = ["Gate"]

# A message sent again may come so long after the first one, at least: what a lane said is remembered as long.
KEEP_S = 60.0
# Lanes of one topic. Threads come and go: so many are remembered whatever their age, and never more than so many, in
# two generations, which costs nothing a message.
LANES_MIN, LANES_MAX = 64, 20_000


class Gate:
    """One node's gate.

    ``duplicates``: messages that were sent again and had arrived already. ``late``: {topic: when the first was sent} of
    messages that came after later ones of their lane, for whoever tells of losses, and clears it.
    """

    __slots__ = ("_again", "_before", "_cipher", "_keep_s", "_lanes", "_turned_s", "duplicates", "late")

    def __init__(self, cipher: Cipher | None = None, keep_s: float = KEEP_S) -> None:
        self.duplicates = 0
        self.late: dict[str, float] = {}
        self._cipher = cipher
        self._keep_s = max(keep_s, KEEP_S)
        # topic -> lane -> its last count; the generation before, and when it ended.
        self._lanes: dict[str, dict[bytes, bytes]] = {}
        self._before: dict[str, dict[bytes, bytes]] = {}
        self._turned_s: dict[str, float] = {}
        # topic -> lane -> (the last count that was sent again, when), the oldest first.
        self._again: dict[str, dict[bytes, tuple[bytes, float]]] = {}

    def __repr__(self) -> str:
        return f"<Gate {len(self._lanes)} topics, {self.duplicates} duplicates>"

    def open(self, envelope: HeadedEnvelope) -> None:
        """Open the body, if it is sealed. ValueError for one that is not ours."""
        if self._cipher is not None:
            if not envelope.encrypted:
                raise ValueError("the body is not encrypted, and this layer has symmetric_encryption_keys")
            envelope.body = self._cipher.open(envelope.topic, envelope.header, envelope.body)
        elif envelope.encrypted:
            raise ValueError("the body is encrypted, and this layer has no symmetric_encryption_keys")

    def admit(self, envelope: HeadedEnvelope) -> bool:
        """Open the body; False when this message, or a later one, has been here. ValueError for one that is not ours."""
        self.open(envelope)
        payload, topic = envelope.payload, envelope.topic
        try:
            lanes = self._lanes[topic]
        except KeyError:
            lanes = self._lanes[topic] = {}
        lane, n = payload[4:12], payload[12:20]
        last = lanes.get(lane)
        if last is None:
            last = self._before.get(topic, {}).get(lane, b"") if self._before else b""
        # Big endian: bytes compare as the numbers do.
        if payload[3] & FLAG_AGAIN:
            self._remember_again(topic, lane, n, envelope.arrived_s)
            if last >= n:
                self.duplicates += 1
                return False
        elif self._again and self._again.get(topic, {}).get(lane, _NEVER)[0] >= n:
            self.duplicates += 1
            return False
        elif last > n:
            sent_s = min(envelope.sent_us / 1e6, time.time())
            self.late[topic] = min(sent_s, self.late.get(topic, sent_s))
            return False
        lanes[lane] = n
        if len(lanes) > LANES_MIN:
            self._turn(topic, lanes, envelope.arrived_s)
        return True

    def _turn(self, topic: str, lanes: dict[bytes, bytes], now: float) -> None:
        """Begin a new generation of lanes, and forget the one before the last, when that is old enough."""
        if len(lanes) > LANES_MAX or now - self._turned_s.setdefault(topic, now) >= self._keep_s:
            self._turned_s[topic] = now
            self._before[topic] = lanes
            self._lanes[topic] = {}

    def _remember_again(self, topic: str, lane: bytes, n: bytes, now: float) -> None:
        again = self._again.setdefault(topic, {})
        before, _ = again.pop(lane, _NEVER)
        again[lane] = (max(before, n), now)  # the youngest stand last
        while (oldest := next(iter(again.items())))[1][1] < now - self._keep_s or len(again) > LANES_MAX:
            del again[oldest[0]]

    def forget(self, topic: str) -> None:
        """Forget a topic that has no member left."""
        for table in (self._lanes, self._before, self._turned_s, self._again):
            table.pop(topic, None)


_NEVER = (b"", 0.0)
