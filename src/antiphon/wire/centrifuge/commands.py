"""What a client may ask: the commands, their fields, and how one is read. Unknown fields are ignored.

Wrong JSON, and a field of another type than the table's, make a command ``Malformed``. null stands for a field that is
not there, as in the Go server, whose rules are those of protocol buffers.
"""

from __future__ import annotations

import json
import math
import re
from dataclasses import dataclass
from typing import Any, ClassVar, NoReturn

__all__ = [
    "COMMANDS",
    "PONG",
    "Command",
    "Connect",
    "History",
    "Malformed",
    "Ping",
    "Pong",
    "Presence",
    "PresenceStats",
    "Publish",
    "Refresh",
    "Rpc",
    "Send",
    "SubRefresh",
    "Subscribe",
    "Unknown",
    "Unsubscribe",
    "read_command",
]

# What a position in a client's hands may be: JavaScript knows no larger integer.
OFFSET_MAX = (1 << 53) - 1
ID_MAX = (1 << 32) - 1
# As deep as what a layer takes.
DEPTH_MAX = 200


class Malformed(ValueError):
    """What came is no command: the client does not speak the protocol."""


class Pong:
    """The answer to a ping: an empty object."""

    def __repr__(self) -> str:
        return "<Pong>"


PONG = Pong()


@dataclass(frozen=True, slots=True)
class Command:
    """One command. ``fields``: the type of each of its fields, ``needs``: those that it must have."""

    id: int

    fields: ClassVar[dict[str, type]] = {}
    needs: ClassVar[tuple[str, ...]] = ()


@dataclass(frozen=True, slots=True)
class Connect(Command):
    """The first command of a connection."""

    token: str = ""
    data: Any = None
    name: str = ""
    version: str = ""
    fields: ClassVar[dict[str, type]] = {"token": str, "data": object, "name": str, "version": str}


@dataclass(frozen=True, slots=True)
class Subscribe(Command):
    """Ask for the publications of a channel; ``recover``: and for those after ``offset`` of ``epoch`` ("": any).

    ``kind``: what the protocol calls the type: 0 is what this library has.
    """

    channel: str = ""
    token: str = ""
    data: Any = None
    recover: bool = False
    offset: int = 0
    epoch: str = ""
    join_leave: bool = False
    flag: int = 0
    kind: int = 0
    fields: ClassVar[dict[str, type]] = {
        "channel": str,
        "token": str,
        "data": object,
        "recover": bool,
        "offset": int,
        "epoch": str,
        "join_leave": bool,
        "flag": int,
        "type": int,
    }
    needs: ClassVar[tuple[str, ...]] = ("channel",)

    @property
    def all_or_error(self) -> bool:
        """Whether error 112 is to say that a position is no good, in place of ``recovered: false``."""
        return bool(self.flag & 2)


@dataclass(frozen=True, slots=True)
class Unsubscribe(Command):
    """End a subscription."""

    channel: str = ""
    fields: ClassVar[dict[str, type]] = {"channel": str}
    needs: ClassVar[tuple[str, ...]] = ("channel",)


@dataclass(frozen=True, slots=True)
class Publish(Command):
    """Publish to a channel."""

    channel: str = ""
    data: Any = None
    fields: ClassVar[dict[str, type]] = {"channel": str, "data": object}
    needs: ClassVar[tuple[str, ...]] = ("channel", "data")


@dataclass(frozen=True, slots=True)
class Presence(Command):
    """Ask who is in a channel."""

    channel: str = ""
    fields: ClassVar[dict[str, type]] = {"channel": str}
    needs: ClassVar[tuple[str, ...]] = ("channel",)


@dataclass(frozen=True, slots=True)
class PresenceStats(Command):
    """Ask how many are in a channel."""

    channel: str = ""
    fields: ClassVar[dict[str, type]] = {"channel": str}
    needs: ClassVar[tuple[str, ...]] = ("channel",)


@dataclass(frozen=True, slots=True)
class History(Command):
    """Ask for publications of a channel. ``limit``: 0 for the position alone, below 0 for all that may be had."""

    channel: str = ""
    limit: int = 0
    since: dict[str, Any] | None = None
    reverse: bool = False
    fields: ClassVar[dict[str, type]] = {"channel": str, "limit": int, "since": dict, "reverse": bool}
    needs: ClassVar[tuple[str, ...]] = ("channel",)

    @property
    def position(self) -> tuple[str, int] | None:
        """The position (epoch, offset) to read from; an epoch "" is any."""
        if self.since is None:
            return None
        return self.since.get("epoch") or "", self.since.get("offset") or 0


@dataclass(frozen=True, slots=True)
class Rpc(Command):
    """Call a method of the application."""

    method: str = ""
    data: Any = None
    fields: ClassVar[dict[str, type]] = {"method": str, "data": object}


@dataclass(frozen=True, slots=True)
class Send(Command):
    """Send something to the application; it is not answered, so its id is 0."""

    data: Any = None
    fields: ClassVar[dict[str, type]] = {"data": object}


@dataclass(frozen=True, slots=True)
class Refresh(Command):
    """Present a new token of the connection."""

    token: str = ""
    fields: ClassVar[dict[str, type]] = {"token": str}
    needs: ClassVar[tuple[str, ...]] = ("token",)


@dataclass(frozen=True, slots=True)
class SubRefresh(Command):
    """Present a new token of a subscription."""

    channel: str = ""
    token: str = ""
    fields: ClassVar[dict[str, type]] = {"channel": str, "token": str}
    needs: ClassVar[tuple[str, ...]] = ("channel", "token")


@dataclass(frozen=True, slots=True)
class Ping(Command):
    """Ask for a sign of life: of the first version of the protocol, and not available in this one."""


@dataclass(frozen=True, slots=True)
class Unknown(Command):
    """A command of a name that is not in the table."""


COMMANDS: dict[str, type[Command]] = {
    "connect": Connect,
    "subscribe": Subscribe,
    "unsubscribe": Unsubscribe,
    "publish": Publish,
    "presence": Presence,
    "presence_stats": PresenceStats,
    "history": History,
    "rpc": Rpc,
    "send": Send,
    "refresh": Refresh,
    "sub_refresh": SubRefresh,
    "ping": Ping,
}

# Fields that count, and how far.
_BOUNDS = {"offset": (0, OFFSET_MAX), "limit": (-(1 << 31), (1 << 31) - 1), "flag": (0, ID_MAX), "type": (0, ID_MAX)}


def read_command(line: str) -> Command | Pong:
    """Read one command. Raises Malformed."""
    content = _read_json(line)
    if not isinstance(content, dict):
        raise Malformed("a command is an object")
    if not content:
        return PONG
    found = [name for name in content if name in COMMANDS and content[name] is not None]
    number = content.get("id") or 0
    if type(number) is not int or not 0 <= number <= ID_MAX:
        raise Malformed("an id is a positive integer")
    if not found and number and any(isinstance(value, dict) for value in content.values()):
        return Unknown(number)
    if len(found) != 1:
        raise Malformed("a command names one method")
    cls = COMMANDS[found[0]]
    if (cls is Send) is bool(number):
        raise Malformed("every command has an id, except send")
    return cls(number, **_fields(cls, content[found[0]]))


def _fields(cls: type[Command], given: Any) -> dict[str, Any]:
    if not isinstance(given, dict):
        raise Malformed("what belongs to a method is an object")
    fields = {name: given[name] for name in cls.fields if given.get(name) is not None}
    for name, value in fields.items():
        _check(name, value, cls.fields[name])
    since = fields.get("since")
    if since is not None:
        for name, kind in (("offset", int), ("epoch", str)):
            if since.get(name) is not None:
                _check(name, since[name], kind)
    missing = [name for name in cls.needs if name not in given or fields.get(name) == ""]
    if missing:
        raise Malformed(f"{missing[0]} is missing")
    if "type" in fields:
        fields["kind"] = fields.pop("type")
    return fields


def _check(name: str, value: Any, kind: type) -> None:
    if kind is not object and type(value) is not kind:
        raise Malformed(f"{name} is of another type")
    low, high = _BOUNDS.get(name, (0, 0))
    if kind is int and not low <= value <= high:
        raise Malformed(f"{name} is out of range")


# JSON: what Python reads and others do not, or could not be written again, is refused.

_BRACKETS = re.compile(r'"(?:[^"\\]|\\.)*"|[\[{]|[\]}]')
_SURROGATE = re.compile(r"\\u[dD][89a-fA-F]")


def _read_json(line: str) -> Any:
    if line.count("[") + line.count("{") > DEPTH_MAX:
        _check_depth(line)
    try:
        content = _DECODER.decode(line)
        if _SURROGATE.search(line):
            json.dumps(content, ensure_ascii=False).encode()  # half a pair is no text
    except (ValueError, RecursionError) as exc:
        raise Malformed(f"not JSON: {exc}") from None
    return content


def _check_depth(line: str) -> None:
    depth = 0
    for found in _BRACKETS.finditer(line):
        bracket = line[found.start()]
        if bracket in "[{":
            depth += 1
            if depth > DEPTH_MAX:
                raise Malformed(f"nested deeper than {DEPTH_MAX}")
        elif bracket in "]}":
            depth -= 1


def _finite(text: str) -> float:
    value = float(text)
    if not math.isfinite(value):
        raise ValueError(f"{text[:20]} is too large a number")
    return value


def _no_constant(name: str) -> NoReturn:
    raise ValueError(f"{name} is not JSON")


_DECODER = json.JSONDecoder(parse_float=_finite, parse_constant=_no_constant)
