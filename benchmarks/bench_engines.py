"""Measures an engine beside channels_redis 4.3.0, its core and its pub/sub layer, in one run.

One Valkey, started from its package, on a Unix socket; uvloop on every side; no WebSockets. A delivery: the stock handler
ran, encoded its own JSON, and ASGI ``send`` was called with the right text. The message has 111 bytes as msgpack, which
every side uses; what a layer puts around (ours 28 bytes, core's 12) comes on top, and redis-py alone publishes the 111.
All processes of a case, and the server, share one core, so that a rate is what the whole way costs. Where the server's
own time is measured the consumers are on another, so that they do not empty its caches; and synchronous code that sends
has one to itself, while the member that it sends to is on the server's.

Floors, against the better of the two layers:

- two processes with 500 members each, one of them sends: 8 times the deliveries a second; one message of the engine
  for each process and send;
- the server's own time for a send, at 1,000 members of one process and at 1: within 20 % (channels_redis' is only told);
- ``await group_send`` in 100 tasks, no members: 10 times the rate; 2 times that of redis-py's asyncio pipelines of 100;
- ``antiphon.group_send`` from synchronous code to one member in another process: 15 times the rate of ``async_to_sync(group_send)``, and 0.8 of redis-py's
  ``publish``; ``async_to_sync(group_send)`` 5 times theirs; no new connection for a call.

core runs with redis-py 7, the newest that it works with as it is (``peers/channels_redis_core.in``), pub/sub with the newest.
"""

from __future__ import annotations

import sys
from typing import Any

from engine_server import valkey
from harness import Case, Ratio, main

SIDES = {"antiphon": "antiphon", "core": "channels_redis_core", "pubsub": "channels_redis_pubsub"}
PEERS = ("core", "pubsub")


def case(
    side: str, what: str, workload: str, parameters: dict[str, Any], quick: Any, full: Any, *, apart: bool = False
) -> Case:
    """Return a case with keys of its own on the server that all share."""
    name = f"{side} {what}"
    prefix = name.replace(" ", "-").replace(",", "")
    return Case(name, SIDES[side], workload, {"loop": "uvloop", "prefix": prefix, **parameters}, quick, full, apart)


def fanout(side: str) -> Case:
    """Two processes with 500 members each."""
    quick_s = 0.3 if side == "antiphon" else 0.5
    parameters = {"members": 500, "processes": 2, "burst": 4}
    return case(side, "2x500", "engine_fanout", parameters, {"seconds": quick_s}, {"seconds": 2})


def cost(side: str, members: int) -> Case:
    """One process, sends at the same pace whatever the number of members: what else the server does costs the same."""
    quick, full, period_s = (120, 240, 0.008) if side == "antiphon" else (2, 8, 0.08)
    parameters = {"members": members, "period_s": period_s}
    return case(side, f"N={members:,}", "engine_fanout", parameters, {"sends": quick}, {"sends": full}, apart=True)


def publish(side: str, what: str, **parameters: Any) -> Case:
    """Sends to nobody, awaited."""
    return case(side, what, "publish", parameters, {"seconds": 0.2}, {"seconds": 1})


def called(side: str, what: str, way: str) -> Case:
    """Sends of synchronous code, which has a core of its own, to one member in a process on the server's.

    It has no loop; the ones that ``async_to_sync`` makes for it are asyncio's own, as everything here.
    """
    parameters = {"way": way, "loop": "asyncio"}
    return case(side, what, "publish", parameters, {"seconds": 0.2}, {"seconds": 1}, apart=True)


def redis_py(what: str, *, apart: bool = False, **parameters: Any) -> Case:
    """redis-py alone, the one that Antiphon uses."""
    parameters = {"loop": "uvloop", "prefix": "redis-py", **parameters}
    return Case(f"redis-py {what}", "antiphon", "redis_client", parameters, {"seconds": 0.2}, {"seconds": 1}, apart)


CASES = [
    *(fanout(side) for side in SIDES),
    *(cost(side, members) for side in SIDES for members in (1, 1000)),
    *(publish(side, "100 tasks", tasks=100) for side in SIDES),
    redis_py("pipelines of 100", size=100),
    called("antiphon", "synchronous", "plain"),
    redis_py("synchronous", apart=True),
    *(called(side, "async_to_sync", "async_to_sync") for side in SIDES),
    called("antiphon", "async_to_sync of nothing", "empty"),
]


def peers(what: str) -> tuple[str, ...]:
    """Return the cases of both layers of channels_redis."""
    return tuple(f"{side} {what}" for side in PEERS)


OURS = {side: f"antiphon {side}" for side in ("2x500", "N=1,000", "N=1", "100 tasks", "synchronous", "async_to_sync")}
SENDS = "sends_per_s"
COST = "server_us_per_send"
NEW = "connections_per_send"
RATIOS = [
    Ratio("2x500", OURS["2x500"], peers("2x500"), "deliveries_per_s", at_least=8),
    Ratio("messages a node", OURS["2x500"], (), "messages_per_node_and_send", at_least=0.999, at_most=1.001),
    Ratio("publishes", OURS["2x500"], (), "publishes_per_send", at_least=0.999, at_most=1.001),
    Ratio("server 1,000 to 1", OURS["N=1,000"], OURS["N=1"], COST, at_least=0.8, at_most=1.2),
    *(Ratio(f"server 1,000 to 1, {side}", f"{side} N=1,000", f"{side} N=1", COST) for side in PEERS),
    Ratio("100 tasks", OURS["100 tasks"], peers("100 tasks"), SENDS, at_least=10),
    Ratio("100 tasks to pipelines", OURS["100 tasks"], "redis-py pipelines of 100", SENDS, at_least=2),
    Ratio("synchronous", OURS["synchronous"], peers("async_to_sync"), SENDS, at_least=15),
    Ratio("synchronous to redis-py", OURS["synchronous"], "redis-py synchronous", SENDS, at_least=0.8),
    Ratio("async_to_sync", OURS["async_to_sync"], peers("async_to_sync"), SENDS, at_least=5),
    Ratio("async_to_sync of nothing", "antiphon async_to_sync of nothing", peers("async_to_sync"), SENDS),
    Ratio("new connections", OURS["synchronous"], (), NEW, at_most=0),
    Ratio("new connections, async_to_sync", OURS["async_to_sync"], (), NEW, at_most=0),
]

# What the server's time for a send of theirs is, is only told: a quick run goes without, which spares four start-ups.
TOLD = {f"{side} N={members}" for side in PEERS for members in ("1", "1,000")}


if __name__ == "__main__":
    if "--quick" in sys.argv:
        CASES = [case for case in CASES if case.name not in TOLD]
        RATIOS = [ratio for ratio in RATIOS if ratio.of not in TOLD]
    sys.exit(main("engines", __doc__, CASES, RATIOS, rounds=(3, 9), around=valkey))
