"""permessage-deflate (RFC 7692) without context take-over: every message is compressed for itself. Does no I/O.

So a message is compressed once for all sockets with the same setting, and an open connection keeps no window.
"""

from __future__ import annotations

import zlib
from typing import NamedTuple

from .frames import BAD_DATA, TOO_BIG, FrameError

__all__ = ["Setting", "compress", "inflate", "negotiate"]

_NAME = "permessage-deflate"
# What ends every message and is left out of it: https://www.rfc-editor.org/rfc/rfc7692#section-7.2.1
_TAIL = b"\x00\x00\xff\xff"
# An empty last block. What ends where a block does ends with it; within a block it is read as more of that block's data.
_LAST = b"\x03\x00"
# What follows where a sender has ended its last block itself, with the byte that makes the tail fit, or without it:
# https://www.rfc-editor.org/rfc/rfc7692#section-7.2.3.4
_ENDED = (b"", b"\x00" + _TAIL + _LAST, _TAIL + _LAST)
_BITS_MAX = 15
# zlib cannot compress with a window of 256 bytes: it takes one of 512 in its place, which such a client cannot read.
_BITS_MIN = 9
# Less than zlib's default: its tables are made anew for each message, and are larger than most of them.
_MEMORY_LEVEL = 5


class Setting(NamedTuple):
    """What matters of what was negotiated: how far back a compressed message may refer, as a power of two in bytes."""

    window_bits: int = _BITS_MAX


def negotiate(offers: str) -> tuple[Setting, str] | None:
    """Choose the first offer of a Sec-WebSocket-Extensions header that can be met.

    Returns its setting and the value of the answer's header; None where there is none.
    """
    for offer in offers.split(","):
        name, *parameters = (part.strip() for part in offer.split(";"))
        if name == _NAME:
            bits = _bits_of(parameters)
            if bits is not None:
                # Neither needs to be offered: a client must honour both (sections 7.1.1.1 and 7.1.1.2).
                said = f"{_NAME}; server_no_context_takeover; client_no_context_takeover"
                if any(parameter.startswith("server_max_window_bits") for parameter in parameters):
                    said += f"; server_max_window_bits={bits}"
                return Setting(bits), said
    return None


def _bits_of(parameters: list[str]) -> int | None:
    """Return the window that an offer leaves us; None: the offer is not valid, or cannot be met."""
    bits, seen = _BITS_MAX, set()
    for parameter in parameters:
        name, equals, value = (part.strip() for part in parameter.partition("="))
        if value[:1] == value[-1:] == '"' and len(value) > 1:
            value = value[1:-1]
        if name in seen:
            return None
        seen.add(name)
        if name in ("server_no_context_takeover", "client_no_context_takeover"):
            if equals:
                return None
        elif name == "server_max_window_bits":
            if not _is_window(value):
                return None
            bits = int(value)
        elif name != "client_max_window_bits" or (equals and not _is_window(value)):
            return None
    return bits if bits >= _BITS_MIN else None


def _is_window(value: str) -> bool:
    # No leading zero: https://www.rfc-editor.org/rfc/rfc7692#section-7.1.2.1
    return value in {"8", "9", "10", "11", "12", "13", "14", "15"}


def compress(payload: bytes, setting: Setting) -> bytes:
    """Return the compressed payload of one message."""
    # A window larger than the message is memory that nothing refers to.
    bits = min(setting.window_bits, max(_BITS_MIN, len(payload).bit_length()))
    deflater = zlib.compressobj(wbits=-bits, memLevel=_MEMORY_LEVEL)
    return (deflater.compress(payload) + deflater.flush(zlib.Z_SYNC_FLUSH))[: -len(_TAIL)]


def inflate(data: bytes, max_bytes: int) -> bytes:
    """Return the payload of one message. Raises FrameError: it is broken or cut, or longer than ``max_bytes``."""
    if not data:
        return data  # of a sender whose zlib had nothing to flush
    inflater = zlib.decompressobj(wbits=-_BITS_MAX)
    try:
        # One byte more than allowed, so that no bomb is ever unpacked further.
        payload = inflater.decompress(data + _TAIL + _LAST, max_bytes + 1)
    except zlib.error as exc:
        raise FrameError(BAD_DATA, "compressed data that cannot be read") from exc
    if len(payload) > max_bytes:
        raise FrameError(TOO_BIG, f"a message may have {max_bytes} bytes")
    if not inflater.eof:
        raise FrameError(BAD_DATA, "compressed data without an end")
    if inflater.unused_data not in _ENDED:
        raise FrameError(BAD_DATA, "compressed data behind its end")
    return payload
