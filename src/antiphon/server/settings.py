"""What a socket of the server is allowed: from uvicorn's own options and from ``ANTIPHON``. Read once a server."""

from __future__ import annotations

import random
from typing import NamedTuple
from weakref import WeakKeyDictionary

from uvicorn.config import Config

from .. import options

__all__ = ["Settings", "settings_of"]

# Connections that one second of a drain lets go: they come back somewhere, all with a handshake and a log-in.
_DRAINED_PER_S = 500.0


class Settings(NamedTuple):
    """Times in seconds (None: no limit), sizes in bytes."""

    handshake_timeout_s: float
    accept_timeout_s: float
    send_timeout_s: float
    close_timeout_s: float
    drain_s: float
    send_buffer_bytes: int
    max_fragments: int
    max_headers: int
    max_bytes: int  # of one message, uvicorn's --ws-max-size
    ping_interval_s: float | None  # uvicorn's --ws-ping-interval and --ws-ping-timeout
    ping_timeout_s: float | None
    deflate: bool
    root_path: str

    def drained_after_s(self, connections: int) -> float:
        """Draw when one of so many connections of an ending server is let go, in seconds."""
        # Not for security: so that clients do not come back all at once.
        return random.random() * min(self.drain_s, connections / _DRAINED_PER_S)  # noqa: S311

    # One for all: an application that wants to note something about a connection has its scope for that.
    asgi: dict[str, str]


_kept: WeakKeyDictionary[Config, Settings] = WeakKeyDictionary()


def settings_of(config: Config) -> Settings:
    """Return the settings of a server."""
    found = _kept.get(config)
    if found is None:
        grace_s = config.timeout_graceful_shutdown
        drain_s: float = options.get("drain_s")
        found = _kept[config] = Settings(
            handshake_timeout_s=options.get("handshake_timeout_s"),
            accept_timeout_s=options.get("accept_timeout_s"),
            send_timeout_s=options.get("send_timeout_s"),
            close_timeout_s=options.get("close_timeout_s"),
            # Half of uvicorn's own patience: the other half is for the clients' answers and the clean-up.
            drain_s=drain_s if grace_s is None else min(drain_s, grace_s / 2),
            send_buffer_bytes=options.get("send_buffer_limit"),
            max_fragments=options.get("max_fragments"),
            max_headers=options.get("max_headers"),
            max_bytes=config.ws_max_size,
            ping_interval_s=config.ws_ping_interval or None,
            ping_timeout_s=config.ws_ping_timeout or None,
            # uvicorn's own option is on by default, so it can only forbid.
            deflate=bool(options.get("deflate") and config.ws_per_message_deflate),
            root_path=config.root_path,
            asgi={"version": config.asgi_version, "spec_version": "2.4"},
        )
    return found
