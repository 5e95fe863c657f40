"""``Logs``: one node's part in the logs of groups. What arrives is in ``follow.py``, holes in ``fill.py``."""

from __future__ import annotations

from .recover import Recoverer

__all__ = ["Logs"]

EVENTS = ("holes", "filled", "repeated", "recovered", "unrecovered")


class Logs(Recoverer):
    """One node's logs: sees that nothing is missing, fills holes, lets members recover. Lives on the node's loop.

    ``keep_of(topic)``: how a topic is kept; None: it has no log. ``top_now(topic)``: the top of a log, for an engine
    that knows it without waiting. Counted: ``holes`` seen, entries ``filled``, entries ``repeated`` by the engine,
    members ``recovered`` and ``unrecovered``.
    """

    @property
    def filling(self) -> int:
        """How many topics are being filled now."""
        return sum(log.filling for log in self.logs.values())

    def stats(self) -> dict[str, int]:
        """Return the counters."""
        return {event: int(getattr(self, event)) for event in EVENTS}
