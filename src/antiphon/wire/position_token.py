"""The positions of some groups as one signed text: what a page carries, and what names a place in a stream of events.

    version (1)  signature (16)  for each group: digest of its name (8), length of the epoch (1), epoch, offset (varint)

base64url without padding. Signed, so that nobody can ask for positions that he was not given; a digest instead of a name,
so that it stays short and tells nothing. A token has no end of its own: a position is good as long as its history.
"""

from __future__ import annotations

import base64
import binascii
import hmac
from collections.abc import Iterable, Mapping, Sequence
from functools import lru_cache
from hashlib import sha256

from ..exceptions import TokenInvalid
from ..types import Position

__all__ = ["GROUPS_MAX", "read_positions", "sign_positions"]

# Positions in one token: some 40 characters each.
GROUPS_MAX = 32
_VERSION = b"\x01"
_PURPOSE = b"antiphon.positions"
_SIGNATURE = 16
_DIGEST = 8
# Longer ones are not ours.
_LONGEST = 4096


def sign_positions(positions: Mapping[str, Position], key: bytes) -> str:
    """Return the token of positions: group -> position. Raises ValueError for more than GROUPS_MAX."""
    if len(positions) > GROUPS_MAX:
        raise ValueError(f"expected at most {GROUPS_MAX} groups; got {len(positions)}")
    return _signed(tuple(positions.items()), key)


@lru_cache(maxsize=2048)  # one group, a thousand streams: it is the same for all
def _signed(positions: tuple[tuple[str, Position], ...], key: bytes) -> str:
    body = b"".join(_packed(group, position) for group, position in positions)
    return base64.urlsafe_b64encode(_VERSION + _signature(body, key) + body).rstrip(b"=").decode()


def read_positions(token: str, groups: Iterable[str], keys: Sequence[bytes]) -> dict[str, Position]:
    """Return what a token says of ``groups``; of some, perhaps, nothing. Any of ``keys`` may have signed it.

    Raises TokenInvalid for what none of them has signed.
    """
    body = _verified(token, keys)
    names = {_digest(group): group for group in groups}
    found: dict[str, Position] = {}
    at = 0
    try:
        while at < len(body):
            name = names.get(body[at : at + _DIGEST])
            at += _DIGEST
            end = at + 1 + body[at]
            epoch = body[at + 1 : end].decode()
            offset, at = _varint(body, end)
            if name is not None:
                found[name] = Position(epoch, offset)
    except (IndexError, UnicodeDecodeError) as exc:  # signed, and yet not ours: of another version
        raise TokenInvalid("the token of positions cannot be read") from exc
    return found


def _verified(token: str, keys: Sequence[bytes]) -> bytes:
    try:
        if not isinstance(token, str) or len(token) > _LONGEST:
            raise ValueError("too long")
        raw = base64.b64decode(token + "=" * (-len(token) % 4), altchars=b"-_", validate=True)
    except (binascii.Error, ValueError) as exc:
        raise TokenInvalid("not a token of positions") from exc
    signature, body = raw[1 : 1 + _SIGNATURE], raw[1 + _SIGNATURE :]
    if raw[:1] != _VERSION or not any(hmac.compare_digest(signature, _signature(body, key)) for key in keys):
        raise TokenInvalid("not a token of positions that was made here")
    return body


def _signature(body: bytes, key: bytes) -> bytes:
    return hmac.digest(key, _PURPOSE + body, "sha256")[:_SIGNATURE]


@lru_cache(maxsize=2048)
def _digest(group: str) -> bytes:
    return sha256(group.encode()).digest()[:_DIGEST]


def _packed(group: str, position: Position) -> bytes:
    epoch = position.epoch.encode()
    number, digits = position.offset, bytearray()
    while number > 0x7F:
        digits.append(number & 0x7F | 0x80)
        number >>= 7
    digits.append(number)
    return b"%b%c%b%b" % (_digest(group), len(epoch), epoch, bytes(digits))


def _varint(body: bytes, at: int) -> tuple[int, int]:
    number = shift = 0
    while body[at] & 0x80:
        number |= (body[at] & 0x7F) << shift
        shift += 7
        at += 1
    return number | body[at] << shift, at + 1
