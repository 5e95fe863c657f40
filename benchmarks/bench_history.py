"""Measures what a history costs: a ``group_send`` that is kept, beside a plain one, and a recovery of 100 messages.

One Valkey with its append-only file on (written every second), started from its package, on a Unix socket, and on the
same core; uvloop. The message has 111 bytes as msgpack, ours adds 28. Sends: 100 tasks await ``group_send`` to a group that nobody
is in; its history keeps 100. A recovery: from the call of ``join(group, since=…)`` in a consumer to its result, one at a time;
``first``: nobody else on the node is in the group, so that it subscribes; ``beside``: somebody is.

Bounds: a fifth of the plain one's rate, which is 60,000 where that makes 300,000; at most 12 us of the server's CPU a
send; at most 5 ms at p99 for a recovery.
"""

from __future__ import annotations

import sys
from functools import partial
from typing import Any

from engine_server import valkey
from harness import Case, Ratio, main

GROUPS = {"bench*": {"history_size": 100, "history_ttl": 300}}


def sends(name: str, **parameters: Any) -> Case:
    """Return the case of 100 tasks that send."""
    parameters = {"loop": "uvloop", "prefix": name.replace(" ", "-"), "tasks": 100, **parameters}
    return Case(f"sends, {name}", "antiphon", "publish", parameters, {"seconds": 0.4}, {"seconds": 1})


def recovery(name: str, *, beside: bool) -> Case:
    """Return the case of recoveries."""
    parameters = {"loop": "uvloop", "prefix": name.replace(" ", "-"), "groups": GROUPS, "beside": beside}
    return Case(f"recovery, {name}", "antiphon", "history_join", parameters)


PLAIN, KEPT = "sends, plain", "sends, kept"
FIRST, BESIDE = "recovery, first", "recovery, beside"
CASES = [
    sends("plain"),
    sends("kept", groups=GROUPS),
    recovery("first", beside=False),
    recovery("beside", beside=True),
]
RATIOS = [
    Ratio("kept to plain", KEPT, PLAIN, "sends_per_s", at_least=0.2),
    Ratio("server us a send", KEPT, (), "server_us_per_send", at_most=12),
    Ratio("recovery ms, first", FIRST, (), "join_p99_ms", at_most=5),
    Ratio("recovery ms, beside", BESIDE, (), "join_p99_ms", at_most=5),
]

if __name__ == "__main__":
    sys.exit(main("history", __doc__, CASES, RATIOS, rounds=(3, 9), around=partial(valkey, append_only=True)))
