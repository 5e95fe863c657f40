"""Every error Antiphon raises, and nothing else.

AntiphonError
├── you erred
│   ├── InvalidChannelLayerError (ValueError)   a layer that cannot be built or lacks what is asked of it
│   ├── OptionError (ValueError)                an option that does not exist, or a value it cannot take
│   ├── MessageTooLarge (ValueError)            a message over ``max_message_bytes``
│   └── MissingExtra (ImportError)              an optional package that is not installed
├── the other side erred
│   ├── AskFailed                               a consumer that was asked gave no answer
│   ├── ChannelFull                             a channel that holds ``capacity`` messages already
│   ├── EngineUnavailable                       the engine cannot take or deliver messages now
│   │   ├── CrossProcessError                   an engine of one process was asked to reach another
│   │   └── NodeUnreachable                     a node did not answer within its time-out
│   ├── RequestAborted
│   │   └── RequestTimeout
│   └── TokenInvalid                            a token that is not ours, or not for this
│       └── TokenExpired                        one that was
└── control flow, raised inside a consumer
    ├── AcceptConnection
    ├── DenyConnection
    │   └── JoinDenied                          ``authorize_join`` refused a group
    ├── ReplyError                              what a client's command is to be answered with
    └── StopConsumer

Wrong names and unserialisable messages are plain ``TypeError``, as users of channel layers expect.
"""

from __future__ import annotations

import sys
from functools import cache
from typing import Any, Self

__all__ = [
    "AcceptConnection",
    "AntiphonError",
    "AskFailed",
    "ChannelFull",
    "CrossProcessError",
    "DenyConnection",
    "EngineUnavailable",
    "InvalidChannelLayerError",
    "JoinDenied",
    "MessageTooLarge",
    "MissingExtra",
    "NodeUnreachable",
    "OptionError",
    "ReplyError",
    "RequestAborted",
    "RequestTimeout",
    "StopConsumer",
    "TokenExpired",
    "TokenInvalid",
]


class AntiphonError(Exception):
    """The root of all errors raised by Antiphon."""


class InvalidChannelLayerError(AntiphonError, ValueError):
    """A layer's configuration is wrong, or the layer lacks what is asked of it."""


class OptionError(AntiphonError, ValueError):
    """An option does not exist, or was given a value that it cannot take."""


class MessageTooLarge(AntiphonError, ValueError):
    """A message's encoded body is larger than ``max_message_bytes``."""


class MissingExtra(AntiphonError, ImportError):
    """An optional package is needed and not installed."""

    @classmethod
    def of(cls, package: str, extra: str, purpose: str) -> MissingExtra:
        """Build the one message for a missing extra: what is missing, for what, and what to install."""
        return cls(f'{purpose} needs the package {package!r}: pip install "antiphon[{extra}]"')


class AskFailed(AntiphonError):
    """A consumer that was asked gave no answer: it is gone, has no handler for the question, or that raised."""


class ChannelFull(AntiphonError):
    """A channel holds ``capacity`` messages already; the message was not taken.

    Where a layer of Antiphon serves the real Channels, what is raised is a ``channels.exceptions.ChannelFull`` as well,
    because that is what the application catches. It is decided here, so that no place that raises can forget it.
    """

    def __new__(cls, *args: object, **kwargs: object) -> Self:
        """Make the error of the class that fits the process: see above."""
        theirs = getattr(sys.modules.get("channels.exceptions"), "ChannelFull", ChannelFull)
        fitting: type[Self] = _joined(theirs) if cls is ChannelFull is not theirs else cls
        return super().__new__(fitting, *args, **kwargs)


@cache
def _joined(theirs: type[Exception]) -> Any:
    # Pickles as ChannelFull, which every process has.
    members = {"__doc__": ChannelFull.__doc__, "__reduce__": lambda self: (ChannelFull, self.args)}
    return type("ChannelFull", (ChannelFull, theirs), members)


class EngineUnavailable(AntiphonError):
    """The engine cannot take or deliver messages now."""


class CrossProcessError(EngineUnavailable):
    """An engine that lives in one process was asked to reach another."""


class NodeUnreachable(EngineUnavailable):
    """A node did not answer a control call within its time-out."""


class RequestAborted(AntiphonError):
    """The incoming request was aborted part way through."""


class RequestTimeout(RequestAborted):
    """The incoming request took too long to arrive."""


class TokenInvalid(AntiphonError):
    """A token is not ours, was changed, or is not for this connection or group."""


class TokenExpired(TokenInvalid):
    """A token was good, and its time is over."""


class AcceptConnection(AntiphonError):
    """Raise inside ``connect()`` to accept the connection."""


class DenyConnection(AntiphonError):
    """Raise inside ``connect()`` to deny the connection."""


class JoinDenied(DenyConnection):
    """``authorize_join`` refused a group: denies the connection when it escapes from ``connect()``."""


class ReplyError(AntiphonError):
    """Raise in a method that answers a client's command: the client gets this error.

    ``code``: 400 to 1999 are the application's own. ``temporary``: the client may try again by itself.
    """

    def __init__(self, code: int, message: str, *, temporary: bool = False) -> None:
        super().__init__(code, message)
        if not isinstance(code, int) or isinstance(code, bool) or not 100 <= code <= 1999:
            raise ValueError(f"ReplyError: expected a code from 100 to 1999; got {code!r:.80}")
        self.code = code
        self.message = str(message)
        self.temporary = temporary


class StopConsumer(AntiphonError):
    """Raise in a handler to end the consumer cleanly."""
