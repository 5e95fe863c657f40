"""Users by token instead of cookie: for native clients, other sites, and pages that hand out one-use tickets.

Three ways in, tried in this order: the header ``Authorization: Bearer <token>``; a WebSocket subprotocol
``antiphon.token.<token>`` offered beside the real ones (browsers can set no header); ``?ticket=<ticket>``. Only
tickets go into an address, where logs keep them: they die at their first use. Knows no consumer.
"""

from __future__ import annotations

import logging
import time
from collections.abc import Mapping
from typing import Any, NamedTuple
from urllib.parse import parse_qs

from django.core import signing
from django.core.cache import cache
from django.utils.crypto import get_random_string

from .. import options
from ..exceptions import TokenInvalid
from ..middleware import BaseMiddleware
from ..types import ASGIApplication, Receive, Scope, Send
from ..wire.codes import close_code
from .auth import AuthMiddleware
from .database import database_sync_to_async
from .denial import describe, refuse_http, refuse_websocket
from .framework import TOKEN_EXPIRES
from .handing import HandOn, handing_on, super_of
from .sessions import CookieMiddleware, SessionMiddleware
from .token_users import fingerprints, user_of_token

__all__ = ["InvalidToken", "TokenMiddleware", "TokenMiddlewareStack", "make_ticket", "make_token"]

logger = logging.getLogger("antiphon.security")

# What the parts of a token are joined with must be allowed in a subprotocol (RFC 9110, 5.6.2) and absent from base64.
_SEPARATOR = "."
_TOKEN_SALT = "antiphon.token"  # noqa: S105  -- a salt says which use it is for
_TICKET_SALT = "antiphon.ticket"

# A ticket's mark outlives the ticket by this, so that clocks of several machines need not agree to the second.
_CLOCK_SKEW_S = 60


class InvalidToken(TokenInvalid):
    """A token is refused; the text says why, for the log, and never contains the token."""


class Token(NamedTuple):
    """A token as it came, and how: ``header``, ``subprotocol`` or ``ticket``."""

    way: str
    value: str


def make_token(user: Any, max_age_s: float = 3600) -> str:
    """Return a signed token for ``user`` that is valid for ``max_age_s`` seconds, any number of times.

    It ends early when the user's password changes, the user is not active any more, or ``revoke_user`` is called.
    """
    return _sign(_TOKEN_SALT, user, {"x": int(time.time() + max_age_s)})


def make_ticket(user: Any, *, path: str | None = None) -> str:
    """Return a ticket for ``user`` that opens one connection, within ``ticket_max_age_s`` seconds (30).

    ``path``: the one path it is valid for, such as ``/ws/chat/``; any by default. Its use is recorded in Django's
    default cache, which all processes must share. Call it in a view that knows its user, and give the page
    ``new WebSocket("/ws/chat/?ticket=" + ticket)``.
    """
    claims: dict[str, Any] = {"x": int(time.time() + options.get("ticket_max_age_s")), "n": get_random_string(16)}
    if path is not None:
        claims["p"] = path
    return _sign(_TICKET_SALT, user, claims)


def _sign(salt: str, user: Any, claims: dict[str, Any]) -> str:
    if getattr(user, "pk", None) is None:
        raise ValueError(f"expected a user that is saved; got {user!r}")
    claims = {
        "u": user._meta.pk.value_to_string(user),
        "h": fingerprints(user)[0],
        "i": int(time.time() * 1000) / 1000,  # never later than it is: a revocation would miss it
        **claims,
    }
    return signing.TimestampSigner(salt=salt, sep=_SEPARATOR).sign_object(claims)


def _read(salt: str, value: str) -> Mapping[str, Any]:
    try:
        claims = signing.TimestampSigner(salt=salt, sep=_SEPARATOR).unsign_object(value)
    except Exception:  # besides BadSignature: whatever base64 and JSON raise for what a client made up
        raise InvalidToken("its signature is not ours") from None
    if not isinstance(claims, dict) or "u" not in claims or not isinstance(claims.get("x"), int):
        raise InvalidToken("it has no user or no end")
    if claims["x"] < time.time():
        raise InvalidToken(f"it expired {int(time.time() - claims['x']) + 1} s ago")
    return claims


@database_sync_to_async
def _user_of(claims: Mapping[str, Any]) -> Any:
    # One that was made before tokens had a time is as old as can be.
    return user_of_token(claims["u"], claims.get("h", ""), claims.get("i", 0))


class TokenMiddleware(BaseMiddleware):
    """Put the user that a token names into ``scope["user"]``; refuse the connection when the token is no good.

    Without any token the user of a middleware above stays, else it is anonymous; with ``required=True`` the connection
    is refused. Override
    ``authenticate`` for tokens of another scheme (JWT, DRF, an API key).
    """

    def __init__(
        self, inner: ASGIApplication, *, required: bool = False, subprotocol_prefix: str = "antiphon.token."
    ) -> None:
        super().__init__(inner)
        self.required = required
        self.subprotocol_prefix = subprotocol_prefix

    async def authenticate(self, token: str, scope: Scope) -> Any:
        """Return the user of a token from header or subprotocol; None, or raise InvalidToken, to refuse it.

        As it stands: tokens of ``make_token``. May set ``scope["antiphon.token_expires"]`` (seconds since the epoch):
        a connection with ``revalidate_interval_s`` ends then.
        """
        claims = _read(_TOKEN_SALT, token)
        user = await _user_of(claims)
        scope[TOKEN_EXPIRES] = claims["x"]
        return user

    async def authenticate_ticket(self, ticket: str, scope: Scope) -> Any:
        """Return the user of a one-use ticket; raise InvalidToken to refuse it."""
        claims = _read(_TICKET_SALT, ticket)
        if "p" in claims and claims["p"] != scope.get("path"):
            raise InvalidToken(f"it is for {claims['p']!r:.200}")
        user = await _user_of(claims)
        # add() answers False when the key is there: whoever comes second, in any process, is too late.
        key = f"antiphon.ticket.{claims.get('n')}"
        if not await cache.aadd(key, 1, timeout=claims["x"] - time.time() + _CLOCK_SKEW_S):
            raise InvalidToken("it was used before")
        return user

    def find_token(self, scope: Scope) -> Token | None:
        """Return the token of a connection, or None."""
        for name, value in scope.get("headers", []):
            if name == b"authorization":
                kind, _, token = value.decode("latin1").partition(" ")
                if kind.lower() == "bearer" and token.strip():
                    return Token("header", token.strip())
        for offered in scope.get("subprotocols") or ():
            if offered.startswith(self.subprotocol_prefix):
                return Token("subprotocol", offered.removeprefix(self.subprotocol_prefix))
        query = scope.get("query_string", b"").decode("latin1")
        if "ticket=" in query:
            tickets = parse_qs(query).get("ticket")
            if tickets:
                return Token("ticket", tickets[0])
        return None

    @handing_on
    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> HandOn | None:
        """Serve one connection."""
        if scope.get("type") not in ("http", "websocket"):
            return HandOn(self.inner, scope, receive, send)
        scope = dict(scope)
        scope.setdefault("antiphon.let_in_s", time.monotonic())
        token = self.find_token(scope)
        if token is None:
            if self.required:
                await self._refuse(scope, receive, send, "it has no token")
                return None
            if "user" not in scope:
                from django.contrib.auth.models import AnonymousUser  # models exist only after django.setup()

                scope["user"] = AnonymousUser()
            return HandOn(super_of(TokenMiddleware, self), scope, receive, send)
        try:
            check = self.authenticate_ticket if token.way == "ticket" else self.authenticate
            user = await check(token.value, scope)
            if user is None:
                raise InvalidToken("nobody is known by it")
        except TokenInvalid as exc:
            await self._refuse(scope, receive, send, f"its token ({token.way}) is refused: {exc}")
            return None
        scope["user"] = user
        if token.way == "subprotocol":
            send = self._hide_token(scope, send)
        return HandOn(super_of(TokenMiddleware, self), scope, receive, send)

    def _hide_token(self, scope: Scope, send: Send) -> Send:
        """Take the token out of the subprotocols offered, and see to it that another one of them is accepted.

        A browser closes a connection whose server accepts none of the subprotocols it offered
        (https://websockets.spec.whatwg.org/#concept-websocket-establish).
        """
        offered = [name for name in scope["subprotocols"] if not name.startswith(self.subprotocol_prefix)]
        scope["subprotocols"] = offered

        async def choose(message: dict[str, Any]) -> Any:
            if message["type"] == "websocket.accept" and not message.get("subprotocol"):
                if offered:
                    message = {**message, "subprotocol": offered[0]}
                else:
                    logger.warning(
                        "%s offers its token as the only subprotocol, and a browser will close it: offer a second "
                        'one, new WebSocket(url, ["antiphon", "%s" + token])',
                        describe(scope),
                        self.subprotocol_prefix,
                    )
            return await send(message)

        # Who sends after the accept may go past this.
        choose.after_accept = send  # type: ignore[attr-defined]  # functions take attributes
        return choose

    async def _refuse(self, scope: Scope, receive: Receive, send: Send, why: str) -> None:
        logger.warning("%s denied: %s", describe(scope), why)
        headers = ((b"www-authenticate", b"Bearer"),)
        if scope["type"] == "http":
            await refuse_http(send, status=401, headers=headers)
        else:
            code = close_code("unauthenticated")
            await refuse_websocket(scope, receive, send, status=401, code=code, headers=headers)


def TokenMiddlewareStack(inner: ASGIApplication) -> CookieMiddleware:  # noqa: N802  -- as AuthMiddlewareStack
    """Wrap an application in cookies, session, user, and tokens, which win over the session's user."""
    return CookieMiddleware(SessionMiddleware(AuthMiddleware(TokenMiddleware(inner))))
