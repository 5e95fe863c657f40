"""One thread's database connections for all threads of a test. Imports Django when it is used."""

from __future__ import annotations

import threading
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from typing import Any

__all__ = ["in_memory", "shared_connections"]


def in_memory(connection: Any) -> bool:
    """Say whether a connection's database lives in memory, so that a second connection needs care to find it."""
    return connection.vendor == "sqlite" and bool(connection.is_in_memory_db())


@contextmanager
def shared_connections(which: Callable[[Any], bool]) -> Iterator[None]:
    """Let every thread use this one's connections, those for which ``which`` is true; close what else they opened.

    Django's live server gives its threads the connections one by one. Here threads belong to several pools (the
    loop's, asgiref's, that of synchronous handlers), so the place where connections are kept is what is replaced.
    """
    from django.db import connections

    kept: Any = connections  # its place for connections is private, and the same since Django 3.2
    shared = {connection.alias: connection for connection in kept.all() if which(connection)}
    place = _SharedPlace(kept._connections, shared)
    for connection in shared.values():
        connection.inc_thread_sharing()
    kept._connections = place
    try:
        yield
    finally:
        kept._connections = place.own
        for connection in shared.values():
            connection.dec_thread_sharing()
        for connection in place.opened:
            # A pool's idle thread may have kept it; an open one would keep the test database from being destroyed.
            connection.inc_thread_sharing()
            connection.close()
            connection.dec_thread_sharing()


class _SharedPlace:
    """Stands in for the thread-local attributes of ``django.db.connections``: alias -> connection."""

    own: Any
    shared: Mapping[str, Any]
    opened: list[Any]
    thread: int

    def __init__(self, own: Any, shared: Mapping[str, Any]) -> None:
        # Past __setattr__, which is for connections.
        self.__dict__.update(own=own, shared=shared, opened=[], thread=threading.get_ident())

    def __getattr__(self, alias: str) -> Any:
        return self.shared[alias] if alias in self.shared else getattr(self.own, alias)

    def __setattr__(self, alias: str, connection: Any) -> None:
        if threading.get_ident() != self.thread:
            self.opened.append(connection)
        setattr(self.own, alias, connection)

    def __delattr__(self, alias: str) -> None:
        delattr(self.own, alias)
