"""``channels_redis.pubsub``: the layer that existing settings name; the same as that of ``core``, with two options more."""

from __future__ import annotations

import logging
from time import monotonic
from typing import Any

from ... import framework
from ...envelope import Envelope
from ...exceptions import OptionError
from ...layer.node import Node
from ...layer.redis import OWN_OPTIONS, SHARED_OPTIONS
from ...options import unknown_key
from .core import RedisChannelLayer

__all__ = ["RedisPubSubChannelLayer"]

logger = logging.getLogger("antiphon.layer")


class RedisPubSubChannelLayer(RedisChannelLayer):
    """:class:`antiphon.layers.RedisChannelLayer`, which can tell consumers that the server went and came back.

    ``on_disconnect``, ``on_reconnect``: types of messages, such as ``"redis.disconnect"``. Each consumer of this process
    gets one when a link to a server breaks, and when it is up again with its subscriptions; a class without the
    handler (``redis_disconnect``) logs that it took none.
    """

    def __init__(
        self,
        *args: Any,
        on_disconnect: str | None = None,
        on_reconnect: str | None = None,
        **options: Any,
    ) -> None:
        for name, value in (("on_disconnect", on_disconnect), ("on_reconnect", on_reconnect)):
            if value is not None and not isinstance(value, str):
                raise OptionError(f"{name}: expected the type of a message, such as 'redis.disconnect'; got {value!r}")
        self.on_disconnect = on_disconnect
        self.on_reconnect = on_reconnect
        self._down: set[tuple[str, str]] = set()
        if framework.compat:
            _drop_unknown(type(self), options)
        super().__init__(*args, **options)

    def link_changed(self, node: Node, name: str, up: bool) -> None:
        """Log it, and tell the consumers of the node, on its loop."""
        super().link_changed(node, name, up)
        key = node.id, name
        if up == (key not in self._down):
            return  # as it was: the first time that a link comes up, nobody has missed it
        (self._down.discard if up else self._down.add)(key)
        kind = self.on_reconnect if up else self.on_disconnect
        consumers = [mailbox for mailbox in node.hub.mailboxes.values() if mailbox.owner is not None]
        if kind is not None and consumers:
            node.hub.fan_out(Envelope("", monotonic(), self.encode({"type": kind})), consumers)


def _drop_unknown(cls: type, options: dict[str, Any]) -> None:
    # The layer of channels_redis takes any option here, such as a "password" that belongs into hosts.
    known = OWN_OPTIONS | SHARED_OPTIONS | {"on_disconnect", "on_reconnect"}
    for name in options.keys() - known:
        logger.warning("%s; ignored", unknown_key(name, known, f"option of {cls.__name__}"))
        del options[name]
