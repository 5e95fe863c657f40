"""The import switch: the same workload runs on Channels or on Antiphon. Django is configured here, alike for both.

A workload runs as ``python <workload>.py <side> <parameters as JSON>`` in the side's own virtual environment. It makes
ready, then runs one block for each line on stdin and answers each with one line of JSON on stdout. When stdin ends, it
checks what it has to check and exits; any code but 0 spoils the run.
"""

from __future__ import annotations

import asyncio
import json
import os
import platform
import sys
from collections.abc import Callable, Coroutine
from importlib import metadata
from pathlib import Path
from typing import TYPE_CHECKING, Any

__all__ = [
    "GROUP",
    "AsyncWebsocketConsumer",
    "Report",
    "StopConsumer",
    "SyncConsumer",
    "get_channel_layer",
    "main",
    "rss_bytes",
]

# Says what the block before measured; True when another is wanted.
Report = Callable[[dict[str, float]], bool]

CAPACITY = 1000
GROUP = "bench"
SIDES = ("antiphon", "channels")

_SIDE = sys.argv[1] if len(sys.argv) > 1 else "antiphon"
if _SIDE not in SIDES:
    raise SystemExit(f"side: expected one of {', '.join(SIDES)}; got {_SIDE!r}")


def _configure(side: str) -> None:
    """Set up the Django of a new project: one SQLite database, one application, an in-memory layer."""
    import django
    from django.conf import settings

    settings.configure(
        INSTALLED_APPS=[side],
        DATABASES={"default": {"ENGINE": "django.db.backends.sqlite3", "NAME": ":memory:"}},
        CHANNEL_LAYERS={
            "default": {"BACKEND": f"{side}.layers.InMemoryChannelLayer", "CONFIG": {"capacity": CAPACITY}},
        },
        USE_TZ=True,
    )
    django.setup()


_configure(_SIDE)

# As an application of either imports them.
if TYPE_CHECKING or _SIDE == "antiphon":
    from antiphon.consumer import SyncConsumer
    from antiphon.exceptions import StopConsumer
    from antiphon.generic.websocket import AsyncWebsocketConsumer
    from antiphon.layers import get_channel_layer
else:
    from channels.consumer import SyncConsumer
    from channels.exceptions import StopConsumer
    from channels.generic.websocket import AsyncWebsocketConsumer
    from channels.layers import get_channel_layer


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
    names = ("channels", "django", "asgiref", "ormsgpack")
    found = {"python": platform.python_version()}
    for name in names:
        try:
            found[name] = metadata.version(name)
        except metadata.PackageNotFoundError:
            continue
    if _SIDE == "antiphon":
        import antiphon

        found["antiphon"] = antiphon.__version__
    return found


def _report(figures: dict[str, float]) -> bool:
    print(json.dumps({"figures": figures, "versions": _versions()}), flush=True)
    # Blocking is meant: between two blocks nothing happens here, so that the other side has the machine.
    return bool(sys.stdin.readline())


def main(workload: Callable[..., Coroutine[Any, Any, None]]) -> None:
    """Run a workload with the parameters of the command line, on asyncio's own loop."""
    parameters: dict[str, Any] = json.loads(sys.argv[2]) if len(sys.argv) > 2 else {}
    asyncio.run(workload(_report, **parameters))
    other = next(side for side in SIDES if side != _SIDE)
    if other in sys.modules:
        raise SystemExit(f"{other} was imported into the process that measures {_SIDE}")
