"""Messages to bytes and back: msgpack, the same on every engine. Knows no envelope and no engine.

What travels, and as what it arrives:

    str and its subclasses, lazy strings   str            bytes, bytearray, memoryview   bytes
    bool, None, float (NaN, infinities)    themselves     int of any size                int
    list, tuple                            list           set, frozenset                 set
    dict (any plain keys)                  dict           Enum members                   their value
    datetime, date, time, timedelta, Decimal, UUID        themselves

Everything else is refused at the sender with its path. ormsgpack is told to pass every type that msgpack has no
exact form for through to ``_pack_other``: nothing is converted without a word.
"""

from __future__ import annotations

import datetime as dt
import enum
import sys
from collections.abc import Callable, Mapping
from decimal import Decimal
from functools import partial
from typing import Any
from uuid import UUID

import ormsgpack

__all__ = ["MAX_DEPTH", "decode", "encode"]

# Extension codes are part of the wire: never renumber. 0-15 are ours.
_SET, _DATETIME, _DATE, _TIME, _TIMEDELTA, _DECIMAL, _UUID, _BIGINT = range(1, 9)

# A message nested deeper is refused (ormsgpack's own limit is a little higher): no receiver's stack is at risk.
MAX_DEPTH = 200

_PACK = (
    ormsgpack.OPT_PASSTHROUGH_BIG_INT
    | ormsgpack.OPT_PASSTHROUGH_DATACLASS
    | ormsgpack.OPT_PASSTHROUGH_DATETIME
    | ormsgpack.OPT_PASSTHROUGH_ENUM
    | ormsgpack.OPT_PASSTHROUGH_SUBCLASS
    | ormsgpack.OPT_PASSTHROUGH_TUPLE
    | ormsgpack.OPT_PASSTHROUGH_UUID
)
# With this option ormsgpack turns dates and enums that are keys into text: only after _check_keys said there are none.
_PACK_ANY_KEY = _PACK | ormsgpack.OPT_NON_STR_KEYS
_UNPACK = ormsgpack.OPT_NON_STR_KEYS


def _ext(code: int, text: str) -> ormsgpack.Ext:
    return ormsgpack.Ext(code, text.encode())


def _pack_time(value: dt.datetime | dt.time) -> str:
    # fold is not in ISO 8601: it would be lost without a word.
    return value.isoformat() + ("~1" if value.fold else "")


# Exact types first: a dict look-up decides the common cases.
_PACKERS: dict[type, Callable[[Any], Any]] = {
    tuple: list,
    set: lambda v: ormsgpack.Ext(_SET, _packb(list(v))),
    frozenset: lambda v: ormsgpack.Ext(_SET, _packb(list(v))),
    dt.datetime: lambda v: _ext(_DATETIME, _pack_time(v)),
    dt.date: lambda v: _ext(_DATE, v.isoformat()),
    dt.time: lambda v: _ext(_TIME, _pack_time(v)),
    dt.timedelta: lambda v: _ext(_TIMEDELTA, f"{v.days},{v.seconds},{v.microseconds}"),
    Decimal: lambda v: _ext(_DECIMAL, str(v)),
    UUID: lambda v: ormsgpack.Ext(_UUID, v.bytes),
    int: lambda v: _ext(_BIGINT, hex(v)),
    memoryview: bytes,
    bytearray: bytes,
}
# Then what inherits from them, in this order: an enum may be an int, a datetime is a date.
_BASES: tuple[tuple[type, Callable[[Any], Any]], ...] = (
    (enum.Enum, lambda v: v.value),
    # Not str(value): a subclass's __str__ may say anything; the text itself is what was meant to travel.
    (str, lambda v: "".join(("", v))),
    (int, int.__int__),
    (float, float.__float__),
    (bytes, bytes),
    (bytearray, bytes),
    (list, list),
    (tuple, list),
    (dict, dict),
    *((kind, _PACKERS[kind]) for kind in (set, frozenset, dt.datetime, dt.date, dt.time, dt.timedelta, Decimal, UUID)),
)


def _is_lazy(value: Any) -> bool:
    # Django's lazy strings are proxies whose class is not str. Where Django was never imported, there are none.
    functional = sys.modules.get("django.utils.functional")
    return functional is not None and isinstance(value, functional.Promise)


def _pack_other(value: Any) -> Any:
    """Turn what msgpack has no form for into something it has, or raise TypeError."""
    packer = _PACKERS.get(type(value))
    if packer is not None:
        return packer(value)
    for base, convert in _BASES:
        if isinstance(value, base):
            return convert(value)
    if _is_lazy(value):
        return "".join(("", str(value)))
    raise TypeError(f"cannot be sent: {type(value).__module__}.{type(value).__qualname__}")


def _packb(value: Any) -> bytes:
    try:
        return ormsgpack.packb(value, _pack_other, _PACK)
    except Exception:
        # Keys other than str need the slower option; anything else fails again, and for a stated reason.
        _check_keys(value, 0)
        return ormsgpack.packb(value, _pack_other, _PACK_ANY_KEY)


_KEY_TYPES = frozenset((str, int, float, bool, bytes, type(None)))


def _check_keys(value: Any, depth: int) -> None:
    if depth > MAX_DEPTH:
        raise TypeError(f"nested deeper than {MAX_DEPTH}")
    if isinstance(value, dict):
        for key, item in value.items():
            _check_key(key)
            _check_keys(item, depth + 1)
    elif isinstance(value, (list, tuple, set, frozenset)):
        for item in value:
            _check_keys(item, depth + 1)


def _check_key(key: Any) -> None:
    if isinstance(key, tuple):
        for item in key:
            _check_key(item)
    elif type(key) not in _KEY_TYPES and (not isinstance(key, (str, int, float)) or isinstance(key, enum.Enum)):
        raise TypeError(f"expected a key that is str, int, float, bool, bytes, None or a tuple of them; got {key!r}")


def encode(message: Mapping[str, Any]) -> bytes:
    """Encode a message (a dict) into msgpack bytes.

    Raises TypeError for a value that cannot be sent, with its path in the message.
    """
    try:
        return ormsgpack.packb(message, _pack_other, _PACK)
    except Exception:
        try:
            return _packb(message)
        except Exception as exc:
            # ormsgpack says only that something failed; walk again to say what and where.
            _explain(message, "message", 0)
            raise TypeError(f"message cannot be encoded: {exc}") from exc


def _explain(value: Any, path: str, depth: int) -> None:
    if depth > MAX_DEPTH:
        raise TypeError(f"{path[:80]}…: nested deeper than {MAX_DEPTH}")
    if isinstance(value, dict):
        for key, item in value.items():
            try:
                _check_key(key)
            except TypeError as exc:
                raise TypeError(f"{path}: {exc}") from None
            _explain(item, f"{path}[{key!r:.60}]", depth + 1)
    elif isinstance(value, (list, tuple)):
        for index, item in enumerate(value):
            _explain(item, f"{path}[{index}]", depth + 1)
    elif isinstance(value, (set, frozenset)):
        for item in value:
            _explain(item, f"{path}{{…}}", depth + 1)
    else:
        _explain_one(value, path)


def _explain_one(value: Any, path: str) -> None:
    try:
        _packb(value)
    except Exception as exc:
        kind = f"{type(value).__module__}.{type(value).__qualname__}".removeprefix("builtins.")
        raise TypeError(
            f"{path}: expected a value that a message can carry (str, bytes, int, float, bool, None, list, tuple, set, "
            f"dict, datetime, date, time, timedelta, Decimal, UUID, Enum); got {kind} {_show(value)}"
        ) from exc


def _show(value: Any) -> str:
    try:
        return f"{value!r:.80}"
    except Exception as exc:  # a repr that fails must not hide what we came to say
        return f"<repr failed: {exc!r:.60}>"


def _unpack_time(text: str) -> tuple[str, int]:
    return (text[:-2], 1) if text.endswith("~1") else (text, 0)


def _unpack_datetime(data: bytes) -> dt.datetime:
    text, fold = _unpack_time(data.decode())
    value = dt.datetime.fromisoformat(text)
    return value.replace(fold=1) if fold else value


def _unpack_clock(data: bytes) -> dt.time:
    text, fold = _unpack_time(data.decode())
    value = dt.time.fromisoformat(text)
    return value.replace(fold=1) if fold else value


def _unpack_timedelta(data: bytes) -> dt.timedelta:
    days, seconds, microseconds = data.decode().split(",")
    return dt.timedelta(int(days), int(seconds), int(microseconds))


def _freeze(item: Any) -> Any:
    # Members of a set were hashable where they came from; a tuple travels as a list, a frozenset as a set.
    if isinstance(item, list):
        return tuple(map(_freeze, item))
    return frozenset(item) if isinstance(item, set) else item


_UNPACKERS: dict[int, Callable[[bytes], Any]] = {
    _SET: lambda data: set(map(_freeze, decode(data))),
    _DATETIME: _unpack_datetime,
    _DATE: lambda data: dt.date.fromisoformat(data.decode()),
    _TIME: _unpack_clock,
    _TIMEDELTA: _unpack_timedelta,
    _DECIMAL: lambda data: Decimal(data.decode()),
    _UUID: lambda data: UUID(bytes=bytes(data)),
    _BIGINT: lambda data: int(data.decode(), 16),
}


def _unpack_ext(code: int, data: bytes) -> Any:
    unpack = _UNPACKERS.get(code)
    if unpack is None:
        raise ValueError(f"unknown extension type {code}")
    return unpack(data)


# Decodes msgpack bytes; raises ValueError for bytes that no sender of ours can have made. A partial, not a function:
# decoding happens once a receiver, and a frame of Python costs a fifth of it.
decode: Callable[[bytes], Any] = partial(ormsgpack.unpackb, ext_hook=_unpack_ext, option=_UNPACK)
