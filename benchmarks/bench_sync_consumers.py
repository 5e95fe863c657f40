"""Measures how many blocking handlers of synchronous consumers run in a second, beside Channels.

100 connections of a ``SyncConsumer``, called as ASGI applications in one process; one ``group_send`` reaches them all,
each handler sleeps 10 ms and answers, and the next message leaves when the last has answered.

Floor: 10 times Channels' calls a second. (Channels runs all of them on one thread, so its limit is 100 a second.)
"""

from __future__ import annotations

import sys

from harness import Case, Ratio, main

PARAMETERS = {"connections": 100, "block_s": 0.01}

CASES = [
    Case("channels", "channels", "sync_consumers", PARAMETERS, quick={"messages": 1}, full={"messages": 3}),
    Case("antiphon", "antiphon", "sync_consumers", PARAMETERS, quick={"messages": 10}, full={"messages": 50}),
]
RATIOS = [Ratio("100 connections, 10 ms", "antiphon", "channels", "calls_per_s", at_least=10)]

if __name__ == "__main__":
    sys.exit(main("sync_consumers", __doc__, CASES, RATIOS, rounds=(3, 9)))
