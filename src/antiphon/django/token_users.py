"""The users that tokens name, and what ends a token before its time. Knows no form of a token.

A token dies with its user's password, with the user, and by ``revoke_user``. The last is remembered in Django's default
cache, which all processes must share.
"""

from __future__ import annotations

import time
from typing import Any

from django.contrib.auth import get_user_model
from django.core.cache import cache
from django.core.exceptions import ValidationError
from django.utils.crypto import constant_time_compare, salted_hmac

from .. import framework
from ..exceptions import TokenInvalid

__all__ = ["fingerprints", "note_revoked", "user_of_token"]

_SALT = "antiphon.token"


def user_of_token(key: Any, fingerprint: object, issued_s: float) -> Any:
    """Load the user of a token, by primary key. Raises TokenInvalid for one whose tokens of that time are void.

    ``fingerprint``: what the token has of it; None: it was made by a service that knows no password.
    """
    try:
        user = get_user_model()._default_manager.filter(pk=key).first()
    except (TypeError, ValueError, OverflowError, ValidationError):  # no key of such a model
        user = None
    if user is None or not getattr(user, "is_active", True):
        raise TokenInvalid("its user is gone or not active")
    if fingerprint is not None and not any(constant_time_compare(str(fingerprint), one) for one in fingerprints(user)):
        raise TokenInvalid("the user's password changed since")
    revoked_s = cache.get(_mark(framework.user_key(user)))
    if revoked_s is not None and issued_s <= revoked_s:
        raise TokenInvalid("the user's tokens were revoked since")
    return user


def fingerprints(user: Any) -> list[str]:
    """Return what changes with the user's password: under the current secret key, then under the fallbacks."""
    if not hasattr(user, "get_session_auth_hash"):
        return [""]
    hashes = [user.get_session_auth_hash()]
    if hasattr(user, "get_session_auth_fallback_hash"):
        hashes += user.get_session_auth_fallback_hash()
    # Not the hash itself: in a session it stays on the server. The key of this HMAC need not be secret.
    return [salted_hmac(_SALT, one, secret="", algorithm="sha256").hexdigest()[:32] for one in hashes]


def note_revoked(user: Any) -> None:
    """Have the tokens that were made for a user until now be worth nothing."""
    cache.set(_mark(framework.user_key(user)), time.time(), None)


def _mark(key: str) -> str:
    # Some caches take no blanks, and none of them every length.
    return f"antiphon.revoked.{key.encode().hex()[:200]}"
