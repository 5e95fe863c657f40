"""What tokens say and what an application allows. Knows no way to make or read a token."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

__all__ = ["Claims", "Grant"]


@dataclass(frozen=True, slots=True)
class Claims:
    """What a connection's token says.

    ``user``: the user, or the user's key; None: nobody we know. ``expires_s``: when it ends, seconds since the epoch;
    None: never. ``info``: what others in a group are told of this connection.
    """

    user: Any = None
    expires_s: float | None = None
    info: Mapping[str, Any] | None = None


@dataclass(frozen=True, slots=True)
class Grant:
    """A permission with its terms; True is one without any.

    ``expires_s``: when it ends, seconds since the epoch: the client must present a token before. ``data``: what the
    client is told with the reply. ``info``: of a connection, what others in its groups are told of it.
    """

    expires_s: float | None = None
    data: Any = None
    info: Mapping[str, Any] | None = None
