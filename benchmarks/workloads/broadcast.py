"""A room of N clients on real sockets: what a delivery costs the server's process, and how long it takes.

``parts``: what a block consists of, each with what the load generator's command wants. Every message of every client is
accounted for; a lost one ends the run.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

import rig

PATHS = {"socketio": "/socket.io/?EIO=4&transport=websocket"}


def saturation(server: rig.Rig, *, seconds: float, least: int = 2) -> dict[str, float]:
    """Measure as many messages as go: one is always on its way while the one before is being delivered."""
    disturbed = server.disturbed()
    found = server.ask("saturate", 0, seconds, least, 1, 1)
    return {
        **disturbed(),
        "cpu_us_per_delivery": found["server_s"] / found["deliveries"] * 1e6,
        "deliveries_per_s": found["deliveries"] / found["seconds"],
        "frames_per_read": found["frames"] / found["reads"],
        "server_busy": found["server_s"] / found["seconds"],
        "generator_busy": found["generator_s"] / found["seconds"],
    }


def single(server: rig.Rig, *, seconds: float, least: int = 2) -> dict[str, float]:
    """Measure messages one at a time: the next leaves when all have the one before, so nothing leaves with another."""
    found = server.ask("saturate", 0, seconds, least, 1, 0)
    return {
        "single_us_per_delivery": found["server_s"] / found["deliveries"] * 1e6,
        "single_deliveries_per_s": found["deliveries"] / found["seconds"],
    }


def burst(server: rig.Rig, *, seconds: float, size: int = 10) -> dict[str, float]:
    """Measure messages that leave the client in one write, so that the server has them in one turn of its loop."""
    found = server.ask("saturate", 0, seconds, 2, size, 0)
    return {
        "burst_us_per_delivery": found["server_s"] / found["deliveries"] * 1e6,
        "burst_frames_per_read": found["frames"] / found["reads"],
    }


def rate(server: rig.Rig, *, messages: int, per_s: float) -> dict[str, float]:
    """Measure the time from send to receipt at a fixed pace."""
    found = server.ask("rate", 0, messages, per_s, 1)
    return {name: found[name] for name in ("p50_ms", "p99_ms", "max_ms")}


PARTS: dict[str, Callable[..., dict[str, float]]] = {
    "saturation": saturation,
    "single": single,
    "burst": burst,
    "rate": rate,
}


def broadcast(
    report: Callable[[Mapping[str, float]], bool],
    application: Mapping[str, Any],
    members: int,
    parts: Mapping[str, Mapping[str, Any]],
    load: str,
    limit: str,
    generator_core: int | None,
    server: str | None = None,
    **_: Any,
) -> None:
    """Open the room, then run a block at each word."""
    side = application["side"]
    given = {**application, "layer": server} if application.get("layer") == "redis" else application
    with rig.Rig(given, load=load, limit=limit, generator_core=generator_core) as pair:
        pair.open(0, PATHS.get(side, "/ws/lobby/"), members)
        figures: dict[str, float] = {}
        warm = False
        while report(figures):
            figures = {}
            for name, parameters in parts.items():
                # The first block is not measured: it warms up, and waits for no clock.
                if warm or name != "rate":
                    figures |= PARTS[name](pair, **parameters)
            if not warm:
                figures.pop("busy", None)
            warm = True


if __name__ == "__main__":
    rig.main(broadcast)
