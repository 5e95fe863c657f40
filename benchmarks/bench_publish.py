"""Measures what one ``group_send`` costs its caller, beside channels_redis 4.3.0 and Channels' in-memory layer, in one run.

Awaited: 100 tasks, a group that nobody is in, uvloop; one Valkey, started from its package, on a Unix socket, and on the
same core. Called by synchronous code: the sender has a core to itself, the group has one member, in a process on the
server's. The message has 111 bytes as msgpack, which every side uses; what a layer puts around (ours 28 bytes, core's 12)
comes on top, and redis-py alone publishes the 111. In memory: an 80-byte text to one member on the same loop, for
synchronous code in another thread; asyncio's own loop. A message that a member does not get, or that is dropped, fails
the run.

Floors, against the better of the two layers of channels_redis:

- ``await group_send`` in 100 tasks: 10 times the rate; 2 times that of redis-py's asyncio pipelines of 100;
- ``antiphon.group_send`` from synchronous code: 15 times the rate of ``async_to_sync(group_send)``, and 0.8 of redis-py's
  ``publish``; ``async_to_sync(group_send)`` 5 times theirs; no new connection for a call.

Beside the in-memory layer, rates are only told. core runs with redis-py 7, the newest that it works with as it is
(``peers/channels_redis_core.in``), pub/sub with the newest.
"""

from __future__ import annotations

import sys
from typing import Any

from engine_server import valkey
from harness import Case, Ratio, main

SIDES = {"antiphon": "antiphon", "core": "channels_redis_core", "pubsub": "channels_redis_pubsub"}
SECONDS = ({"seconds": 0.2}, {"seconds": 1})


def case(side: str, what: str, parameters: dict[str, Any], *, apart: bool = False) -> Case:
    """Return a case with keys of its own on the server that all share."""
    name = f"{side} {what}"
    parameters = {"loop": "uvloop", "prefix": name.replace(" ", "-"), **parameters}
    return Case(name, SIDES[side], "publish", parameters, *SECONDS, apart)


def called(side: str, what: str, way: str) -> Case:
    """Sends of synchronous code, which has a core of its own, to one member in a process on the server's.

    It has no loop; the ones that ``async_to_sync`` makes for it are asyncio's own, as everything here.
    """
    return case(side, what, {"way": way, "loop": "asyncio"}, apart=True)


def redis_py(what: str, *, apart: bool = False, **parameters: Any) -> Case:
    """redis-py alone, the one that Antiphon uses."""
    parameters = {"loop": "uvloop", "prefix": "redis-py", **parameters}
    return Case(f"redis-py {what}", "antiphon", "redis_client", parameters, *SECONDS, apart)


def memory(side: str, what: str, way: str) -> Case:
    """Sends on the layer in memory, which knows no server."""
    return Case(f"{side} memory, {what}", side, "publish_memory", {"way": way, "server": None}, *SECONDS)


CASES = [
    *(case(side, "100 tasks", {"tasks": 100}) for side in SIDES),
    redis_py("pipelines of 100", size=100),
    called("antiphon", "synchronous", "plain"),
    redis_py("synchronous", apart=True),
    *(called(side, "async_to_sync", "async_to_sync") for side in SIDES),
    called("antiphon", "async_to_sync of nothing", "empty"),
    memory("antiphon", "awaited", "await"),
    memory("channels", "awaited", "await"),
    memory("antiphon", "synchronous", "plain"),
    memory("antiphon", "async_to_sync", "async_to_sync"),
    memory("channels", "async_to_sync", "async_to_sync"),
]


def peers(what: str) -> tuple[str, ...]:
    """Return the cases of both layers of channels_redis."""
    return tuple(f"{side} {what}" for side in ("core", "pubsub"))


SENDS = "sends_per_s"
NEW = "connections_per_send"
RATIOS = [
    Ratio("100 tasks", "antiphon 100 tasks", peers("100 tasks"), SENDS, at_least=10),
    Ratio("100 tasks to pipelines", "antiphon 100 tasks", "redis-py pipelines of 100", SENDS, at_least=2),
    Ratio("synchronous", "antiphon synchronous", peers("async_to_sync"), SENDS, at_least=15),
    Ratio("synchronous to redis-py", "antiphon synchronous", "redis-py synchronous", SENDS, at_least=0.8),
    Ratio("async_to_sync", "antiphon async_to_sync", peers("async_to_sync"), SENDS, at_least=5),
    Ratio("async_to_sync of nothing", "antiphon async_to_sync of nothing", peers("async_to_sync"), SENDS),
    Ratio("new connections", "antiphon synchronous", (), NEW, at_most=0),
    Ratio("new connections, async_to_sync", "antiphon async_to_sync", (), NEW, at_most=0),
    Ratio("memory, awaited", "antiphon memory, awaited", "channels memory, awaited", SENDS),
    Ratio("memory, synchronous", "antiphon memory, synchronous", "channels memory, async_to_sync", SENDS),
    Ratio("memory, async_to_sync", "antiphon memory, async_to_sync", "channels memory, async_to_sync", SENDS),
]

if __name__ == "__main__":
    sys.exit(main("publish", __doc__, CASES, RATIOS, rounds=(3, 9), around=valkey))
