"""Which sites may open a WebSocket. Browsers send cookies with a WebSocket to any site, so the origin is the check.

Knows no user and no session.
"""

from __future__ import annotations

import logging
import re
from collections.abc import Sequence
from urllib.parse import ParseResult, urlparse

from django.conf import settings
from django.utils.http import is_same_domain

from ..consumers.websocket import AsyncWebsocketConsumer
from ..types import ASGIApplication, Receive, Scope, Send
from .denial import describe, refuse_websocket
from .handing import HandOn, Step, handing_on

__all__ = ["AllowedHostsOriginValidator", "OriginValidator", "WebsocketDenier"]

logger = logging.getLogger("antiphon.security")

# Host and port, and nothing else: urlparse() reads "http://[::1].evil.test" as ::1, and a user before the host
# ("http://evil.test@example.com") is nothing that a browser sends.
_AUTHORITY = re.compile(r"(\[[0-9a-fA-F:.]+\]|[^\[\]@\\\s:]*)(:[0-9]*)?")

_DEFAULT_PORTS = {"http": 80, "ws": 80, "https": 443, "wss": 443}


class OriginValidator:
    """Deny a WebSocket whose ``Origin`` header matches none of ``allowed_origins``.

    An entry is ``example.com`` (any scheme and port), ``.example.com`` (its subdomains as well), either of them with a
    scheme and perhaps a port (``https://example.com:8443``, which must then be equal), or ``*`` for everything, a
    missing origin included. ``setting`` is the name of the setting that a denial's log line tells to change.
    Raises TypeError for a single string: its characters would be the entries.
    """

    def __init__(
        self, application: ASGIApplication, allowed_origins: Sequence[str], *, setting: str = "allowed_origins"
    ) -> None:
        if isinstance(allowed_origins, (str, bytes)):
            raise TypeError(
                f"{setting}: expected a list of origins; got {allowed_origins!r}, so: [{allowed_origins!r}]"
            )
        self.application = application
        self.allowed_origins = allowed_origins
        self.setting = setting

    @handing_on
    def __call__(self, scope: Scope, receive: Receive, send: Send) -> Step:
        """Serve one WebSocket. Raises ValueError for any other scope."""
        if scope["type"] != "websocket":
            raise ValueError("You cannot use OriginValidator on a non-WebSocket connection")
        header = None
        for name, value in scope.get("headers", []):
            if name == b"origin":
                header = value.decode("latin1")  # the last one counts
        if self._allows(header):
            return HandOn(self.application, scope, receive, send)
        logger.warning(
            "%s denied: %s. Allowed: %s. If it is yours, add it to %s",
            describe(scope),
            "it has no Origin header" if header is None else f"its origin {header!r:.200} matches no allowed one",
            ", ".join(map(repr, self.allowed_origins)) or "none",
            self.setting,
        )
        return WebsocketDenier()(scope, receive, send)

    def _allows(self, header: str | None) -> bool:
        try:
            origin = None if header is None else urlparse(header)
            if origin is not None:
                _ = origin.port  # parsed only when it is read
        except ValueError:  # "http://[" is no address, "http://host:99999" has no port
            return False
        if origin is not None and not _AUTHORITY.fullmatch(origin.netloc):
            return False
        return self.valid_origin(origin)

    def valid_origin(self, parsed_origin: ParseResult | None) -> bool:
        """Say whether an origin (None: there was no header) may connect."""
        if parsed_origin is None and "*" not in self.allowed_origins:
            return False
        return self.validate_origin(parsed_origin)

    def validate_origin(self, parsed_origin: ParseResult | None) -> bool:
        """Say whether any of ``allowed_origins`` matches."""
        return any(
            pattern == "*" or self.match_allowed_origin(parsed_origin, pattern) for pattern in self.allowed_origins
        )

    def match_allowed_origin(self, parsed_origin: ParseResult | None, pattern: str) -> bool:
        """Say whether one pattern matches; one with a scheme compares scheme and port as well."""
        if parsed_origin is None or parsed_origin.hostname is None:
            return False
        try:
            parsed_pattern = urlparse(pattern.lower())
            if not parsed_pattern.scheme:
                return is_same_domain(parsed_origin.hostname, urlparse("//" + pattern).hostname or pattern)
            return (
                parsed_pattern.scheme == parsed_origin.scheme
                and self.get_origin_port(parsed_pattern) == self.get_origin_port(parsed_origin)
                and is_same_domain(parsed_origin.hostname, parsed_pattern.hostname or "")
            )
        except (
            ValueError
        ):  # the pattern's own port is none: it matches nothing, and must not end the connection in a 500
            return False

    def get_origin_port(self, origin: ParseResult) -> int | None:
        """Return the port of an origin, else that of its scheme, else None."""
        return origin.port if origin.port is not None else _DEFAULT_PORTS.get(origin.scheme)


def AllowedHostsOriginValidator(application: ASGIApplication) -> OriginValidator:  # noqa: N802  -- Channels' name
    """Allow the hosts of ``ALLOWED_HOSTS``; with ``DEBUG`` and none set, those of the developer's own machine."""
    allowed_hosts = settings.ALLOWED_HOSTS
    if settings.DEBUG and not allowed_hosts:
        allowed_hosts = [".localhost", "127.0.0.1", "[::1]"]
    return OriginValidator(application, allowed_hosts, setting="ALLOWED_HOSTS")


class WebsocketDenier(AsyncWebsocketConsumer):
    """Deny every WebSocket. A consumer by its interface, but it joins no layer and keeps nothing."""

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Deny one WebSocket."""
        await refuse_websocket(scope, receive, send)
