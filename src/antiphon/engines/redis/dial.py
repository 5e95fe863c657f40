"""Connections of redis-py to an Address, for synchronous code and for questions about the topology.

Bare connections without redis-py's clients, pools and retries: whoever dials says how long, and closes what it got.
"""

from __future__ import annotations

import inspect
import ssl
from collections.abc import Sequence
from typing import Any

import redis.asyncio.connection as aio
import redis.connection as blocking
from hiredis import pack_command
from redis.exceptions import RedisError

from .hosts import Address

__all__ = ["DialError", "ask", "ask_blocking", "dial", "dial_blocking", "pack"]

# What a connection that fails raises: redis-py's own errors, and those of sockets that it lets through.
DialError = (RedisError, OSError)

_pack_command: Any = pack_command  # its stub knows tuples of one item alone
# redis-py is typed in part.
_unix: Any = blocking.UnixDomainSocketConnection
_tcp: Any = blocking.Connection

# Two round trips of CLIENT SETINFO saved at each connection, where redis-py can be told so.
_QUIET = "driver_info" in inspect.signature(blocking.AbstractConnection.__init__).parameters


class _TlsConnection(blocking.SSLConnection):
    """redis-py's, with a context that was made where the options were read."""

    context: ssl.SSLContext

    def _wrap_socket_with_ssl(self, sock: Any) -> ssl.SSLSocket:
        return self.context.wrap_socket(sock, server_hostname=self.host)


class _AsyncTlsConnection(aio.SSLConnection):
    context: ssl.SSLContext

    def _connection_arguments(self) -> dict[str, Any]:
        return {"host": self.host, "port": self.port, "ssl": self.context}


def _arguments(address: Address, timeout_s: float, *, sentinel: bool) -> dict[str, Any]:
    arguments: dict[str, Any] = {
        "username": address.username,
        "password": address.password,
        "socket_timeout": timeout_s,
        "socket_connect_timeout": min(timeout_s, address.connect_timeout_s),
        "protocol": 3,
    }
    if _QUIET:
        arguments["driver_info"] = None
    if address.path is not None:
        arguments["path"] = address.path
    else:
        arguments.update(host=address.host, port=address.port)
    if not sentinel:
        arguments["db"] = address.db
    return arguments


def pack(*command: bytes | str | int) -> bytes:
    """Return a command as it goes over the wire."""
    packed: bytes = _pack_command(command)
    return packed


def dial_blocking(address: Address, timeout_s: float, *, sentinel: bool = False) -> Any:
    """Return a connected redis-py Connection whose every read and write may take ``timeout_s``."""
    arguments = _arguments(address, timeout_s, sentinel=sentinel)
    connection: Any
    if address.path is not None:
        connection = _unix(**arguments)
    elif address.ssl is not None:
        connection = _TlsConnection(**arguments)
        connection.context = address.ssl
    else:
        connection = _tcp(**arguments)
    try:
        connection.connect()
    except BaseException:
        connection.disconnect()
        raise
    return connection


async def dial(address: Address, timeout_s: float, *, sentinel: bool = False) -> Any:
    """As ``dial_blocking``, for coroutines."""
    arguments = _arguments(address, timeout_s, sentinel=sentinel)
    connection: Any
    if address.path is not None:
        connection = aio.UnixDomainSocketConnection(**arguments)
    elif address.ssl is not None:
        connection = _AsyncTlsConnection(**arguments)
        connection.context = address.ssl
    else:
        connection = aio.Connection(**arguments)
    try:
        await connection.connect()
    except BaseException:
        await connection.disconnect(nowait=True)
        raise
    return connection


def ask_blocking(
    address: Address, commands: Sequence[Sequence[Any]], timeout_s: float, *, sentinel: bool = False
) -> list[Any]:
    """Send commands on a connection of their own and return the replies; an error reply is raised."""
    connection = dial_blocking(address, timeout_s, sentinel=sentinel)
    try:
        replies = []
        for command in commands:
            connection.send_command(*command)
            replies.append(connection.read_response())
        return replies
    finally:
        connection.disconnect()


async def ask(
    address: Address, commands: Sequence[Sequence[Any]], timeout_s: float, *, sentinel: bool = False
) -> list[Any]:
    """As ``ask_blocking``, for coroutines."""
    connection = await dial(address, timeout_s, sentinel=sentinel)
    try:
        replies = []
        for command in commands:
            await connection.send_command(*command)
            replies.append(await connection.read_response())
        return replies
    finally:
        await connection.disconnect(nowait=True)
