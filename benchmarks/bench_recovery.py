"""The jitter test: what clients with a bad network get of a room, while its engine dies and a server is replaced.

1,000 clients on real sockets, two server processes that share a port (one answers with a handler, the other with a
relay), a publisher, a Valkey; 120 messages, 2 a second. Each client's connection is cut about every 15 s for about 2 s:
half of the time it is reset, half of the time nothing comes through any more and nobody is told. Once in the run the
engine is killed and started again after a second, and once a server process is replaced. A client of Antiphon
presents its position when it comes back; publishers have ``publish_retry`` and idempotency keys. The engine syncs its
append-only file at each write (``appendfsync always``): with ``everysec``, a kill may take back what had a receipt. Beside
it: the same without that file, so that the log dies with the engine, and Channels with channels_redis and clients that
connect again. Servers are on one core; clients, publisher and engine on the other.

Bounds: with the file each client gets every message, once, in order, and nobody is told of a loss. Without it every
client is told, and whoever was not told of a message got it. Times are only told: ``join``, what ``join(group, since=…)``
took on a busy server; ``return``, from a client's attempt to connect to the last message that it had missed. The p50
and p99 of messages contain what waited for a client's network and for the engine.
"""

from __future__ import annotations

import contextlib
import sys
from collections.abc import Iterator, Mapping
from typing import Any

from engine_server import binary
from harness import Case, Ratio, main, pick_core

QUICK: dict[str, Any] = {"clients": 200, "messages": 32, "per_s": 4, "cut_every_s": 5, "cut_for_s": 1}
FULL: dict[str, Any] = {"clients": 1000, "messages": 120, "per_s": 2, "cut_every_s": 15, "cut_for_s": 2}
DOWN_S = ({"engine_down_s": 0.5}, {"engine_down_s": 1})


@contextlib.contextmanager
def engine(core: int | None) -> Iterator[Mapping[str, Any]]:
    """Yield the server to start, and the core of all that is not a server process."""
    yield {"valkey": binary(), "generator_core": None if core is None else pick_core(apart=True)}


def case(name: str, side: str, *, append_only: bool = True) -> Case:
    """Return the case of a side."""
    parameters = {"side": side, "append_only": append_only}
    return Case(name, f"{side}_uvicorn", "recovery", parameters, {**QUICK, **DOWN_S[0]}, {**FULL, **DOWN_S[1]})


OURS, GONE, PEER = "antiphon", "antiphon, log lost", "channels"
CASES = [case(OURS, "antiphon"), case(GONE, "antiphon", append_only=False), case(PEER, "channels")]
RATIOS = [
    Ratio("delivered", OURS, (), "delivered", at_least=1),
    Ratio("duplicated", OURS, (), "duplicated", at_most=0),
    Ratio("lost", OURS, (), "missed", at_most=0),
    Ratio("out of order", OURS, (), "out_of_order", at_most=0),
    Ratio("told of a loss", OURS, (), "told", at_most=0),
    Ratio("log lost: told", GONE, (), "told", at_least=1),
    Ratio("log lost: unaccounted", GONE, (), "unaccounted", at_most=0),
    Ratio("log lost: out of order", GONE, (), "out_of_order", at_most=0),
    Ratio("p50 ms", OURS, (), "p50_ms"),
    Ratio("p99 ms", OURS, (), "p99_ms"),
    Ratio("delivered, Channels", PEER, (), "delivered"),
    Ratio("duplicated, Channels", PEER, (), "duplicated"),
    Ratio("lost, Channels", PEER, (), "missed"),
    Ratio("p50 ms, Channels", PEER, (), "p50_ms"),
    Ratio("p99 ms, Channels", PEER, (), "p99_ms"),
]

if __name__ == "__main__":
    sys.exit(main("recovery", __doc__, CASES, RATIOS, rounds=(1, 1), around=engine))
