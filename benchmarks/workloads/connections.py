"""What a connection costs on real sockets: CPU to open and to close one, memory while it is idle, in one group.

Once, while making ready: a quarter of the clients open, so that what the imports left free in the heap is used up; then
the others, and the growth of the process between two collections of garbage is theirs. One message to all proves that
each is there. Each block then opens and closes further clients.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

import rig

FIRST, REST, PASSING = 0, 1, 2


def connections(
    report: Callable[[Mapping[str, float]], bool],
    application: Mapping[str, Any],
    idle: int,
    passing: int,
    load: str,
    limit: str,
    generator_core: int | None,
    together: int = 32,
    **_: Any,
) -> None:
    """Measure the memory of ``idle`` clients, then at each word the CPU of ``passing`` ones, ``together`` at a time."""
    with rig.Rig(application, load=load, limit=limit, generator_core=generator_core) as pair:
        figures: dict[str, float] = {}
        if idle:
            first = idle // 4
            pair.open(FIRST, "/ws/first/", first, together=together)
            before = pair.tell()
            pair.open(REST, "/ws/rest/", idle - first, together=together)
            after = pair.tell()
            figures["idle_kib"] = (after["rss_bytes"] - before["rss_bytes"]) / (idle - first) / 1024
            held = sum(pair.ask("saturate", number, 0, 1, 1, 0)["deliveries"] for number in (FIRST, REST))
            figures["held"] = held
        while report(figures):
            if not passing:
                continue
            disturbed = pair.disturbed()
            opened = pair.open(PASSING, "/ws/passing/", passing, together=together)
            closed = pair.ask("close", PASSING, together)
            figures = {
                "connect_us": opened["server_s"] / passing * 1e6,
                "close_us": closed["server_s"] / passing * 1e6,
                "connects_per_s": passing / opened["seconds"],
                **disturbed(),
            }


if __name__ == "__main__":
    rig.main(connections)
