"""The first words on a connection: RESP3, who we are, which database, what to announce. Knows no link."""

from __future__ import annotations

import logging

from ...exceptions import EngineUnavailable
from .connection import Connection, ReplyError, until_ended
from .hosts import Address
from .settings import LinkSettings

__all__ = ["greet"]

logger = logging.getLogger("antiphon.engine")


async def greet(connection: Connection, address: Address, settings: LinkSettings) -> int:
    """Make a connection ready; return the number that the server gave it, counted from its start.

    Raises EngineUnavailable for a server that is no primary, ReplyError if it refuses us.
    """
    hello: list[bytes | str | int] = ["HELLO", 3]
    if address.password:
        hello += ["AUTH", address.username or "default", address.password]
    hello += ["SETNAME", settings.client_name]
    greeting = await until_ended(connection, connection.call(*hello))
    role = greeting.get(b"role", b"master") if isinstance(greeting, dict) else b"master"
    if role != b"master":
        raise EngineUnavailable(f"{address.name} is a {role.decode()}, not the primary")
    if address.db and not settings.sharded:
        await until_ended(connection, connection.call("SELECT", address.db))
    if settings.tracked is not None:
        try:
            tracking = ("CLIENT", "TRACKING", "ON", "BCAST", "PREFIX", settings.tracked)
            await until_ended(connection, connection.call(*tracking))
        except ReplyError as exc:  # an ACL may forbid it; then changes are heard of when they are asked for
            logger.info("No client tracking on %s: %s", address.name, exc)
    return int(greeting.get(b"id", 0)) if isinstance(greeting, dict) else 0
