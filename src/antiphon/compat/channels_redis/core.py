"""``channels_redis.core``: the layer that existing settings name, which is Antiphon's own."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from re import Pattern
from typing import Any

from ...layer.redis import RedisChannelLayer as _RedisChannelLayer
from ...types import Message
from .serializers import registry

__all__ = ["RedisChannelLayer"]

# Under these names the layer has one encoding, its own.
_BUILT_IN = ("msgpack", "json")


class RedisChannelLayer(_RedisChannelLayer):
    """:class:`antiphon.layers.RedisChannelLayer` with the arguments of channels_redis, in their order, and any of ours.

    ``random_prefix_length`` is taken and means nothing here. ``serializer_format`` may be a registered one: see
    ``serializers``.
    """

    def __init__(
        self,
        hosts: Any = None,
        prefix: str = "asgi",
        expiry: float = 60,
        group_expiry: float = 86400,
        capacity: int = 100,
        channel_capacity: Mapping[Pattern[str] | str, int] | None = None,
        symmetric_encryption_keys: Sequence[str | bytes] | None = None,
        random_prefix_length: int = 12,
        serializer_format: str = "msgpack",
        **options: Any,
    ) -> None:
        self._serializer: Any = None
        if serializer_format not in _BUILT_IN:
            # The keys are the layer's: nothing is encrypted before it is in the layer's hands.
            self._serializer = registry.get_serializer(
                serializer_format,
                random_prefix_length=random_prefix_length,
                expiry=expiry,
                symmetric_encryption_keys=None,
            )
        super().__init__(
            hosts,
            prefix=prefix,
            expiry=expiry,
            group_expiry=group_expiry,
            capacity=capacity,
            channel_capacity=channel_capacity,
            symmetric_encryption_keys=symmetric_encryption_keys,
            **options,
        )

    def _encode(self, message: Message) -> bytes:
        if self._serializer is not None:
            message = self._serializer.deserialize(self._serializer.serialize(message))
        return super()._encode(message)

    async def close_pools(self) -> None:
        """Do nothing: code for channels_redis calls it after each send, lest connections of dead loops pile up.

        Here they belong to the process. ``close()`` closes them.
        """

    async def wait_received(self) -> None:
        """Do nothing: a message that ``receive`` returned needs no cleaning up."""
