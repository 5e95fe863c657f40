"""``GroupOptions``: what a layer keeps and does for a group, by the pattern that its name matches. Does nothing itself."""

from __future__ import annotations

import dataclasses
import fnmatch
import re
from collections.abc import Mapping
from dataclasses import dataclass
from re import Pattern
from typing import Any

from ..exceptions import OptionError
from ..options import unknown_key
from ..types import Keep

__all__ = ["GroupOptions", "GroupTable"]

RECOVERIES = ("stream", "cache")

# Groups whose options are remembered. Cleared when full, never grows past it.
_KNOWN_MAX = 20_000


def _is_int(value: object) -> bool:
    return isinstance(value, int) and not isinstance(value, bool)


def _is_number(value: object) -> bool:
    return isinstance(value, (int, float)) and not isinstance(value, bool)


def _require(fits: bool, name: str, expected: str, options: object) -> None:
    if not fits:
        raise OptionError(f"{name}: expected {expected}; got {getattr(options, name)!r}")


@dataclass(frozen=True, slots=True)
class GroupOptions:
    """The options of the groups of one pattern.

    ``history_size``: how many messages are kept at least; 0: none. ``history_ttl``: for so many seconds after the last
    one. ``recovery``: ``stream``, a client that comes back gets everything it missed; ``cache``, the newest message
    alone. ``presence``: whether it is known who is in the group; ``presence_grace_s``: how long one who left may take
    to come back without anybody hearing of it.
    """

    history_size: int = 0
    history_ttl: float = 300.0
    recovery: str = "stream"
    presence: bool = False
    presence_grace_s: float = 5.0

    def __post_init__(self) -> None:
        """Raise OptionError for a value that cannot be."""
        _require(_is_int(self.history_size) and self.history_size >= 0, "history_size", "an int, 0 or more", self)
        _require(_is_number(self.history_ttl) and self.history_ttl > 0, "history_ttl", "seconds above 0", self)
        _require(self.recovery in RECOVERIES, "recovery", " or ".join(map(repr, RECOVERIES)), self)
        _require(isinstance(self.presence, bool), "presence", "True or False", self)
        grace = self.presence_grace_s
        _require(_is_number(grace) and grace >= 0, "presence_grace_s", "seconds, 0 or more", self)

    @property
    def keep(self) -> Keep | None:
        """How a message to the group is kept; None: it is not."""
        return Keep(self.history_size, self.history_ttl) if self.history_size else None


_NAMES = {field.name for field in dataclasses.fields(GroupOptions)}
_DEFAULT = GroupOptions()


class GroupTable:
    """The patterns of a layer: the first that matches a group's name gives its options."""

    def __init__(self, groups: object = None) -> None:
        """``groups``: {glob or compiled pattern: {option: value}}. Raises OptionError."""
        if groups is not None and not isinstance(groups, Mapping):
            raise OptionError(f"groups: expected a dict of group patterns to dicts of options; got {groups!r:.200}")
        self.patterns: list[tuple[str, Pattern[str], GroupOptions]] = []
        for pattern, options in (groups or {}).items():
            self.patterns.append((_name(pattern), _compiled(pattern), _options(pattern, options)))
        # Asked at every send: where no group has anything, that is all there is to know.
        self.logs = any(options.history_size for _, _, options in self.patterns)
        self.presence = any(options.presence for _, _, options in self.patterns)
        self._known: dict[str, GroupOptions] = {}
        self._keeps: dict[str, Keep | None] = {}

    def __repr__(self) -> str:
        return f"<GroupTable {[name for name, _, _ in self.patterns]!r}>"

    def of(self, group: str) -> GroupOptions:
        """Return the options of a group."""
        options = self._known.get(group)
        if options is None:
            if len(self._known) >= _KNOWN_MAX:
                self._known.clear()
            options = next((found for _, pattern, found in self.patterns if pattern.match(group)), _DEFAULT)
            self._known[group] = options
        return options

    def keep(self, topic: str) -> Keep | None:
        """Return how what is sent on a topic is kept: only groups have a log."""
        try:
            return self._keeps[topic]
        except KeyError:
            if len(self._keeps) >= _KNOWN_MAX:
                self._keeps.clear()
            keep = self._keeps[topic] = self.of(topic[2:]).keep if topic[:2] == "g:" else None
            return keep


def _options(pattern: object, options: object) -> GroupOptions:
    if not isinstance(options, Mapping):
        raise OptionError(f"groups[{_name(pattern)!r}]: expected a dict of options; got {options!r:.200}")
    for name in options:
        if name not in _NAMES:
            raise OptionError(unknown_key(name, _NAMES, f"option in groups[{_name(pattern)!r}]"))
    try:
        return GroupOptions(**options)
    except OptionError as exc:
        raise OptionError(f"groups[{_name(pattern)!r}]: {exc}") from None


def _compiled(pattern: Any) -> Pattern[str]:
    if isinstance(pattern, str):
        return re.compile(fnmatch.translate(pattern))
    if isinstance(pattern, Pattern) and isinstance(pattern.pattern, str):
        return pattern
    raise OptionError(f"groups: expected a glob or a compiled pattern of a group's name; got {pattern!r:.200}")


def _name(pattern: object) -> str:
    return str(getattr(pattern, "pattern", pattern))
