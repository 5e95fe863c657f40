"""The relays of a consumer class: which message each takes, and what becomes of what it returns."""

from __future__ import annotations

import logging
from collections.abc import Mapping
from functools import partial
from typing import Any

from ..envelope import Envelope
from ..layer.mailbox import NOTHING, Failed
from ..types import Position
from ..wire.prebuilt import Prebuilt
from .encoders import encoder_of
from .handlers import framework_names
from .relay import Relay

__all__ = ["RelayTable"]

logger = logging.getLogger("antiphon.consumer")


class RelayTable:
    """The relays of one consumer class, as the hub calls them (``layer.mailbox.Relays``)."""

    __slots__ = ("_by_kind", "_cls", "_functions", "owner")

    def __init__(self, cls: type, functions: Mapping[str, Relay[Any]]) -> None:
        self.owner = cls.__qualname__
        self._cls = cls
        self._functions = functions
        opened: Mapping[str, str] = getattr(cls, "layer_handlers", None) or {}
        self._by_kind = {kind: name for kind, name in opened.items() if name in functions}

    def __repr__(self) -> str:
        return f"<RelayTable of {self.owner}: {', '.join(self._functions)}>"

    @classmethod
    def of(cls, consumer: type) -> RelayTable | None:
        """Return the table of a consumer class, None without relays.

        Raises TypeError where a relay cannot be: it has the name of a method of the framework, or the class overrides
        ``dispatch()``, which sees every message and would not see these.
        """
        found: dict[str, Relay[Any]] = {}
        ours = set()  # relays that are the framework's own
        for base in reversed(consumer.__mro__):
            for name, value in vars(base).items():
                if isinstance(value, Relay):
                    found[name] = value
                    if base.__module__.startswith("antiphon."):
                        ours.add(name)
                else:
                    found.pop(name, None)
        if not found:
            return None
        where = consumer.__qualname__
        taken = sorted(found.keys() & framework_names(consumer) - ours)
        if taken:
            raise TypeError(
                f"{where}.{taken[0]} cannot be a relay: it is a method of the framework. Name it otherwise."
            )
        if getattr(consumer, "dispatch", None) is not getattr(consumer, "_antiphon_stock", None):
            raise TypeError(
                f"{where} has relays ({', '.join(sorted(found))}) and overrides dispatch(), which no relayed message "
                "passes: make them handlers, or drop the override"
            )
        return cls(consumer, found)

    def outcome(self, envelope: Envelope) -> Any:
        """Return the Prebuilt for all members, NOTHING, or Failed; None: this message is for a handler."""
        try:
            return envelope.once(self, partial(self._run, envelope.position))
        except ValueError:
            return None  # no message at all: the reader's own way says so

    def _run(self, position: Position | None, message: Any) -> Any:
        kind = message.get("type") if isinstance(message, dict) else None
        if not isinstance(kind, str):
            return None
        name = self._by_kind.get(kind) or kind.replace(".", "_")
        function = self._functions.get(name)
        if function is None:
            return None
        try:
            value = function(message, position) if function.positioned else function(message)
            if value is None:
                return NOTHING
            if isinstance(value, (bytearray, memoryview)):
                value = bytes(value)
            elif not isinstance(value, (str, bytes)):
                value = encoder_of(self._cls)(value)
                if isinstance(value, bytes):  # JSON is text, whatever its encoder returns
                    value = value.decode()
            return Prebuilt(value)
        except Exception as exc:
            logger.error(
                "%s.%s, a relay, raised %r: nobody got this message",
                self.owner,
                name,
                exc,
                exc_info=exc,
                extra={"consumer": self.owner, "handler": name},
            )
            return Failed(exc)
