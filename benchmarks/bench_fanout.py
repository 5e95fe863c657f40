"""Measures how fast one message reaches every member of a group, beside Channels' in-memory layer, in one process.

One process a case: N stock ``AsyncWebsocketConsumer``s whose handler does ``await self.send(text_data=json.dumps(…))``,
called as ASGI applications with hand-made scope, ``receive`` and ``send`` (no server); asyncio's own loop, capacity
1,000, 80-byte text. The next ``group_send`` begins when the last member has called ASGI ``send`` with the right text.
Also measured: resident memory of each idle consumer, its group joined.

Floors: 15 times Channels' deliveries a second at N=1 and 40 times at N=1,000; at N=10,000 half our own rate of N=1,000;
at most half of Channels' memory.
"""

from __future__ import annotations

import sys

from harness import Case, Ratio, main

RATE = "deliveries_per_s"


def case(side: str, members: int, *, quick_s: float, full_s: float, sends_min: int = 1) -> Case:
    """Return the case of one side with one number of members; a block takes so many seconds."""
    return Case(
        name=f"{side} N={members:,}",
        side=side,
        workload="fanout",
        parameters={"members": members, "sends_min": sends_min},
        quick={"seconds": quick_s},
        full={"seconds": full_s},
    )


CASES = [
    case("channels", 1, quick_s=0.2, full_s=1),
    case("antiphon", 1, quick_s=0.2, full_s=1),
    # One message takes Channels about 0.2 s here.
    case("channels", 1000, quick_s=0.3, full_s=2, sends_min=2),
    case("antiphon", 1000, quick_s=0.2, full_s=1, sends_min=2),
    case("antiphon", 10000, quick_s=0.2, full_s=1, sends_min=2),
]
RATIOS = [
    Ratio("N=1", "antiphon N=1", "channels N=1", RATE, at_least=15),
    Ratio("N=1,000", "antiphon N=1,000", "channels N=1,000", RATE, at_least=40),
    Ratio("N=10,000 to N=1,000", "antiphon N=10,000", "antiphon N=1,000", RATE, at_least=0.5),
    Ratio("idle memory", "antiphon N=1,000", "channels N=1,000", "idle_bytes_per_consumer", at_most=0.5),
]

if __name__ == "__main__":
    sys.exit(main("fanout", __doc__, CASES, RATIOS, rounds=(9, 15)))
