"""The first words on a connection: RESP3, who we are, which database, what to announce. Knows no link."""

from __future__ import annotations

import logging
import re

from ...exceptions import EngineUnavailable
from .append import origin_of
from .connection import Connection, ReplyError, look, until_ended
from .history_scripts import APPEND
from .hosts import Address
from .settings import LinkSettings

__all__ = ["greet"]

logger = logging.getLogger("antiphon.engine")

# What was logged of which server: one line a process, not one for each attempt to connect.
_told: set[tuple[str, str]] = set()


async def greet(connection: Connection, address: Address, settings: LinkSettings) -> str:
    """Make a connection ready; return what names this run of the server: another after a restart, "" if it is not told.

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
            _tell_once(address, "client tracking", exc)
    # Answered before any append that comes after it; refused, the first of those says so.
    connection.call("SCRIPT", "LOAD", APPEND.text).add_done_callback(look)
    try:
        run_id = await _info(connection, "server", rb"run_id:(\w+)")
        replication_id = await _info(connection, "replication", rb"master_replid:(\w+)")
    except ReplyError as exc:  # an ACL may forbid it; then a restart looks like a connection that broke
        _tell_once(address, "INFO", exc)
        return ""
    connection.origin = origin_of(run_id, replication_id)
    return run_id


async def _info(connection: Connection, section: str, pattern: bytes) -> str:
    info = await until_ended(connection, connection.call("INFO", section))
    found = re.search(pattern, info if isinstance(info, bytes) else str(info).encode())
    return found[1].decode() if found is not None else ""


def _tell_once(address: Address, what: str, exc: ReplyError) -> None:
    if (address.name, what) not in _told:
        _told.add((address.name, what))
        logger.info("No %s on %s: %s", what, address.name, exc)
