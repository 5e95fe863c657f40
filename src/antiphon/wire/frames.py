"""WebSocket frames (RFC 6455): bytes for the client, and a reader of what a client sends. Does no I/O.

A server's frame is not masked, so one built once may be written to any number of sockets.
"""

from __future__ import annotations

from codecs import utf_8_decode
from collections.abc import Callable
from typing import Protocol

__all__ = [
    "BAD_DATA",
    "BINARY",
    "CLOSE",
    "NORMAL",
    "PING",
    "PONG",
    "TEXT",
    "TOO_BIG",
    "FrameError",
    "FrameReader",
    "close_frame",
    "frame",
    "small_text",
    "unmasked",
]

CONTINUATION, TEXT, BINARY, CLOSE, PING, PONG = 0x0, 0x1, 0x2, 0x8, 0x9, 0xA
_FIN, _RSV1, _RSV23, _MASKED = 0x80, 0x40, 0x30, 0x80
_WHOLE_TEXT = _FIN | TEXT
# https://www.rfc-editor.org/rfc/rfc6455#section-5.5
_CONTROL_MAX = 125
# Codes that may stand in a close frame: https://www.iana.org/assignments/websocket/
_CODES = frozenset((1000, 1001, 1002, 1003, *range(1007, 1015)))
NORMAL, PROTOCOL_ERROR, NO_STATUS, BAD_DATA, POLICY, TOO_BIG = 1000, 1002, 1005, 1007, 1008, 1009


class FrameError(Exception):
    """What a client may not send. ``code``, ``reason``: of the close frame that says so."""

    def __init__(self, code: int, reason: str) -> None:
        super().__init__(reason)
        self.code = code
        self.reason = reason


def frame(opcode: int, payload: bytes, *, compressed: bool = False) -> bytes:
    """Return one whole frame; ``compressed``: permessage-deflate made the payload."""
    first = _FIN | opcode | (_RSV1 if compressed else 0)
    size = len(payload)
    if size < 126:
        return bytes((first, size)) + payload
    if size < 1 << 16:
        return bytes((first, 126)) + size.to_bytes(2, "big") + payload
    return bytes((first, 127)) + size.to_bytes(8, "big") + payload


def close_frame(code: int | None, reason: str = "") -> bytes:
    """Return a close frame; a reason that is too long for one is cut. None: without a code.

    Raises ValueError for a code that may not be sent (RFC 6455, section 7.4).
    """
    if code is None or code == NO_STATUS:
        return frame(CLOSE, b"")
    if not _may_be_sent(code):
        raise ValueError(f"close code: expected 1000 to 1003, 1007 to 1014 or 3000 to 4999; got {code!r}")
    said = reason.encode("utf-8", "replace")[: _CONTROL_MAX - 2]
    return frame(CLOSE, code.to_bytes(2, "big") + said.decode("utf-8", "ignore").encode())


def _may_be_sent(code: int) -> bool:
    return code in _CODES or 3000 <= code < 5000


def unmasked(data: bytes, mask: bytes) -> bytes:
    """Return what a client has masked."""
    size = len(data)
    key = int.from_bytes((mask * (size // 4 + 1))[:size], "little")
    return (int.from_bytes(data, "little") ^ key).to_bytes(size, "little")


def small_text(data: bytes, max_bytes: int, unmask: Callable[[bytes, bytes], bytes] = unmasked) -> str | None:
    """Return the text of what is one whole frame of at most 125 bytes of text, as most reads are.

    None: it is something else, or may not be sent. A FrameReader says what, if none has anything in progress.
    """
    size = len(data) - 6
    if 0 < size < 126 and data[1] == size | _MASKED and data[0] == _WHOLE_TEXT and size <= max_bytes:
        try:
            return unmask(data[6:], data[2:6]).decode()
        except UnicodeDecodeError:
            return None
    return None


class Inflate(Protocol):
    """Decompresses one message. Raises FrameError: it is broken, or longer than allowed."""

    def __call__(self, data: bytes, max_bytes: int, /) -> bytes: ...


class FrameReader:
    """Turns a client's bytes into messages.

    They are (TEXT, str), (BINARY, bytes), (PING, bytes), (PONG, bytes) and (CLOSE, (code, reason)).
    ``max_bytes``: of one message, decompressed. ``max_fragments``: of one message. ``inflate``: where
    permessage-deflate was negotiated. Between messages it holds nothing.
    """

    __slots__ = ("_head", "_message", "inflate", "max_bytes", "max_fragments", "unmask")

    def __init__(
        self,
        max_bytes: int,
        max_fragments: int,
        inflate: Inflate | None = None,
        unmask: Callable[[bytes, bytes], bytes] = unmasked,
    ) -> None:
        self.max_bytes = max_bytes
        self.max_fragments = max_fragments
        self.inflate = inflate
        self.unmask = unmask
        # Of a frame whose head, or as a control frame whose payload, is not whole: 131 bytes at most. None: the end.
        self._head: bytes | None = b""
        self._message: _Message | None = None

    def __repr__(self) -> str:
        message = self._message
        held = len(self._head or b"") + (0 if message is None else len(message.data))
        return f"<FrameReader {'ended' if self._head is None else f'{held} bytes held'}>"

    def feed(self, data: bytes, found: list[tuple[int, object]]) -> None:
        """Take bytes and append to ``found`` what they complete; what follows a close frame is not read.

        Raises FrameError; what came before it is in ``found``, and nothing behind it is read.
        """
        head = self._head
        if head is None:
            return
        if head:
            data = head + data
        elif self._message is None:
            text = small_text(data, self.max_bytes, self.unmask)
            if text is not None:
                found.append((TEXT, text))
                return
        try:
            rest = self._frames(data, found)
        except FrameError:
            rest = None
            raise
        finally:
            self._head = rest
            if rest is None:
                self._message = None

    def _frames(self, data: bytes, found: list[tuple[int, object]]) -> bytes | None:
        """Read frames; return what the next needs more bytes of, None after a close frame."""
        start, end = 0, len(data)
        message = self._message
        if message is not None and message.left:
            start = self._go_on(message, data, 0, found)
        while end - start >= 2:
            first, second = data[start], data[start + 1]
            self._check(first, second)
            opcode, size, at = first & 0x0F, second & 0x7F, start + 6
            if size > _CONTROL_MAX:
                at += 2 if size == 126 else 8
                if end < at - 4:
                    break
                size = int.from_bytes(data[start + 2 : at - 4], "big")
            if opcode < CLOSE:
                self._check_size(first, size)
            stop = at + size
            if end < at or (end < stop and opcode >= CLOSE):
                break
            mask = data[at - 4 : at]
            if opcode >= CLOSE:
                payload = self.unmask(data[at:stop], mask)
                start = stop
                if opcode == CLOSE:
                    found.append((CLOSE, _closed(payload)))
                    return None
                found.append((opcode, payload))
            elif end >= stop and opcode and first & _FIN:
                start = stop
                found.append(self._whole(opcode, self.unmask(data[at:stop], mask), compressed=bool(first & _RSV1)))
            else:
                message = self._message
                if message is None:
                    message = self._message = _Message(opcode, compressed=bool(first & _RSV1))
                message.fin = bool(first & _FIN)
                message.fragments += 1
                message.mask, message.left = mask, size
                start = self._go_on(message, data, at, found)
        return data[start:]

    def _check(self, first: int, second: int) -> None:
        """Refuse a frame by its first two bytes."""
        opcode = first & 0x0F
        if first & _RSV23 or (first & _RSV1 and (self.inflate is None or opcode not in (TEXT, BINARY))):
            raise FrameError(PROTOCOL_ERROR, "reserved bits are set")
        if not second & _MASKED:
            raise FrameError(PROTOCOL_ERROR, "frames of a client must be masked")
        if opcode >= CLOSE:
            if opcode > PONG:
                raise FrameError(PROTOCOL_ERROR, f"unknown opcode {opcode}")
            if not first & _FIN:
                raise FrameError(PROTOCOL_ERROR, "a control frame is fragmented")
            if second & 0x7F > _CONTROL_MAX:
                raise FrameError(PROTOCOL_ERROR, "a control frame is longer than 125 bytes")
        elif opcode > BINARY:
            raise FrameError(PROTOCOL_ERROR, f"unknown opcode {opcode}")
        elif opcode == CONTINUATION:
            if self._message is None:
                raise FrameError(PROTOCOL_ERROR, "a continuation without a message")
            if self._message.fragments >= self.max_fragments:
                raise FrameError(POLICY, f"a message may have {self.max_fragments} fragments")
        elif self._message is not None:
            raise FrameError(PROTOCOL_ERROR, "a message within a fragmented message")

    def _check_size(self, first: int, size: int) -> None:
        """Refuse a frame by the size it announces, before its payload is waited for."""
        if size >> 63:
            raise FrameError(PROTOCOL_ERROR, "a length of more than 63 bits")
        message = self._message
        limit = self.max_bytes
        if first & _RSV1 or (message is not None and message.compressed):
            limit += (limit >> 3) + 64  # what cannot be compressed becomes longer, zlib's by no more than this
        if size + (0 if message is None else len(message.data)) > limit:
            raise self._too_big()

    def _too_big(self) -> FrameError:
        return FrameError(TOO_BIG, f"a message may have {self.max_bytes} bytes")

    def _go_on(self, message: _Message, data: bytes, start: int, found: list[tuple[int, object]]) -> int:
        """Take what ``data`` has from ``start`` of a frame's payload; return where that ends."""
        payload = data[start : start + message.left]
        message.take(self.unmask(payload, message.mask), len(payload))
        if message.fin and not message.left:
            self._message = None
            found.append(self._whole(message.opcode, message.data, compressed=message.compressed))
        return start + len(payload)

    def _whole(self, opcode: int, payload: bytes | bytearray, *, compressed: bool) -> tuple[int, object]:
        if compressed and self.inflate is not None:
            payload = self.inflate(bytes(payload), self.max_bytes)
        if opcode == BINARY:
            return BINARY, bytes(payload)
        try:
            return TEXT, payload.decode()
        except UnicodeDecodeError:
            raise _not_text() from None


class _Message:
    """A message in progress: of several fragments, or of one that has not come whole."""

    __slots__ = ("checked", "compressed", "data", "fin", "fragments", "left", "mask", "opcode")

    def __init__(self, opcode: int, *, compressed: bool) -> None:
        self.opcode = opcode
        self.compressed = compressed
        self.data = bytearray()
        self.checked = 0  # bytes of it that are known to be text
        self.fragments = 0
        # Of the fragment that comes.
        self.fin = False
        self.mask = b""
        self.left = 0

    def take(self, payload: bytes, size: int) -> None:
        """Append a part of a fragment; refuse what cannot become text as soon as it shows."""
        self.left -= size
        if self.left and size % 4:
            self.mask = self.mask[size % 4 :] + self.mask[: size % 4]
        self.data += payload
        if self.opcode == TEXT and not self.compressed:
            try:
                self.checked += utf_8_decode(self.data[self.checked :], "strict", self.fin and not self.left)[1]
            except UnicodeDecodeError:
                raise _not_text() from None


def _not_text() -> FrameError:
    return FrameError(BAD_DATA, "text that is not UTF-8")


def _closed(payload: bytes) -> tuple[int, str]:
    """Return (code, reason) of a close frame."""
    if not payload:
        return NO_STATUS, ""
    if len(payload) == 1:
        raise FrameError(PROTOCOL_ERROR, "a close frame with half a code")
    code = int.from_bytes(payload[:2], "big")
    if not _may_be_sent(code):
        raise FrameError(PROTOCOL_ERROR, f"close code {code} may not be sent")
    try:
        return code, payload[2:].decode()
    except UnicodeDecodeError:
        raise _not_text() from None
