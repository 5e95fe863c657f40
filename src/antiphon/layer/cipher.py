"""``Cipher``: seals the bodies of messages with AES-256-GCM, and opens them. Knows no layer and no engine.

A sealed body is: 4 bytes the key's id, 12 bytes nonce, the ciphertext, 16 bytes tag. Bound to it (associated data) are
the topic and the header, so that nobody without a key can move it to another group, or give it another sender or time.

Random nonces of 96 bits are safe for 2^32 messages of one key (NIST SP 800-38D, 8.3). A busy site sends so many in a
month, so no key is used for longer than 72 minutes: what seals is derived from the secret and the upper half of the
header's ``sent_us``. That costs no byte, and nothing has to be remembered across forks, threads or snapshots of a machine.
"""

from __future__ import annotations

import hmac
from collections.abc import Sequence
from os import urandom
from typing import TYPE_CHECKING

from ..exceptions import MissingExtra, OptionError

if TYPE_CHECKING:
    from cryptography.hazmat.primitives.ciphers.aead import AESGCM

__all__ = ["OVERHEAD_BYTES", "Cipher"]

_ID_BYTES, _NONCE_BYTES, _TAG_BYTES = 4, 12, 16
_PREFIX_BYTES = _ID_BYTES + _NONCE_BYTES
OVERHEAD_BYTES = _PREFIX_BYTES + _TAG_BYTES

# sent_us stands in bytes 20 to 27 of a header; the first four change every 2^32 us.
_PERIOD = slice(20, 24)
# Periods are remembered by key: this one, the last, and those of clocks that are wrong.
_PERIODS_MAX = 64


class Cipher:
    """Seals with the first key, opens with any.

    ``keys``: secrets of any length, as str or bytes; at least 32 random bytes each. Raises OptionError for anything
    else, MissingExtra without the package ``cryptography``.
    """

    def __init__(self, keys: Sequence[str | bytes]) -> None:
        _require_keys(keys)
        try:
            from cryptography.exceptions import InvalidTag
            from cryptography.hazmat.primitives.ciphers.aead import AESGCM
        except ModuleNotFoundError as exc:
            raise MissingExtra.of("cryptography", "encryption", "symmetric_encryption_keys") from exc
        self._invalid_tag = InvalidTag
        self._make = AESGCM
        secrets = [hmac.digest(b"antiphon", _bytes(key), "sha256") for key in keys]
        ids = [_derive(secret, b"id")[:_ID_BYTES] for secret in secrets]
        self._secrets = dict(zip(reversed(ids), reversed(secrets), strict=True))  # of two with one id, the first
        self._sealing_id = ids[0]
        self._aeads: dict[bytes, AESGCM] = {}  # by key id and period

    def __repr__(self) -> str:
        return f"<Cipher {len(self._secrets)} keys, seals with {self._sealing_id.hex()}>"

    def seal(self, topic: str, header: bytes, body: bytes) -> bytes:
        """Return what travels in place of ``body``."""
        aead = self._aeads.get(self._sealing_id + header[_PERIOD]) or self._aead(self._sealing_id, header)
        nonce = urandom(_NONCE_BYTES)
        return b"%b%b%b" % (self._sealing_id, nonce, aead.encrypt(nonce, body, _bound(topic, header)))

    def open(self, topic: str, header: bytes, sealed: bytes) -> bytes:
        """Return the body. Raises ValueError for what was not sealed with one of the keys for this topic and header."""
        if len(sealed) < OVERHEAD_BYTES:
            raise ValueError(f"a sealed body has at least {OVERHEAD_BYTES} bytes; got {len(sealed)}")
        key_id = sealed[:_ID_BYTES]
        aead = self._aeads.get(key_id + header[_PERIOD]) or self._aead(key_id, header)
        try:
            return aead.decrypt(sealed[_ID_BYTES:_PREFIX_BYTES], sealed[_PREFIX_BYTES:], _bound(topic, header))
        except self._invalid_tag:
            raise ValueError(
                "the body is not as it was sealed, or was sealed for another topic or with another header"
            ) from None

    def _aead(self, key_id: bytes, header: bytes) -> AESGCM:
        secret = self._secrets.get(key_id)
        if secret is None:
            raise ValueError(f"the body was sealed with a key that is not among ours: id {key_id.hex()}")
        if len(self._aeads) >= _PERIODS_MAX:
            self._aeads.clear()
        period = header[_PERIOD]
        aead = self._aeads[key_id + period] = self._make(_derive(secret, b"body" + period))
        return aead


def _require_keys(keys: object) -> None:
    if isinstance(keys, (str, bytes)) or not isinstance(keys, Sequence):
        # Not even the type's value is shown: it is a secret.
        raise OptionError(f"symmetric_encryption_keys must be a list of possible keys; got one {type(keys).__name__}")
    if not keys:
        raise OptionError("symmetric_encryption_keys: expected at least one key; got an empty list")
    for number, key in enumerate(keys):
        if not isinstance(key, (str, bytes)) or not key:
            got = "an empty one" if isinstance(key, (str, bytes)) else type(key).__name__
            raise OptionError(f"symmetric_encryption_keys[{number}]: expected a str or bytes, not empty; got {got}")


def _bytes(key: str | bytes) -> bytes:
    return key.encode() if isinstance(key, str) else bytes(key)


def _derive(secret: bytes, purpose: bytes) -> bytes:
    """Expand a secret (RFC 5869, one block)."""
    return hmac.digest(secret, purpose + b"\x01", "sha256")


def _bound(topic: str, header: bytes) -> bytes:
    # Topic and header with the place where they meet, so that they cannot be cut in two ways.
    name = topic.encode()
    return b"%d:%b%b" % (len(name), name, header)
