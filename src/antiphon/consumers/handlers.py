"""Which method handles a message: the name that its type maps to, and what the layer may not reach.

A client's events come from the server and may call the methods of the base classes; that is what these are for. A
message from the layer comes from anyone who can send, so it reaches only what the application's own class defines.
"""

from __future__ import annotations

import logging
import time
from contextvars import ContextVar
from inspect import get_annotations
from typing import Any
from weakref import WeakKeyDictionary

from .. import framework

__all__ = [
    "Refused",
    "framework_names",
    "from_layer",
    "get_handler_name",
    "handlers_of",
    "known_handlers",
    "layer_handler",
    "log_refused",
    "markers_of",
]

logger = logging.getLogger("antiphon.consumer")

# A common idiom in public code sends {"type": "send_json", …} through the layer to call the inherited method.
_OPEN = frozenset(("send_json",))
# What no message may call even where Channels' ways hold: these would recurse or do nothing sensible.
_NEVER = frozenset(("dispatch", "as_asgi", "channel_receive", "base_send"))
LOG_INTERVAL_S = 10.0

# True while a message from the layer is dispatched. A class that overrides dispatch() sees every message, may pass on
# another one, or may do so later in a task: wherever it ends up in the stock dispatch(), the layer's rules hold.
from_layer: ContextVar[bool] = ContextVar("antiphon_from_layer", default=False)


class Refused(ValueError):
    """No handler may take this message from the layer."""


# What a layer says to members by itself.
MARKERS = ("group.lost", "presence.join", "presence.leave", "antiphon.unsubscribe")
_markers: WeakKeyDictionary[type, frozenset[str]] = WeakKeyDictionary()

# Consumer class -> message type -> method name; a class's methods do not change once it is made. Weak: a class made
# for a while (in a test, by a factory) goes when its maker drops it, and signal receivers that hang on it with it.
_resolved: WeakKeyDictionary[type, dict[str, str]] = WeakKeyDictionary()
_logged: dict[tuple[str, str], float] = {}


def get_handler_name(message: Any) -> str:
    """Return the method name for a message: its type with dots replaced.

    Raises ValueError without a type, or for one that would reach a private name.
    """
    if "type" not in message:
        raise ValueError("Incoming message has no 'type' attribute")
    kind = message["type"]
    if not isinstance(kind, str) or not kind:
        raise ValueError(f"Malformed type in message (expected a non-empty str, got {kind!r:.80})")
    name = kind.replace(".", "_")
    if name.startswith("_"):
        raise ValueError("Malformed type in message (leading underscore)")
    return name


def known_handlers(cls: type) -> dict[str, str]:
    """Return the table, message type -> method name, of what was resolved for a class so far."""
    return _resolved.setdefault(cls, {})


def layer_handler(consumer: Any, message: Any) -> str:
    """Return the name of the method that a message from the layer may call.

    Raises Refused, with the handlers that exist, for a malformed, unknown or refused type.
    """
    kind = message.get("type") if isinstance(message, dict) else None
    known = known_handlers(type(consumer))
    if isinstance(kind, str):
        name = known.get(kind)
        if name is not None:
            return name
    name = _resolve(consumer, message)
    if len(known) < 1000:
        known[kind] = name  # type: ignore[index]  # resolved, so it is a str
    return name


def _resolve(consumer: Any, message: Any) -> str:
    cls = type(consumer)
    if not isinstance(message, dict):
        raise Refused(f"Malformed message from the layer: expected a dict, got {type(message).__name__}")
    try:
        name = get_handler_name(message)
    except ValueError as exc:
        raise Refused(str(exc)) from None
    kind = message["type"]
    opened = getattr(cls, "layer_handlers", None) or {}
    if kind in opened:
        name = str(opened[kind])
        if not callable(getattr(consumer, name, None)):
            raise Refused(f"layer_handlers maps {kind!r} to {name!r}, which {cls.__qualname__} does not define")
        return name
    if name in framework_names(cls) and name not in _OPEN and (name in _NEVER or not framework.compat):
        raise Refused(
            f"Message type {kind!r} is refused: {name}() is a method of the framework, which no message may call. "
            f"Rename the type, or open it with layer_handlers = {{{kind!r}: {name!r}}}. {_there_are(cls)}"
        )
    if not callable(getattr(consumer, name, None)):
        raise Refused(f"No handler for message type {kind}. {_there_are(cls)}")
    return name


def framework_names(cls: type) -> set[str]:
    """Return the names that the framework's own classes define for a class."""
    # The annotated ones too: what an instance has, such as base_send, no message may call either.
    return {
        name
        for base in cls.__mro__
        if base.__module__.partition(".")[0] == "antiphon"
        for name in (*vars(base), *get_annotations(base))
    }


def markers_of(cls: type) -> frozenset[str]:
    """Return the types of what a layer says by itself that a class has handlers for: nobody else gets them."""
    markers = _markers.get(cls)
    if markers is None:
        opened = getattr(cls, "layer_handlers", None) or {}
        ours = framework_names(cls)
        markers = _markers[cls] = frozenset(
            kind
            for kind in MARKERS
            if kind in opened or (kind.replace(".", "_") not in ours and hasattr(cls, kind.replace(".", "_")))
        )
    return markers


def handlers_of(cls: type) -> list[str]:
    """Return the names of the methods that messages from the layer may call."""
    ours = framework_names(cls) - _OPEN
    own = {
        name
        for base in cls.__mro__
        if base is not object
        for name, value in vars(base).items()
        if callable(value) and not name.startswith("_") and name not in ours
    }
    return sorted(own | set((getattr(cls, "layer_handlers", None) or {}).values()))


def _there_are(cls: type) -> str:
    names = handlers_of(cls)
    return f"{cls.__qualname__} has the handlers: {', '.join(names) or 'none'}."


def log_refused(cls: type, message: Any, exc: Exception) -> None:
    """Log a message that no handler took: at once, then at most at intervals for the same class and type."""
    kind = str(message.get("type") if isinstance(message, dict) else type(message).__name__)[:80]
    now = time.monotonic()
    key = (f"{cls.__module__}.{cls.__qualname__}", kind)
    if now - _logged.get(key, -LOG_INTERVAL_S) < LOG_INTERVAL_S:
        return
    if len(_logged) > 1000:
        _logged.clear()
    _logged[key] = now
    # The type came with the message, so anybody may have written it: one line, of bounded length.
    why = str(exc)[:1000].encode("unicode_escape").decode()
    logger.warning("%s took no message of type %r: %s", cls.__qualname__, kind, why)
