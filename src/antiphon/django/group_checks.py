"""What ``manage.py check`` says about the options of groups: what cannot help as it stands. Nothing here raises."""

from __future__ import annotations

import re
from collections.abc import Iterator
from typing import Any

from django.core.checks import CheckMessage
from django.core.checks import Warning as Caution

from ..layer.layer import ChannelLayer

__all__ = ["check_groups"]

# What a glob has that a plain name has not.
_WILD = re.compile(r"[*?\[]")


def check_groups(where: str, layer: ChannelLayer) -> Iterator[CheckMessage]:
    """Check the groups of a layer: W010, W011. ``where``: what the messages call it."""
    earlier: list[tuple[str, Any]] = []
    for name, pattern, options in layer._groups.patterns:
        if 0 < options.history_size < layer.capacity:
            yield Caution(
                f"{where}: groups[{name!r}] keeps {options.history_size} messages, and a mailbox holds {layer.capacity}: "
                "a client that falls behind misses more than it can recover.",
                hint=f"Set history_size to {layer.capacity} or more, or capacity to {options.history_size} or less.",
                id="antiphon.W010",
            )
        for other, matches in earlier:
            if name == other or (not _WILD.search(name) and matches.match(name)):
                yield Caution(
                    f"{where}: groups[{name!r}] never counts: groups[{other!r}] stands before it and matches the same names.",
                    hint="The first pattern that matches counts: put the narrower one first.",
                    id="antiphon.W011",
                )
                break
        earlier.append((name, pattern))
