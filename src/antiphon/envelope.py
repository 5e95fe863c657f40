"""The header that travels with each message, which a hub reads without decoding the body. Version 1.

    byte 0      magic 0xA7
    byte 1      version
    byte 2      kind: 0 message, 1 control, 2 marker
    byte 3      flags: 1 an extra section follows the fixed part; 2 the body is encrypted; 4 it is sent again, because
                nobody knows whether the first one arrived
    4-11        lane     unsigned, big endian: who sent it
    12-19       n        unsigned, big endian: the lane's own count; (lane, n) is the message's id
    20-27       sent_us  unsigned, big endian: microseconds since the epoch, by the sender's clock
    extra       4 bytes length, then a msgpack map: "t" topics, "x" excluded channels, "k" conflation key,
                "a" author, "h" headers (trace context), "g" the group's name where the topic does not tell,
                "c" the one channel that it is for, "y" the type of a marker: what a layer says to members by itself
    rest        the body

A release reads the version before its own; unknown versions, kinds and flags are refused, and the hub counts them.
Golden bytes in the tests hold this layout.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from struct import Struct
from types import MappingProxyType
from typing import Any

from . import codec
from .types import Position

__all__ = [
    "CONTROL",
    "FLAG_AGAIN",
    "FLAG_ENCRYPTED",
    "MARKER",
    "MESSAGE",
    "Envelope",
    "HeadedEnvelope",
    "mark_again",
    "pack",
    "unpack",
]

MAGIC = 0xA7
VERSION = 1
MESSAGE, CONTROL, MARKER = 0, 1, 2
_KINDS = frozenset((MESSAGE, CONTROL, MARKER))
FLAG_EXTRA = 1
FLAG_ENCRYPTED = 2
FLAG_AGAIN = 4
_KNOWN_FLAGS = FLAG_EXTRA | FLAG_ENCRYPTED | FLAG_AGAIN

_FIXED = Struct(">BBBBQQQ")
_IDENTITY = Struct(">QQQ")
_LENGTH = Struct(">I")
_HEAD = _FIXED.size
# How a message without extras begins: what nearly all are. One comparison stands for four checks.
_PLAIN = bytes((MAGIC, VERSION, MESSAGE, 0))
_NO_EXTRA: Mapping[str, Any] = MappingProxyType({})


class Envelope:
    """One message as a node holds it. Its members share it: nothing in it may be changed by a receiver.

    ``topic``: what it arrived on. ``arrived_s``: when, by the node's own clock (monotonic seconds). ``position``: its
    place in the group's history, if the group has one. This class is the
    whole of a message that never left its loop; one that came through an engine is a ``HeadedEnvelope``.
    """

    __slots__ = ("_decoded", "_kept", "arrived_s", "body", "topic")

    _kept: dict[object, Any]

    kind = MESSAGE
    payload = b""
    extra: Mapping[str, Any] = _NO_EXTRA
    position: Position | None = None

    def __init__(self, topic: str, arrived_s: float, body: bytes) -> None:
        self.topic = topic
        self.arrived_s = arrived_s
        self.body = body

    def __repr__(self) -> str:
        return f"<Envelope on {self.topic!r} {len(self.body)} bytes>"

    @property
    def group(self) -> str | None:
        """The name of the group that it was sent to, if it was."""
        return self.topic[2:] if self.topic[:2] == "g:" else None

    def forsaken(self) -> None:
        """Learn that nobody will take it: whoever took it into its mailbox has gone."""

    def message(self) -> Any:
        """Decode the body: a fresh object at each call."""
        return codec.decode(self.body)

    def shared_message(self) -> Any:
        """Decode the body once for all who promise not to change it."""
        try:
            return self._decoded
        except AttributeError:
            self._decoded: Any = codec.decode(self.body)
            return self._decoded

    def once(self, key: object, make: Callable[[Any], Any]) -> Any:
        """Return ``make(message)``, made once a ``key`` for all who share this envelope. Raises what ``make`` does."""
        try:
            kept = self._kept
        except AttributeError:
            kept = self._kept = {}
        if key not in kept:
            kept[key] = make(self.message())
        return kept[key]


class HeadedEnvelope(Envelope):
    """A message with its header, as an engine brought it."""

    __slots__ = ("extra", "kind", "payload", "position")

    position: Position | None

    def __init__(  # the fixed part stays packed in ``payload``: few ever ask for it
        self,
        topic: str,
        arrived_s: float,
        body: bytes,
        kind: int,
        payload: bytes,
        extra: Mapping[str, Any],
        position: Position | None = None,
    ) -> None:
        super().__init__(topic, arrived_s, body)
        self.kind = kind
        self.payload = payload
        self.extra = extra
        self.position = position

    def __repr__(self) -> str:
        lane, n = self.id
        return f"<HeadedEnvelope {lane:x}:{n} on {self.topic!r} {len(self.body)} bytes extra={dict(self.extra)!r}>"

    @property
    def id(self) -> tuple[int, int]:
        """The message's id: (lane, n)."""
        lane, n, _ = _IDENTITY.unpack_from(self.payload, 4)
        return lane, n

    @property
    def encrypted(self) -> bool:
        """Whether the body is sealed."""
        return bool(self.payload[3] & FLAG_ENCRYPTED)

    @property
    def header(self) -> bytes:
        """What stands before the body, as it was sent the first time: what a sealed body is bound to."""
        head = self.payload[: len(self.payload) - len(self.body)]
        return b"%b%c%b" % (head[:3], head[3] & ~FLAG_AGAIN, head[4:])

    @property
    def sent_us(self) -> int:
        """When it was sent, microseconds since the epoch by the sender's clock."""
        sent: int = _IDENTITY.unpack_from(self.payload, 4)[2]
        return sent


def pack(
    kind: int,
    lane: int,
    n: int,
    sent_us: int,
    body: bytes,
    extra: dict[str, Any] | None = None,
    seal: Callable[[bytes, bytes], bytes] | None = None,
) -> bytes:
    """Return the bytes of an envelope. ``seal(header, body)`` returns what to send in place of the body, encrypted."""
    flags = FLAG_ENCRYPTED if seal is not None else 0
    if not extra:
        head = _FIXED.pack(MAGIC, VERSION, kind, flags, lane, n, sent_us)
    else:
        section = codec.encode(extra)
        fixed = _FIXED.pack(MAGIC, VERSION, kind, flags | FLAG_EXTRA, lane, n, sent_us)
        head = b"".join((fixed, _LENGTH.pack(len(section)), section))
    return head + (body if seal is None else seal(head, body))


def mark_again(payload: bytes) -> bytes:
    """Return the envelope as one that is sent again: a hub that has had it drops this one."""
    return b"%b%c%b" % (payload[:3], payload[3] | FLAG_AGAIN, payload[4:])


def unpack(payload: bytes, topic: str = "", arrived_s: float = 0.0, position: Position | None = None) -> HeadedEnvelope:
    """Read an envelope. Raises ValueError for anything that no release of ours can have sent."""
    if payload[:4] == _PLAIN and len(payload) >= _HEAD:
        return HeadedEnvelope(topic, arrived_s, payload[_HEAD:], MESSAGE, payload, _NO_EXTRA, position)
    if len(payload) < _HEAD:
        raise ValueError(f"an envelope has at least {_HEAD} bytes; got {len(payload)}")
    magic, version, kind, flags = payload[:4]
    if magic != MAGIC or version != VERSION:
        raise ValueError(f"expected magic {MAGIC:#x} version {VERSION}; got {magic:#x} version {version}")
    if flags & ~_KNOWN_FLAGS or kind not in _KINDS:
        raise ValueError(f"unknown kind {kind} or flags {flags:#x}")
    if not flags & FLAG_EXTRA:
        return HeadedEnvelope(topic, arrived_s, payload[_HEAD:], kind, payload, _NO_EXTRA, position)
    if len(payload) < _HEAD + 4:
        raise ValueError("the extra section is cut short")
    start = _HEAD + 4
    end = start + _LENGTH.unpack_from(payload, _HEAD)[0]
    if end > len(payload):
        raise ValueError("the extra section is cut short")
    extra = codec.decode(payload[start:end])
    if not isinstance(extra, dict):
        raise ValueError(f"the extra section is not a map but {type(extra).__name__}")
    _check_extra(extra)
    return HeadedEnvelope(topic, arrived_s, payload[end:], kind, payload, extra, position)


def _check_extra(extra: dict[str, Any]) -> None:
    # A hub looks these up in its tables: another type would raise there, in the middle of what arrived with it.
    for key in ("t", "x"):
        names = extra.get(key, [])
        if not isinstance(names, list) or not all(isinstance(name, str) for name in names):
            raise ValueError(f"the extra {key!r} is not a list of names: {names!r:.80}")
    for key, what in (("c", "a channel"), ("y", "the type of a marker"), ("a", "an author's key")):
        if not isinstance(extra.get(key, ""), str):
            raise ValueError(f"the extra {key!r} is not {what}: {extra[key]!r:.80}")
