"""Accounts for what an engine could not vouch for: counters, one log record, a hook. Knows no engine.

A loss is a span of time on some topics in which messages may have been published that never arrived. How many, nobody
knows; there may have been none.
"""

from __future__ import annotations

import logging
import time
from collections import deque
from collections.abc import Callable, Collection
from dataclasses import dataclass
from typing import Any

from .. import options
from .drops import resolve_hook

__all__ = ["Loss", "Losses"]

logger = logging.getLogger("antiphon.engine")

# Losses that are kept for whoever looks.
KEPT = 1000
# Hooks are called for so many topics in one turn of the loop.
SLICE = 100
_KINDS = {"g:": "group", "u:": "user", "n:": "node", "c:": "node"}


@dataclass(frozen=True, slots=True)
class Loss:
    """Messages of one topic that may be lost.

    ``kind``: group, user, or node (messages sent to single channels, and calls between nodes). ``name``: of the group,
    the user or the node. ``since``, ``until``: the span, epoch seconds of this machine. ``node``: whose members.
    """

    kind: str
    name: str
    reason: str
    since: float
    until: float
    node: str

    @property
    def group(self) -> str | None:
        """The group's name, if it is one."""
        return self.name if self.kind == "group" else None


class Losses:
    """The losses of one layer in this process."""

    def __init__(self) -> None:
        self.count = 0
        self.recent: deque[Loss] = deque(maxlen=KEPT)
        self._hook: Callable[[Loss], Any] | None = None
        self._hook_known = False

    def __repr__(self) -> str:
        return f"<Losses {self.count}>"

    def add(
        self,
        node: str,
        topics: Collection[str],
        reason: str,
        good_until: float,
        call_soon: Callable[..., Any],
    ) -> None:
        """Count one loss a topic, log one record for all, and give each to ``on_lost`` in the loop's next turns."""
        now = time.time()
        losses = [
            Loss(_KINDS.get(topic[:2], "topic"), topic[2:] or node, reason, good_until, now, node) for topic in topics
        ]
        self.count += len(losses)
        self.recent.extend(losses)
        logger.warning(
            "Messages of %d topics may be lost, those of %.1f s until now, on node %s: %s. Connections stay open.",
            len(losses),
            now - good_until,
            node,
            reason,
        )
        if not self._hook_known:
            self._hook_known = True
            try:
                self._hook = resolve_hook(options.get("on_lost"))
            except Exception:  # whoever reports a loss is a link, which must go on
                logger.exception("on_lost cannot be used: %r", options.get("on_lost"))
        if self._hook is not None:
            call_soon(self._offer, losses, 0, call_soon)

    def _offer(self, losses: list[Loss], start: int, call_soon: Callable[..., Any]) -> None:
        for loss in losses[start : start + SLICE]:
            try:
                self._hook(loss)  # type: ignore[misc]  # there is one, or nobody calls this
            except Exception:
                logger.exception("on_lost raised")
        if start + SLICE < len(losses):
            call_soon(self._offer, losses, start + SLICE, call_soon)
