"""Measures what comes through an engine, beside channels_redis 4.3.0, its core and its pub/sub layer, in one run.

One Valkey, started from its package, on a Unix socket; uvloop on every side; no WebSockets. A delivery: the stock handler
ran, encoded its own JSON, and ASGI ``send`` was called with the right text. The message has 111 bytes as msgpack, which
every side uses; what a layer puts around (ours 28 bytes, core's 12) comes on top. All processes of a case, and the server,
share one core, so that a rate is what the whole way costs. Where the server's own time is measured the consumers are on
another, so that they do not empty its caches. A message that a member does not get ends the run.

Floors, against the better of the two layers:

- two processes with 500 members each, one of them sends: 8 times the deliveries a second; one message of the engine
  for each process and send;
- the server's own time for a send, at 1,000 members of one process and at 1: within 20 % (channels_redis' is only told).

What a send costs its caller is ``bench_publish.py``. core runs with redis-py 7, the newest that it works with as it is
(``peers/channels_redis_core.in``), pub/sub with the newest.
"""

from __future__ import annotations

import sys
from typing import Any

from engine_server import valkey
from harness import Case, Ratio, main

SIDES = {"antiphon": "antiphon", "core": "channels_redis_core", "pubsub": "channels_redis_pubsub"}
PEERS = ("core", "pubsub")


def case(side: str, what: str, parameters: dict[str, Any], quick: Any, full: Any, *, apart: bool = False) -> Case:
    """Return a case with keys of its own on the server that all share."""
    name = f"{side} {what}"
    prefix = name.replace(" ", "-").replace(",", "")
    parameters = {"loop": "uvloop", "prefix": prefix, **parameters}
    return Case(name, SIDES[side], "engine_fanout", parameters, quick, full, apart)


def fanout(side: str) -> Case:
    """Two processes with 500 members each."""
    quick_s = 0.3 if side == "antiphon" else 0.5
    parameters = {"members": 500, "processes": 2, "burst": 4}
    return case(side, "2x500", parameters, {"seconds": quick_s}, {"seconds": 2})


def cost(side: str, members: int) -> Case:
    """One process, sends at the same pace whatever the number of members: what else the server does costs the same."""
    quick, full, period_s = (120, 240, 0.008) if side == "antiphon" else (2, 8, 0.08)
    parameters = {"members": members, "period_s": period_s}
    return case(side, f"N={members:,}", parameters, {"sends": quick}, {"sends": full}, apart=True)


CASES = [
    *(fanout(side) for side in SIDES),
    *(cost(side, members) for side in SIDES for members in (1, 1000)),
]
TWO = "antiphon 2x500"
COST = "server_us_per_send"
RATIOS = [
    Ratio("2x500", TWO, tuple(f"{side} 2x500" for side in PEERS), "deliveries_per_s", at_least=8),
    Ratio("messages a node", TWO, (), "messages_per_node_and_send", at_least=0.999, at_most=1.001),
    Ratio("publishes", TWO, (), "publishes_per_send", at_least=0.999, at_most=1.001),
    Ratio("server 1,000 to 1", "antiphon N=1,000", "antiphon N=1", COST, at_least=0.8, at_most=1.2),
    *(Ratio(f"server 1,000 to 1, {side}", f"{side} N=1,000", f"{side} N=1", COST) for side in PEERS),
]

# What the server's time for a send of theirs is, is only told: a quick run goes without, which spares four start-ups.
TOLD = {f"{side} N={members}" for side in PEERS for members in ("1", "1,000")}


if __name__ == "__main__":
    if "--quick" in sys.argv:
        CASES = [case for case in CASES if case.name not in TOLD]
        RATIOS = [ratio for ratio in RATIOS if ratio.of not in TOLD]
    sys.exit(main("engines", __doc__, CASES, RATIOS, rounds=(3, 9), around=valkey))
