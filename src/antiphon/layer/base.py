"""``BaseChannelLayer``: names and capacities, and the methods every layer has. Knows no engine.

The signatures and error texts are those users of channel layers know; a layer of one's own may inherit from it.
"""

from __future__ import annotations

import fnmatch
import re
import warnings
from collections.abc import Mapping, Sequence
from re import Pattern
from typing import Any, ClassVar

from .. import names

__all__ = ["BaseChannelLayer"]


class BaseChannelLayer:
    """What all layers share: validation of names, and capacity by channel.

    ``expiry`` and capacities as in :class:`~antiphon.layers.InMemoryChannelLayer`.
    """

    MAX_NAME_LENGTH = names.MAX_NAME_LENGTH
    invalid_name_error = names.INVALID_NAME_ERROR
    channel_name_regex = re.compile(r"^[a-zA-Z0-9\-_.]+(\![a-zA-Z0-9\-_.]*)?\Z")
    group_name_regex = re.compile(r"^[a-zA-Z0-9\-_.]+\Z")
    extensions: ClassVar[Sequence[str]] = []

    def __init__(
        self,
        expiry: float = 60,
        capacity: int = 100,
        channel_capacity: Mapping[Pattern[str] | str, int] | None = None,
    ) -> None:
        self.expiry = expiry
        self.capacity = capacity
        self.channel_capacity: Any = channel_capacity or {}

    def compile_capacities(self, channel_capacity: Mapping[Any, Any]) -> list[tuple[Pattern[str], Any]]:
        """Return [(compiled pattern, value)]: text is a glob, an object with ``match`` is used as it is."""
        return [
            (pattern if hasattr(pattern, "match") else re.compile(fnmatch.translate(pattern)), value)
            for pattern, value in channel_capacity.items()
        ]

    def get_capacity(self, channel: str) -> int:
        """Return how many messages ``channel`` may hold: the first pattern that matches, else ``capacity``."""
        for pattern, capacity in self.channel_capacity:
            if pattern.match(channel):
                return int(capacity)
        return self.capacity

    def match_type_and_length(self, name: object) -> bool:
        """Say whether ``name`` is text and short enough."""
        return isinstance(name, str) and len(name) < self.MAX_NAME_LENGTH

    def require_valid_channel_name(self, name: str, receive: bool = False) -> bool:
        """Return True for a valid channel name, else raise TypeError."""
        names.require_channel(name, receive=receive)
        return True

    def require_valid_group_name(self, name: str) -> bool:
        """Return True for a valid group name, else raise TypeError."""
        names.require_group(name)
        return True

    def valid_channel_names(self, names: list[str], receive: bool = False) -> bool:
        """Return True for a non-empty list of valid channel names."""
        if not isinstance(names, list) or not names:
            raise TypeError(f"names must be a non-empty list; got {names!r:.80}")
        return all(self.require_valid_channel_name(channel, receive=receive) for channel in names)

    def non_local_name(self, name: str) -> str:
        """Return the part of a channel name up to and including "!", or all of it where there is none."""
        head, mark, _ = name.partition("!")
        return head + mark

    async def send(self, channel: str, message: dict[str, Any]) -> Any:
        """Send to one channel."""
        raise NotImplementedError("send() should be implemented in a channel layer")

    async def receive(self, channel: str) -> dict[str, Any]:
        """Receive the next message of one channel."""
        raise NotImplementedError("receive() should be implemented in a channel layer")

    async def new_channel(self) -> str:
        """Return the name of a new channel of this node."""
        raise NotImplementedError("new_channel() should be implemented in a channel layer")

    async def flush(self) -> None:
        """Forget everything."""
        raise NotImplementedError("flush() not implemented (flush extension)")

    async def group_add(self, group: str, channel: str) -> None:
        """Add a channel to a group."""
        raise NotImplementedError("group_add() not implemented (groups extension)")

    async def group_discard(self, group: str, channel: str) -> None:
        """Remove a channel from a group."""
        raise NotImplementedError("group_discard() not implemented (groups extension)")

    async def group_send(self, group: str, message: dict[str, Any]) -> Any:
        """Send to every channel of a group."""
        raise NotImplementedError("group_send() not implemented (groups extension)")

    def valid_channel_name(self, channel_name: str, receive: bool = False) -> bool:
        """Use require_valid_channel_name instead (deprecated)."""
        warnings.warn(
            "valid_channel_name is deprecated, use require_valid_channel_name instead.",
            DeprecationWarning,
            stacklevel=2,
        )
        return self.require_valid_channel_name(channel_name)

    def valid_group_name(self, group_name: str) -> bool:
        """Use require_valid_group_name instead (deprecated)."""
        warnings.warn(
            "valid_group_name is deprecated, use require_valid_group_name instead.",
            DeprecationWarning,
            stacklevel=2,
        )
        return self.require_valid_group_name(group_name)
