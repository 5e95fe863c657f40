"""Tokens of subscriptions: who a connection is, and which group it may have. For clients of the Centrifuge protocol.

Signed as Django signs, or JSON Web Tokens where ``ANTIPHON["jwt"]`` says how; both carry the claims that Centrifugo's do:
``sub`` the user, ``exp``, ``iat``, ``channel`` the group, ``info`` (https://centrifugal.dev/docs/server/authentication).
A token of ours ends early when its user's password changes, the user is not active any more, or ``revoke_user`` was called.
"""

from __future__ import annotations

import time
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from django.core import signing

from .. import options
from ..exceptions import MissingExtra, OptionError, TokenExpired, TokenInvalid
from ..names import require_group
from .token_users import fingerprints, user_of_token

__all__ = [
    "TokenClaims", "connection_token", "read_connection_token", "read_subscription_token", "subscription_token",
]  # fmt: skip

_SALTS = {"connection": "antiphon.connection", "subscription": "antiphon.subscription"}
_SEPARATOR = "."
# Clients fetch a new one whenever they need it. What lives longer would be a password.
LONGEST_S = 30 * 86400.0
# The end of a token is looked at where all tokens' are: a client must hear of it as of an expired one.
_LATER = {"verify_exp": False, "verify_iat": False, "verify_aud": False, "require": ["exp"]}


@dataclass(frozen=True, slots=True)
class TokenClaims:
    """What a token says. ``user``: a user that was loaded, or None: nobody. ``group``: of a subscription's alone."""

    user: Any
    expires_s: float
    info: Mapping[str, Any] | None = None
    group: str | None = None


def connection_token(user: Any, *, ttl_s: float = 3600, info: Mapping[str, Any] | None = None) -> str:
    """Return a token with which a client connects as ``user`` (None: as nobody), for ``ttl_s`` seconds.

    ``info``: what others in a group are told of the connection. Raises ValueError for a user that is not saved, and for
    more than 30 days.
    """
    return _make("connection", user, ttl_s, info, None)


def subscription_token(user: Any, group: str, *, ttl_s: float = 3600, info: Mapping[str, Any] | None = None) -> str:
    """Return a token with which connections of ``user`` may subscribe to one group; errors as of ``connection_token``."""
    require_group(group)
    return _make("subscription", user, ttl_s, info, group)


def read_connection_token(token: str) -> TokenClaims:
    """Return what a token of ``connection_token`` says. Raises TokenExpired, TokenInvalid. Loads the user."""
    return _read("connection", token)


def read_subscription_token(token: str) -> TokenClaims:
    """Return what a token of ``subscription_token`` says, likewise."""
    return _read("subscription", token)


def _make(kind: str, user: Any, ttl_s: float, info: Mapping[str, Any] | None, group: str | None) -> str:
    if not isinstance(ttl_s, (int, float)) or isinstance(ttl_s, bool) or not 0 < ttl_s <= LONGEST_S:
        raise ValueError(f"ttl_s: expected seconds above 0, at most 30 days; got {ttl_s!r:.80}")
    known = user is not None and getattr(user, "is_authenticated", True)
    if known and getattr(user, "pk", None) is None:
        raise ValueError(f"expected a user that is saved, or None; got {user!r:.120}")
    now = time.time()
    claims: dict[str, Any] = {
        "sub": user._meta.pk.value_to_string(user) if known else "",
        "exp": int(now + ttl_s) + 1,
        "iat": now,
    }
    if known:
        claims["h"] = fingerprints(user)[0]
    if info is not None:
        claims["info"] = dict(info)
    if group is not None:
        claims["channel"] = group
    ways = _jwt()
    if ways is not None:
        jwt, algorithm, _, key = ways
        if key is None:
            raise OptionError('ANTIPHON["jwt"]: no private_key or secret, so tokens are read here and made elsewhere')
        encoded: str = jwt.encode(claims, key, algorithm=algorithm)
        return encoded
    return signing.TimestampSigner(salt=_SALTS[kind], sep=_SEPARATOR).sign_object(claims, compress=True)


def _read(kind: str, token: str) -> TokenClaims:
    ways = _jwt()
    claims = _unsigned(kind, token) if ways is None else _decoded(token, *ways[:3])
    expires, issued, group = claims.get("exp"), claims.get("iat", 0), claims.get("channel")
    if not isinstance(expires, (int, float)) or not isinstance(issued, (int, float)):
        raise TokenInvalid("it has no end")
    if (kind == "subscription") != isinstance(group, str):
        raise TokenInvalid("it is of another kind")
    if expires <= time.time():
        raise TokenExpired(f"it expired {int(time.time() - expires) + 1} s ago")
    info = claims.get("info")
    # One of another service has no fingerprint: it knows no password. Without a subject it is nobody's.
    user = user_of_token(claims["sub"], claims.get("h"), issued) if claims.get("sub") else None
    return TokenClaims(user, expires, info if isinstance(info, dict) else None, group)


def _unsigned(kind: str, token: str) -> Mapping[str, Any]:
    try:
        claims = signing.TimestampSigner(salt=_SALTS[kind], sep=_SEPARATOR).unsign_object(token)
    except Exception:  # besides BadSignature: whatever base64, zlib and JSON raise for what a client made up
        raise TokenInvalid("its signature is not ours") from None
    if not isinstance(claims, dict):
        raise TokenInvalid("it has no claims")
    return claims


def _decoded(token: str, jwt: Any, algorithm: str, key: Any) -> Mapping[str, Any]:
    try:
        claims: Mapping[str, Any] = jwt.decode(token, key, algorithms=[algorithm], options=_LATER)
    except Exception:
        raise TokenInvalid("its signature is not ours") from None
    return claims


def _jwt() -> tuple[Any, str, Any, Any] | None:
    """Return (the package, algorithm, key to read with, key to make with), None without JSON Web Tokens."""
    ways = options.get("jwt")
    if ways is None:
        return None
    try:
        import jwt  # an extra
    except ModuleNotFoundError:
        raise MissingExtra.of("jwt", "jwt", 'ANTIPHON["jwt"]') from None
    algorithm = ways.get("algorithm", "HS256")
    secret = ways.get("secret")
    return jwt, algorithm, ways.get("public_key") or secret, ways.get("private_key") or secret
