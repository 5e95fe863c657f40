"""What a node says of itself to those who look inside: plain data. Knows no engine."""

from __future__ import annotations

import itertools
import os
import platform
import sys
import time
from pathlib import Path
from typing import Any

from ..codec import encode
from .node import Node

__all__ = ["CHANNELS_MAX", "describe_node", "process_name"]

# Channels and groups of one node that are named unless somebody asks for more.
CHANNELS_MAX = 1000
# Of which there are never more than so many, each with at least so many bytes.
_CHANNELS_MOST = 5000
_CHANNEL_BYTES = 100
# When this process began, as far as it is ours to know.
_started_s = time.time()


def process_name() -> str:
    """Return what this process runs, for people: ``manage.py runworker``, ``uvicorn``. No argument but the first."""
    program = Path(sys.argv[0] or sys.executable) if sys.argv else Path(sys.executable)
    name = program.parent.name if program.name == "__main__.py" else program.name
    # Options may hold secrets, and are of no interest: a subcommand is.
    first = sys.argv[1] if len(sys.argv) > 1 else ""
    return f"{name} {first}"[:80] if first.isidentifier() else name[:80]


def describe_node(node: Node, stats: dict[str, Any], limit: int, max_bytes: int) -> dict[str, Any]:
    """Return what is known of a node; at most ``limit`` channels and groups are named, and ``max_bytes`` encoded.

    ``channels``, ``groups`` and ``stats["drops_by_group"]`` are shorter than what there is when ``truncated`` is True.
    """
    hub = node.hub
    # No more than can fit, nor than the loop would notice.
    limit = max(0, min(limit, _CHANNELS_MOST, max_bytes // _CHANNEL_BYTES))
    while True:
        drops = sorted(stats.get("drops_by_group", {}).items(), key=lambda item: -item[1])
        groups = ((topic[2:], len(members)) for topic, members in hub.members.items() if topic[:2] == "g:")
        info = {
            "id": node.id,
            "host": platform.node(),
            "pid": os.getpid(),
            "process": process_name(),
            "started_s": _started_s,
            "channels": [
                {
                    "channel": mailbox.channel,
                    "consumer": mailbox.owner,
                    "user": mailbox.user,
                    "session": mailbox.session is not None,
                    "groups": [topic[2:] for topic in mailbox.topics if topic[:2] == "g:"][:limit],
                    "waiting": len(mailbox.queue),
                    "capacity": mailbox.capacity,
                }
                for mailbox in itertools.islice(hub.mailboxes.values(), limit)
            ],
            "groups": dict(itertools.islice(groups, limit)),
            "stats": {**stats, "drops_by_group": dict(itertools.islice(drops, limit))},
        }
        cut = len(hub.mailboxes) > limit or sum(topic[:2] == "g:" for topic in hub.members) > limit
        info["truncated"] = cut or any(len(mailbox.topics) > limit for mailbox in hub.mailboxes.values())
        if not limit or len(encode(info)) <= max_bytes:
            return info
        limit //= 2


def _after_fork() -> None:
    global _started_s
    _started_s = time.time()


if hasattr(os, "register_at_fork"):
    os.register_at_fork(after_in_child=_after_fork)
