"""``relay``: a handler that runs once a node for a message, whose result goes to every member as one frame.

A relay sees the message and nothing else: no ``self``, no scope. So what it returns is the same for all, is encoded
and framed once, and needs no task, no context and no turn of the loop of any member.
"""

from __future__ import annotations

import inspect
from collections.abc import Callable
from typing import Any, Generic, TypeVar

__all__ = ["Relay", "relay"]

R = TypeVar("R")


class Relay(Generic[R]):
    """What ``relay`` makes of a function. On the class and on an instance it is that function."""

    def __init__(self, function: Callable[..., R], *, positioned: bool = False) -> None:
        self.function = function
        self.positioned = positioned  # it takes (message, position)
        self.__doc__ = function.__doc__
        self.__name__ = getattr(function, "__name__", "relay")

    def __repr__(self) -> str:
        return f"<Relay {self.__name__}>"

    def __get__(self, instance: object, owner: type | None = None) -> Callable[..., R]:
        """Return the function."""
        return self.function

    def __call__(self, message: Any, *position: Any) -> R:
        """Call the function."""
        return self.function(message, *position)


def relay(function: Callable[..., R] | None = None, /) -> Relay[R]:
    """Make a consumer's method a relay: ``def chat_message(message)``, called once a node for each message.

    A second parameter, ``position``, gets the message's place in the group's history (None where it has none): what a
    client must know to recover.

    It returns what every member of the group is sent: ``str`` or ``bytes`` as they are, ``None`` for nothing, anything
    else as JSON, by the class's own ``encode_json`` or ``json_encoder`` where it has them. The message is the relay's
    own: it may change it. Where it raises, nobody gets anything: one log record, ``relay_failed`` counted for each
    member, and no connection is closed.

    Raises TypeError for an ``async def``, and for a function that takes anything else.
    """
    if function is None:
        raise TypeError("relay: write @relay, without parentheses")
    if isinstance(function, staticmethod):
        function = function.__func__
    name = getattr(function, "__qualname__", repr(function))
    if not callable(function) or isinstance(function, (type, classmethod)):
        raise TypeError(f"relay: expected a function of the message; got {function!r}")
    if inspect.iscoroutinefunction(function) or inspect.isasyncgenfunction(function):
        raise TypeError(f"relay: {name} is async. A relay may not wait: make it a plain def, or a handler.")
    try:
        parameters = list(inspect.signature(function).parameters.values())
    except ValueError:  # a builtin that does not say
        parameters = None
    positioned = parameters is not None and [parameter.name for parameter in parameters][1:] == ["position"]
    if parameters is not None and not _takes_one(parameters[:1] if positioned else parameters):
        raise TypeError(
            f"relay: {name}({', '.join(map(str, parameters))}) must take the message, or (message, position), and"
            " nothing else. It runs once for all members, so it has no self."
        )
    return Relay(function, positioned=positioned)


def _takes_one(parameters: list[inspect.Parameter]) -> bool:
    positional = [p for p in parameters if p.kind in (p.POSITIONAL_ONLY, p.POSITIONAL_OR_KEYWORD, p.VAR_POSITIONAL)]
    required = [p for p in parameters if p.default is p.empty and p.kind not in (p.VAR_POSITIONAL, p.VAR_KEYWORD)]
    alone = len(required) == 1 and required[0] in positional and required[0].name not in ("self", "cls")
    return bool(positional) and (alone or not required)
