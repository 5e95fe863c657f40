"""Says once a process what the server lacks that a WebSocket needs. Knows servers by their modules' names alone.

What is said here is what ``docs/servers.md`` shows; ``make servers`` measures it anew.
"""

from __future__ import annotations

import functools
import logging
from collections.abc import Iterator
from importlib import metadata
from types import FunctionType
from typing import Any

from ..types import Scope, Send

__all__ = ["GAPS", "warn_of_gaps"]

logger = logging.getLogger("antiphon.server")

# Server -> what one client, or one restart, can do to an application there.
GAPS = {
    "uvicorn": (
        "with its own WebSocket class: a client that neither reads nor answers pings is never cut off, and SIGTERM "
        "waits for it for ever unless --timeout-graceful-shutdown is set"
    ),
    "hypercorn": (
        "never cuts off a client that does not answer pings, waits at SIGTERM for ever for one that does not read, "
        "tells no close code of a client, and lets a compressed message take ten times its limit of memory"
    ),
    "granian": (
        "sends no close frame of a consumer before the client sends something, sends no pings, and cuts connections "
        "and their clean-up at SIGTERM"
    ),
    "daphne": (
        "keeps in memory whatever is sent to a client that does not read, leaves connections open that are closed with "
        "a code from 1001 to 2999, loses empty messages, and ends at SIGTERM without telling the application"
    ),
}
# More wrappers than this around a server's send() are not looked through.
_WRAPPERS_MAX = 64

# A process has one server as a rule, and a second line about it helps nobody.
_looked = False


def warn_of_gaps(scope: Scope, send: Send) -> None:
    """Log one warning a process where the server of its first WebSocket has known gaps. Later calls do nothing."""
    global _looked
    if _looked or scope.get("type") != "websocket":
        return
    _looked = True
    server = _server_of(send)
    if server in GAPS:
        logger.warning(
            "%s %s; docs/servers.md says what that means. Without gaps: "
            "uvicorn --ws antiphon.server:WebSocketProtocol --http antiphon.server:HTTPProtocol",
            _with_version(server),
            GAPS[server],
        )


def _server_of(send: Any) -> str:
    """Return the package of the server whose ``send`` this is, or ``antiphon`` for our class; "" where none is known."""
    for kind in _senders(send):
        for base in kind.__mro__:
            module = base.__module__
            if module.startswith("antiphon.server."):
                return "antiphon"
            package = module.partition(".")[0]
            if package in GAPS:
                return package
    return ""


def _senders(send: Any) -> Iterator[type]:
    """Go through what middlewares have put around ``send``: the types of what is underneath, from the outside in."""
    waiting = [send]
    for _ in range(_WRAPPERS_MAX):
        if not waiting:
            return
        found = waiting.pop(0)
        if isinstance(found, functools.partial):
            waiting += [found.func, *filter(callable, (*found.args, *found.keywords.values()))]
        elif isinstance(found, FunctionType):
            for cell in found.__closure__ or ():
                try:
                    inner = cell.cell_contents
                except ValueError:  # not filled yet
                    continue
                if callable(inner):
                    waiting.append(inner)
        else:
            owner = getattr(found, "__self__", found)
            if not isinstance(owner, type):
                yield type(owner)
            # How our own middlewares name what is underneath.
            if (inner := getattr(found, "after_accept", None)) is not None:
                waiting.append(inner)


def _with_version(package: str) -> str:
    try:
        return f"{package} {metadata.version(package)}"
    except metadata.PackageNotFoundError:
        return package
