"""``channels_redis.serializers``: the registry that applications add formats of their own to.

Bodies travel in Antiphon's own encoding, whatever the format. One that an application registered still decides what
arrives: a message passes through its ``serialize`` and ``deserialize`` where it is sent, and what comes out travels.
"""

from __future__ import annotations

import abc
import json
from typing import Any

from ... import codec
from ...exceptions import OptionError

__all__ = [
    "BaseMessageSerializer",
    "JSONSerializer",
    "MissingSerializer",
    "MsgPackSerializer",
    "SerializerDoesNotExist",
    "SerializersRegistry",
    "registry",
]


class SerializerDoesNotExist(KeyError):
    """No serializer is registered under that name."""


class BaseMessageSerializer(abc.ABC):
    """What a serializer of one's own inherits from: it defines ``as_bytes`` and ``from_bytes``.

    ``random_prefix_length`` and ``expiry`` are taken and mean nothing here. Encryption is the layer's, so
    ``symmetric_encryption_keys`` raise OptionError and ``crypter`` is always None.
    """

    crypter: Any = None

    def __init__(
        self,
        symmetric_encryption_keys: Any = None,
        random_prefix_length: int = 0,
        expiry: float | None = None,
    ) -> None:
        if symmetric_encryption_keys:
            raise OptionError(
                f"symmetric_encryption_keys: {type(self).__name__} does not encrypt; give the keys to the layer, in the "
                "CONFIG of CHANNEL_LAYERS, which does"
            )
        self.random_prefix_length = random_prefix_length
        self.expiry = expiry

    @abc.abstractmethod
    def as_bytes(self, message: Any, *args: Any, **kwargs: Any) -> bytes:
        """Return the bytes of a message."""
        raise NotImplementedError

    @abc.abstractmethod
    def from_bytes(self, message: Any, *args: Any, **kwargs: Any) -> Any:
        """Return the message that bytes stand for."""
        raise NotImplementedError

    def serialize(self, message: Any) -> bytes:
        """Return the bytes of a message."""
        return self.as_bytes(message)

    def deserialize(self, message: bytes) -> Any:
        """Return the message that bytes stand for."""
        return self.from_bytes(message)


class MissingSerializer(BaseMessageSerializer):
    """Stands for a serializer whose package is missing: raises ``exception`` when it is made."""

    exception: BaseException | None = None

    def __init__(self, *args: Any, **kwargs: Any) -> None:
        raise self.exception or NotImplementedError(type(self).__name__)


class JSONSerializer(BaseMessageSerializer):
    """JSON, in UTF-8."""

    def as_bytes(self, message: Any, *args: Any, **kwargs: Any) -> bytes:
        """Return the JSON of a message."""
        return json.dumps(message, *args, **kwargs).encode()

    def from_bytes(self, message: Any, *args: Any, **kwargs: Any) -> Any:
        """Return what a JSON text stands for."""
        return json.loads(message, *args, **kwargs)


class MsgPackSerializer(BaseMessageSerializer):
    """The encoding of Antiphon, which is msgpack."""

    def as_bytes(self, message: Any, *args: Any, **kwargs: Any) -> bytes:
        """Return the encoded message; raises TypeError, with the path, for what cannot travel."""
        return codec.encode(message)

    def from_bytes(self, message: Any, *args: Any, **kwargs: Any) -> Any:
        """Return the decoded message."""
        return codec.decode(message)


class SerializersRegistry:
    """Serializer classes by the name that ``serializer_format`` gives."""

    def __init__(self) -> None:
        self._registry: dict[str, Any] = {}

    def __repr__(self) -> str:
        return f"<SerializersRegistry {', '.join(self._registry)}>"

    def register_serializer(self, format: str, serializer_class: Any) -> None:  # noqa: A002 - theirs
        """Register a class under a name, in place of the one that has it now.

        Raises TypeError for a class without ``serialize`` and ``deserialize``.
        """
        usable = isinstance(serializer_class, type) and all(
            hasattr(serializer_class, name) for name in ("serialize", "deserialize")
        )
        if not usable:
            raise TypeError(
                f"serializer {format!r}: expected a class with serialize and deserialize; got {serializer_class!r}"
            )
        self._registry[format] = serializer_class

    def get_serializer(self, format: str, *args: Any, **kwargs: Any) -> Any:  # noqa: A002 - theirs
        """Return a new serializer. Raises SerializerDoesNotExist for an unknown name."""
        try:
            serializer_class = self._registry[format]
        except KeyError:
            raise SerializerDoesNotExist(format) from None
        return serializer_class(*args, **kwargs)


registry = SerializersRegistry()
registry.register_serializer("json", JSONSerializer)
registry.register_serializer("msgpack", MsgPackSerializer)
