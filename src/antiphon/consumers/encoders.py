"""How consumers encode JSON: ``json.dumps``, or what ``json_encoder`` names. Knows consumers by their attributes alone.

orjson is the fast one. msgspec is as fast for small messages alone, and where orjson refuses sets, bytes and Decimal, and
dates when told to, it makes something of them.
Of what ``json.dumps`` refuses it writes two things: a UUID as text, and a member of an Enum as its value.
"""

from __future__ import annotations

import inspect
import json
from collections.abc import Awaitable, Callable
from typing import Any, ClassVar

from ..exceptions import MissingExtra

__all__ = ["EncodesJson", "encoder_named", "encoder_of"]

NAMES = ("fast",)


class EncodesJson:
    """What a consumer class says of its JSON.

    ``json_encoder``: None is ``json.dumps``; "fast" is orjson (the extra ``antiphon[fast]``), with compact text.
    An ``encode_json`` of one's own wins, and its ``super().encode_json()`` encodes as ``json_encoder`` says.
    """

    json_encoder: ClassVar[str | None] = None
    _antiphon_encode: ClassVar[Callable[[Any], str]] = staticmethod(json.dumps)

    def __init_subclass__(cls, **kwargs: Any) -> None:
        """Find the encoder. Raises TypeError for one that does not exist, MissingExtra without its package."""
        super().__init_subclass__(**kwargs)
        cls._antiphon_encode = staticmethod(encoder_named(cls.json_encoder, cls.__qualname__))


def encoder_named(name: Any, where: str) -> Callable[[Any], str]:
    """Return the encoder of a class's ``json_encoder``.

    Raises TypeError for a name that does not exist, MissingExtra where its package is not installed.
    """
    if name is None:
        return json.dumps
    if name not in NAMES:
        known = ", ".join(map(repr, (None, *NAMES)))
        raise TypeError(
            f"{where}.json_encoder: expected one of {known}; got {name!r:.80}. "
            "For an encoder of your own override encode_json()."
        )
    try:
        return _fast()
    except ModuleNotFoundError:
        raise MissingExtra.of("orjson", "fast", f'{where}.json_encoder = "fast"') from None


def _fast() -> Callable[[Any], str]:
    import orjson  # an extra

    # What orjson would write its own way comes to _plain() instead.
    option = orjson.OPT_PASSTHROUGH_SUBCLASS | orjson.OPT_PASSTHROUGH_DATETIME | orjson.OPT_PASSTHROUGH_DATACLASS
    dumps, loads = orjson.dumps, orjson.loads

    def encode(content: Any) -> str:
        try:
            encoded = dumps(content, _plain, option)
        except TypeError:  # integers past 64 bits, keys that are no str, lone surrogates, depth; and plain mistakes
            return _slow(content)
        # NaN and infinity become null. What is read back equals the content, unless there was one (or a tuple).
        if b"null" in encoded and loads(encoded) != content:
            return _slow(content)
        return encoded.decode()

    return encode


def _slow(content: Any) -> str:
    return json.dumps(content, separators=(",", ":"))


def _plain(value: Any) -> Any:
    # As json.dumps sees instances of subclasses: by the content of the base class, whatever is overridden.
    if isinstance(value, str):
        return str.__str__(value)
    if isinstance(value, int):
        return int.__int__(value)
    if isinstance(value, float):
        return float.__float__(value)
    if isinstance(value, dict):
        return dict(value.items())
    if isinstance(value, list):
        return list(list.__iter__(value))
    if isinstance(value, tuple):
        return list(tuple.__iter__(value))
    raise TypeError


def encoder_of(cls: type) -> Callable[[Any], str | bytes]:
    """Return what encodes an object as the consumers of a class would, without any of them.

    An ``async def encode_json`` may not wait: what is returned raises RuntimeError then. Raises TypeError for an
    ``encode_json`` that needs an instance; else as ``encoder_named``.
    """
    definer = next((base for base in cls.__mro__ if "encode_json" in vars(base)), None)
    if definer is None or getattr(definer, "_antiphon_stock_json", None) is vars(definer)["encode_json"]:
        return encoder_named(getattr(cls, "json_encoder", None), cls.__qualname__)
    if not isinstance(vars(definer)["encode_json"], (classmethod, staticmethod)):
        raise TypeError(
            f"{definer.__qualname__}.encode_json needs an instance, and a relay has none: make it a classmethod"
        )
    encode = cls.encode_json  # type: ignore[attr-defined]  # found above

    def encode_now(content: Any) -> str | bytes:
        encoded: Any = encode(content)
        return _finished(encoded, cls) if inspect.isawaitable(encoded) else encoded  # type: ignore[no-any-return]

    return encode_now


def _finished(encoding: Awaitable[Any], cls: type) -> Any:
    steps: Any = encoding.__await__()
    try:
        steps.send(None)
    except StopIteration as exc:
        return exc.value
    steps.close()
    raise RuntimeError(f"{cls.__qualname__}.encode_json waits for something: the encoder of a relay may not wait")
