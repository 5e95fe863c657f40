"""Measures what a connection costs: CPU to open and close one, and the server's memory while it is idle.

Real sockets, one server process on a core of its own, the load generator on another; uvloop, httptools, no compression,
no access log. A client sends twelve headers, with the cookie of a session that exists, and its consumer joins one group.
``bare``: routes and consumer; ``stack``: a project's whole application, with origin check, session and user from a
database (``asgi_application`` beside Channels' ``AuthMiddlewareStack``). CPU: user and system time of the server's
process over connections, 32 at a time, until it has nothing left to do.

Bounds: opening a connection without session at most a quarter of Channels' CPU; an idle connection at most 12 KiB (goal
8), bare and with the stack; 15,000 connections held by one process, each of which gets a message.
"""

from __future__ import annotations

import sys
from typing import Any

from harness import Case, Ratio, main
from sockets.programs import generator

HELD = 15_000


def case(
    name: str,
    side: str,
    server: str,
    *,
    stack: bool,
    quick: int,
    full: int = 2000,
    passing: tuple[int, int] = (500, 2000),
) -> Case:
    """Return the case of one application; ``quick``, ``full``: how many idle connections; ``passing``: how many others."""
    application: dict[str, Any] = {"side": side, "server": server, "kind": "stock", "stack": stack}
    return Case(
        name,
        f"{side}_uvicorn",
        "connections",
        {"application": application},
        {"idle": quick, "passing": passing[0]},
        {"idle": full, "passing": passing[1]},
    )


def many(name: str, side: str, server: str, *, stack: bool) -> Case:
    """Return a case that only holds its connections."""
    return case(f"{name} {HELD:,}", side, server, stack=stack, quick=HELD, full=HELD, passing=(0, 0))


OURS, OURS_STACK = "antiphon bare", "antiphon stack"
PEER, PEER_STACK = "channels bare", "channels stack"
MANY, MANY_STACK = f"{OURS} {HELD:,}", f"{OURS_STACK} {HELD:,}"
CASES = [
    case(OURS, "antiphon", "antiphon", stack=False, quick=1000),
    case(OURS_STACK, "antiphon", "antiphon", stack=True, quick=1000),
    case("antiphon bare on uvicorn", "antiphon", "uvicorn", stack=False, quick=1000),
    case(PEER, "channels", "uvicorn", stack=False, quick=1000, passing=(300, 2000)),
    case(PEER_STACK, "channels", "uvicorn", stack=True, quick=400, passing=(100, 1000)),
    many(OURS, "antiphon", "antiphon", stack=False),
]
RATIOS = [
    Ratio("connect", OURS, PEER, "connect_us", at_most=0.25),
    Ratio("connect, with the stack", OURS_STACK, PEER_STACK, "connect_us"),
    Ratio("idle KiB (goal 8)", MANY, (), "idle_kib", at_most=12),
    Ratio("idle KiB with the stack (goal 8)", OURS_STACK, (), "idle_kib", at_most=12),
    Ratio("idle", OURS, PEER, "idle_kib"),
    Ratio("idle, with the stack", OURS_STACK, PEER_STACK, "idle_kib"),
    Ratio("held", MANY, (), "held", at_least=HELD),
]
# A quick run goes without: it takes a quarter of a minute to open so many. Channels is not asked: its layer in memory takes
# more than half a minute for one message to 15,000.
FULL_CASES = [
    many(OURS_STACK, "antiphon", "antiphon", stack=True),
]
FULL_RATIOS = [
    Ratio("idle KiB with the stack of 15,000", MANY_STACK, (), "idle_kib", at_most=12),
    Ratio("held with the stack", MANY_STACK, (), "held", at_least=HELD),
]

if __name__ == "__main__":
    if "--quick" not in sys.argv:
        CASES += FULL_CASES
        RATIOS += FULL_RATIOS
    sys.exit(main("connections", __doc__, CASES, RATIOS, rounds=(3, 9), around=generator))
