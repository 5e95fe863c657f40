"""Measures what one message to a room of N real sockets costs the server, and how long it takes, beside its peers.

One server process on a core of its own, the load generator (``sockets/load.c``) and any Valkey on another; uvloop,
httptools, no compression, no access log, no pings. A client of the room sends chat texts; everybody gets a text frame
of 128 bytes. Cost: user and system time of the server's process over deliveries at saturation, where a message is always
on its way while the one before is being delivered. Beside the limit, which sends each frame on its own, messages go one at
a time, so that no two leave in one write. Every message of every client is counted by its number: one that is lost, repeated
or out of order ends the run.

``antiphon`` runs on its own protocol class or on ``uvicorn``'s, with the stock chat handler, with the same and
``shares_messages``, or with the same text from a relay. The baseline is Channels' in-memory layer on uvicorn. The limit
is a C program that calls ``send()`` once a socket and message (``sockets/limit.c``); ``bare`` is uvloop without any
application (``sockets/bare.py``).

Bounds, room of 1,000:

- stock at least 13 times as cheap as the baseline on uvicorn's class, 18 on ours; with ``shares_messages`` 15 and 20;
- a relay on ours at least 40 times, and at most 1.75 times the cost of the limit; 1.35 in a room of 5,000;
- ten messages that arrive in one turn of the loop: below the cost of the limit, which sends each on its own;
- p99 from send to receipt at 2,000 deliveries a second: at most 1.5 times the better of the limit and ``bare``, and a
  tenth of the baseline's.
"""

from __future__ import annotations

import contextlib
import sys
from collections.abc import Iterator, Mapping
from typing import Any, TypeAlias

from engine_server import valkey
from harness import Case, Ratio, main, pick_core
from sockets.programs import generator

N = 1000
LARGE = 5000
COST = "cpu_us_per_delivery"
SINGLE = "single_us_per_delivery"
BURST = "burst_us_per_delivery"
P99 = "p99_ms"

# Of one block, quick and full; None: not at all.
Part: TypeAlias = tuple[dict[str, Any] | None, dict[str, Any]]
SATURATION: Part = ({"seconds": 0.25}, {"seconds": 2})
SLOW: Part = ({"seconds": 0.5}, {"seconds": 4})
SINGLES: Part = ({"seconds": 0.25}, {"seconds": 1})
BURSTS: Part = ({"seconds": 0.2}, {"seconds": 1})
# 2,000 deliveries a second in a room of 1,000.
RATE: Part = ({"messages": 3, "per_s": 2}, {"messages": 10, "per_s": 2})


def case(
    name: str,
    side: str,
    application: Mapping[str, Any],
    members: int = N,
    **parts: Part,
) -> Case:
    """Return a case whose blocks have ``parts``, each with what is quick and what is full."""
    return Case(
        f"{name} N={members:,}",
        side,
        "broadcast",
        {"application": application, "members": members},
        {"parts": {part: which[0] for part, which in parts.items() if which[0]}},
        {"parts": {part: which[1] for part, which in parts.items()}},
    )


def ours(server: str, kind: str, members: int = N, **parts: Part) -> Case:
    """Return a case of Antiphon on its own protocol class ("antiphon") or on "uvicorn"'s."""
    application = {"side": "antiphon", "server": server, "kind": kind}
    parts = {"saturation": SATURATION, **parts}
    return case(f"antiphon {kind} on {server}", "antiphon_uvicorn", application, members, **parts)


def alone(program: str, members: int = N, **parts: Part) -> Case:
    """Return a case of a program without an application: "limit" or "bare"."""
    return case(program, "antiphon_uvicorn", {"side": program}, members, saturation=SATURATION, single=SINGLES, **parts)


def channels(name: str, side: str, members: int = N, *, rate: bool = True, **application: Any) -> Case:
    """Return a case of Channels."""
    given = {"side": "channels", "server": "uvicorn", "kind": "stock", **application}
    return case(name, side, given, members, saturation=SLOW, **({"rate": RATE} if rate else {}))


BASELINE = "channels on uvicorn N=1,000"
CASES = [
    alone("limit", burst=BURSTS, rate=RATE),
    alone("bare", rate=RATE),
    ours("antiphon", "relay", single=SINGLES, burst=BURSTS, rate=RATE),
    channels("channels on uvicorn", "channels_uvicorn"),
    ours("uvicorn", "stock"),
    ours("antiphon", "stock"),
    ours("uvicorn", "shares"),
    ours("antiphon", "shares"),
    alone("limit", LARGE),
    ours("antiphon", "relay", LARGE, single=SINGLES),
]
SOCKETIO = {"side": "socketio", "server": "uvicorn"}
# Only told, so a quick run goes without.
TOLD = [
    ours("uvicorn", "relay", burst=BURSTS, rate=RATE),
    ours("antiphon", "stock", LARGE),
    channels("channels, Redis layer, on uvicorn", "channels_uvicorn", layer="redis"),
    channels("channels on daphne", "channels_daphne", server="daphne"),
    case("python-socketio on uvicorn", "socketio_uvicorn", SOCKETIO, saturation=SLOW, rate=RATE),
]


def named(name: str) -> str:
    """Return the name of a case in the room of 1,000."""
    return f"{name} N=1,000"


RELAY, LIMIT, BARE = named("antiphon relay on antiphon"), named("limit"), named("bare")
RATIOS = [
    Ratio("stock on uvicorn", BASELINE, named("antiphon stock on uvicorn"), COST, at_least=13),
    Ratio("stock", BASELINE, named("antiphon stock on antiphon"), COST, at_least=18),
    Ratio("shares on uvicorn", BASELINE, named("antiphon shares on uvicorn"), COST, at_least=15),
    Ratio("shares", BASELINE, named("antiphon shares on antiphon"), COST, at_least=20),
    Ratio("relay", BASELINE, RELAY, COST, at_least=40),
    Ratio("relay to limit (goal 1.5)", RELAY, LIMIT, SINGLE, at_most=1.75),
    Ratio(
        "N=5,000 relay to limit (goal 1.2)", "antiphon relay on antiphon N=5,000", "limit N=5,000", SINGLE, at_most=1.35
    ),
    Ratio("ten at once to limit", RELAY, LIMIT, BURST, at_most=0.999),
    Ratio("p99 to limit and bare", RELAY, (LIMIT, BARE), P99, at_most=1.5),
    Ratio("p99 to baseline", RELAY, BASELINE, P99, at_most=0.1),
]
TOLD_RATIOS = [
    Ratio("relay on uvicorn", BASELINE, named("antiphon relay on uvicorn"), COST),
    Ratio("limit", BASELINE, LIMIT, COST),
    Ratio("bare to limit", BARE, LIMIT, SINGLE),
    *(
        Ratio(f"{name} to relay", named(name), RELAY, COST)
        for name in ("channels, Redis layer, on uvicorn", "channels on daphne", "python-socketio on uvicorn")
    ),
]


@contextlib.contextmanager
def around(core: int | None) -> Iterator[Mapping[str, Any]]:
    """Yield what every case gets to know: the load generator's, and a Valkey where one is used."""
    with contextlib.ExitStack() as stack:
        common = dict(stack.enter_context(generator(core)))
        if any(case.parameters["application"].get("layer") for case in CASES):
            found = stack.enter_context(valkey(None if core is None else pick_core(apart=True)))
            common["server"] = found["server"]
        yield common


if __name__ == "__main__":
    if "--quick" not in sys.argv:
        CASES += TOLD
        RATIOS += TOLD_RATIOS
    sys.exit(main("broadcast", __doc__, CASES, RATIOS, rounds=(3, 9), around=around))
