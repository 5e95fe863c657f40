"""What all links of one engine share."""

from __future__ import annotations

from dataclasses import dataclass

__all__ = ["LinkSettings"]


@dataclass(frozen=True, slots=True)
class LinkSettings:
    """What all links of an engine share. Times in seconds."""

    client_name: str = "antiphon"
    prefix: str = "asgi"
    ping_interval_s: float = 5.0
    pong_timeout_s: float = 5.0
    timeout_s: float = 5.0
    publish_retry_s: float = 0.0
    sharded: bool = False  # SPUBLISH and SSUBSCRIBE, as a cluster needs
    tracked: bytes | None = None  # a key whose changes the server is to announce

    @property
    def publish_limit_s(self) -> float:
        """How old a publish may become before it fails."""
        return max(self.timeout_s, self.publish_retry_s)
