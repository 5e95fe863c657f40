"""A room in which one client reads nothing any more, beside the same room without it: what the others see of that.

Both rooms are on one server and take turns, so that whatever happens to the machine happens to both. At the end of a
block the client reads again: what it then gets, and what the server says that it dropped for it, must be all that was
sent, unless the server has closed it.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

import rig

WITHOUT, WITH, STALLED = 0, 1, 2
# What its own kernel takes for a client that reads nothing. Left alone, that grows to many megabytes.
BUFFER_BYTES = 1 << 16
# A turn of a room: so many messages.
TURN = 250


def stalled(
    report: Callable[[Mapping[str, float]], bool],
    application: Mapping[str, Any],
    members: int,
    messages: int,
    per_s: float,
    size: int,
    load: str,
    limit: str,
    generator_core: int | None,
    **_: Any,
) -> None:
    """Open both rooms; at each word, let one more client join and stall, and run both. The first block is short."""
    with rig.Rig(application, load=load, limit=limit, generator_core=generator_core) as pair:
        pair.open(WITHOUT, "/ws/without/", members, size=size)
        pair.open(WITH, "/ws/with/", members, size=size)
        figures: dict[str, float] = {}
        warm = False
        while report(figures):
            figures = block(pair, messages if warm else 2 * TURN, per_s, size)
            warm = True


def block(pair: rig.Rig, messages: int, per_s: float, size: int) -> dict[str, float]:
    """Measure both rooms while a client stalls in one."""
    pair.open(STALLED, "/ws/with/", 1, size=size, quiet=True, buffer_bytes=BUFFER_BYTES)
    pair.ask("stop", STALLED)
    before = pair.tell()
    found: dict[int, dict[str, Any]] = {}
    for turn in range(messages // TURN):
        # They also take turns in going first.
        for number in (WITHOUT, WITH) if turn % 2 else (WITH, WITHOUT):
            found[number] = pair.ask("rate", number, TURN, per_s, int(turn == 0))
    after = pair.tell()
    drained = pair.ask("drain", STALLED)
    dropped = pair.tell()["dropped"] - before["dropped"]
    sent = messages // TURN * TURN
    if not drained["closed"]:
        pair.ask("close", STALLED, 1)
    return {
        "p99_ms": found[WITH]["all_p99_ms"],
        "p99_without_ms": found[WITHOUT]["all_p99_ms"],
        "p99_ratio": found[WITH]["all_p99_ms"] / found[WITHOUT]["all_p99_ms"],
        "grown_kib": (after["rss_bytes"] - before["rss_bytes"]) / 1024,
        "sent_to_it": sent,
        "read_by_it": drained["received"],
        "dropped_for_it": dropped,
        # Of a client that was closed the rest went with its connection.
        "unaccounted": 0 if drained["closed"] else sent - drained["received"] - dropped,
        "closed": drained["closed"],
    }


if __name__ == "__main__":
    rig.main(stalled)
