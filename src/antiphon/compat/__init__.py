"""``import channels`` without Channels: the imports of an application written for it, mapped to Antiphon's doors.

Knows module names and nothing about what the modules do. Must not need Django or its settings when it is called.
"""

from __future__ import annotations

import sys

from .. import framework
from .finder import AliasFinder

__all__ = ["install_as_channels", "installed"]

_finder = AliasFinder()


def install_as_channels() -> None:
    """Make every ``import channels…`` of this process give Antiphon's modules, whether Channels is installed or not.

    Call it first thing in the ``__init__.py`` of the project package (the one that holds the settings): that module is
    imported before anything of the application, in every process that uses the settings, spawned ones included. It
    may be called again. Where Antiphon and Channels differ on purpose, Channels' way holds from then on.

    Raises RuntimeError if the real ``channels`` was imported before.
    """
    foreign = sorted(name for name in sys.modules if _finder.covers(name) and not _finder.owns(name))
    if foreign:
        where = getattr(sys.modules[foreign[0]], "__file__", None)
        raise RuntimeError(
            f"expected install_as_channels() before anything imports channels; {foreign[0]!r} is imported already, "
            f"from {where!r}. Call it at the top of the project package's __init__.py, before other imports."
        )
    if sys.meta_path[:1] != [_finder]:
        if _finder in sys.meta_path:
            sys.meta_path.remove(_finder)
        sys.meta_path.insert(0, _finder)
    framework.compat = True


def installed() -> bool:
    """Say whether ``install_as_channels()`` ran in this process."""
    return framework.compat
