"""Measures what a client that reads nothing any more does to the others of its room, and to the server's memory.

Real sockets, one server process on a core of its own, the load generator on another. Two rooms take turns, 250 messages
of 1 KiB each at a fixed pace; in one of them a further client stops reading after its handshake. It is sent 10,000
messages; then it reads again, and what it gets and what the layer counts as dropped must be all of them.

Bounds: the others' p99 from send to receipt within 1.2 times of that in the room without it; the process grows by at
most 4 MiB, of 10 that were sent; some messages are dropped and each of them is counted.
"""

from __future__ import annotations

import sys
from typing import Any

from harness import Case, Ratio, main
from sockets.programs import generator

QUICK: dict[str, Any] = {"members": 5, "per_s": 4000}
FULL: dict[str, Any] = {"members": 50, "per_s": 800}


def case(name: str, **application: Any) -> Case:
    """Return the case of one server and application. The others' mailboxes outlast a pause of a quarter of a second."""
    parameters = {"application": {"capacity": 1000, **application}, "messages": 10_000, "size": 1024}
    return Case(name, f"{application['side']}_uvicorn", "stalled", parameters, QUICK, FULL)


OURS = ("stock", "relay")
CASES = [case(f"antiphon {kind}", side="antiphon", server="antiphon", kind=kind) for kind in OURS]
RATIOS = [
    ratio
    for kind in OURS
    for ratio in (
        Ratio(f"p99 beside it, {kind}", f"antiphon {kind}", (), "p99_ratio", at_most=1.2),
        Ratio(f"memory KiB, {kind}", f"antiphon {kind}", (), "grown_kib", at_most=4096),
        Ratio(f"dropped, {kind}", f"antiphon {kind}", (), "dropped_for_it", at_least=1),
        Ratio(f"unaccounted, {kind}", f"antiphon {kind}", (), "unaccounted", at_least=0, at_most=0),
    )
]

if __name__ == "__main__":
    sys.exit(main("stalled", __doc__, CASES, RATIOS, rounds=(3, 7), around=generator))
