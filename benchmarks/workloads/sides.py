"""The import switch: the same workload runs on Channels or on Antiphon. Django is configured here, alike for both.

A workload runs as ``python <workload>.py <side> <parameters as JSON>`` in the side's own virtual environment. It makes
ready, then runs one block for each line on stdin and answers each with one line of JSON on stdout. When stdin ends, it
checks what it has to check and exits; any code but 0 spoils the run.
"""

from __future__ import annotations

import asyncio
import json
import logging
import os
import platform
import sys
import time
from collections.abc import Callable, Coroutine, Mapping
from importlib import metadata
from pathlib import Path
from typing import TYPE_CHECKING, Any, Protocol

from watch import Watch

if TYPE_CHECKING:
    from listener import Listener

__all__ = [
    "GROUP",
    "PARAMETERS",
    "SIDE",
    "AsyncWebsocketConsumer",
    "Report",
    "StopConsumer",
    "SyncConsumer",
    "arrived",
    "dropped",
    "encoded",
    "get_channel_layer",
    "main",
    "message",
    "rss_bytes",
    "time_calls",
]

CAPACITY = 1000
GROUP = "bench"
MESSAGE_BYTES = 111
# The framework of each side. A parameter "server", a Unix socket, puts the layer on an engine.
SIDES = {
    "antiphon": "antiphon",
    "channels": "channels",
    "channels_redis_core": "channels",
    "channels_redis_pubsub": "channels",
}

SIDE = sys.argv[1] if len(sys.argv) > 1 else "antiphon"
if SIDE not in SIDES:
    raise SystemExit(f"side: expected one of {', '.join(SIDES)}; got {SIDE!r}")
_FRAMEWORK = SIDES[SIDE]
# Of the command line: what the workload is called with. "loop", "prefix" and "groups" (the layer's option) are for this
# module, "server_core" is for ``listener``.
PARAMETERS: dict[str, Any] = json.loads(sys.argv[2]) if len(sys.argv) > 2 else {}


class Report(Protocol):
    """Says what the block before measured; returns True when another is wanted."""

    def __call__(self, figures: dict[str, float], versions: Mapping[str, str] = ..., /) -> bool:
        """Report ``figures``, and ``versions`` beside those of the packages."""


def _layer() -> dict[str, Any]:
    """Return the entry of CHANNEL_LAYERS."""
    server = PARAMETERS.get("server")
    groups = {"groups": PARAMETERS["groups"]} if "groups" in PARAMETERS else {}
    if server is None:
        return {"BACKEND": f"{_FRAMEWORK}.layers.InMemoryChannelLayer", "CONFIG": {"capacity": CAPACITY, **groups}}
    config = {"hosts": [{"address": f"unix://{server}"}], "prefix": PARAMETERS["prefix"]}
    if SIDE == "channels_redis_pubsub":  # which has no capacity
        return {"BACKEND": "channels_redis.pubsub.RedisPubSubChannelLayer", "CONFIG": config}
    backend = "channels_redis.core" if _FRAMEWORK == "channels" else "antiphon.layers"
    return {"BACKEND": f"{backend}.RedisChannelLayer", "CONFIG": {**config, "capacity": CAPACITY, **groups}}


def _configure() -> None:
    """Set up the Django of a new project: one SQLite database, one application, one layer."""
    import django
    from django.conf import settings

    settings.configure(
        INSTALLED_APPS=[_FRAMEWORK],
        DATABASES={"default": {"ENGINE": "django.db.backends.sqlite3", "NAME": ":memory:"}},
        CHANNEL_LAYERS={"default": _layer()},
        USE_TZ=True,
    )
    django.setup()


_configure()

# As an application of either imports them.
if TYPE_CHECKING or _FRAMEWORK == "antiphon":
    from antiphon.consumer import SyncConsumer
    from antiphon.exceptions import StopConsumer
    from antiphon.generic.websocket import AsyncWebsocketConsumer
    from antiphon.layers import get_channel_layer
else:
    from channels.consumer import SyncConsumer
    from channels.exceptions import StopConsumer
    from channels.generic.websocket import AsyncWebsocketConsumer
    from channels.layers import get_channel_layer


def encoded(message: Mapping[str, Any]) -> bytes:
    """Return a message as this side's layer serialises it, without what it puts around: msgpack on every side."""
    if _FRAMEWORK == "antiphon":
        from antiphon.codec import encode

        return encode(message)
    import msgpack

    packed: bytes = msgpack.packb(message)
    return packed


def message(number: int) -> dict[str, str]:
    """Return a message of a chat whose serialised form has exactly ``MESSAGE_BYTES``."""
    found = {"type": "chat.message", "message": f"{number:06d} ".ljust(82, "x")}
    if len(encoded(found)) != MESSAGE_BYTES:
        raise AssertionError(f"expected {MESSAGE_BYTES} bytes; got {len(encoded(found))}")
    return found


def arrived(layer: Any) -> int | None:
    """Return how many messages the engine has brought to this process; None where the layer does not tell."""
    return int(layer.stats()["arrived"]) if _FRAMEWORK == "antiphon" else None


def dropped(layer: Any) -> int:
    """Return how many messages this process has dropped at full channels; 0 where the layer drops elsewhere or never."""
    return int(layer.stats()["dropped"]) if _FRAMEWORK == "antiphon" else 0


class Refusals(logging.Handler):
    """Counts what channels_redis' core layer drops when it sends: it says so in its log, once for a group's send."""

    def __init__(self) -> None:
        super().__init__(logging.INFO)
        self.count = 0
        logger = logging.getLogger("channels_redis.core")
        logger.setLevel(logging.INFO)
        logger.propagate = False
        logger.addHandler(self)

    def emit(self, record: logging.LogRecord) -> None:
        """Count one: the group has one member."""
        self.count += "over capacity" in record.msg


def time_calls(report: Report, server: str, call: Callable[[], Any], seconds: float, listener: Listener | None) -> None:
    """Measure calls of plain synchronous code, one after the other, and the connections that they open.

    This process has a core of its own. ``listener``: the member, whose messages are counted after each block.
    """
    refusals = Refusals()
    call()
    total = 1
    if listener:
        listener.settle(total, refusals.count)
    watch = Watch(server)
    figures: dict[str, float] = {}
    while report(figures):
        sent, before, began = 0, watch.read(), time.perf_counter()
        while (spent := time.perf_counter() - began) < seconds:
            for _ in range(10):
                call()
            sent += 10
        after = watch.read()
        server_s = after.cpu_s - before.cpu_s
        figures = {
            "sends_per_s": sent / spent,
            "server_us_per_send": server_s / sent * 1e6,
            "server_commands_per_send": (after.commands - before.commands - 1) / sent,
            "connections_per_send": (after.connections - before.connections) / sent,
        }
        total += sent
        if listener:
            # Since the start, so that no block's loss is left out: one fails the run.
            figures["lost"] = listener.settle(total, refusals.count)
    watch.close()
    if listener:
        listener.end()


def rss_bytes() -> int:
    """Return the resident memory of this process; its peak, where the system does not tell the present."""
    if sys.platform == "linux":
        return int(Path("/proc/self/statm").read_text().split()[1]) * os.sysconf("SC_PAGE_SIZE")
    if sys.platform == "win32":
        raise SystemExit("this workload measures memory, which it cannot on Windows")
    import resource

    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    return peak if sys.platform == "darwin" else peak * 1024


def _versions() -> dict[str, str]:
    names = ("channels", "channels_redis", "redis", "hiredis", "django", "asgiref", "ormsgpack", "uvloop")
    found = {"python": platform.python_version()}
    for name in names:
        try:
            found[name] = metadata.version(name)
        except metadata.PackageNotFoundError:
            continue
    if _FRAMEWORK == "antiphon":
        import antiphon

        found["antiphon"] = antiphon.__version__
    return found


def _report(figures: dict[str, float], versions: Mapping[str, str] = {}, /) -> bool:
    print(json.dumps({"figures": figures, "versions": {**_versions(), **versions}}), flush=True)
    # Blocking is meant: between two blocks nothing happens here, so that the other side has the machine.
    return bool(sys.stdin.readline())


def main(workload: Callable[..., Coroutine[Any, Any, None] | None]) -> None:
    """Run a workload with the parameters of the command line: a coroutine on asyncio's own loop, or on uvloop.

    A plain function is run without a loop; those that ``async_to_sync`` makes are of the same kind.
    """
    if PARAMETERS.get("loop") == "uvloop":
        import uvloop

        asyncio.set_event_loop_policy(uvloop.EventLoopPolicy())
    ours = ("loop", "prefix", "groups", "server_core")
    parameters = {name: value for name, value in PARAMETERS.items() if name not in ours}
    running = workload(_report, **parameters)
    if running is not None:
        asyncio.run(running)
    other = "channels" if _FRAMEWORK == "antiphon" else "antiphon"
    if other in sys.modules:
        raise SystemExit(f"{other} was imported into the process that measures {SIDE}")
