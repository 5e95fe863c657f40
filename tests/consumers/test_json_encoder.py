from __future__ import annotations

import datetime
import decimal
import enum
import json
import math
import sys
import uuid
from collections import OrderedDict
from typing import Any, ClassVar, NamedTuple

import pytest
from hypothesis import given
from hypothesis import strategies as st

from antiphon.consumers.encoders import encoder_of
from antiphon.exceptions import MissingExtra
from antiphon.generic.websocket import AsyncJsonWebsocketConsumer, JsonWebsocketConsumer


class Marked(str):
    __slots__ = ()

    def __str__(self) -> str:
        return "not this"


class Count(int):
    pass


class Share(float):
    pass


class Level(enum.IntEnum):
    HIGH = 3


class Plain(enum.Enum):
    A = "a"


class Pair(NamedTuple):
    left: int
    right: int


class Fast(JsonWebsocketConsumer):
    json_encoder: ClassVar[str | None] = "fast"


class AsyncFast(AsyncJsonWebsocketConsumer):
    json_encoder = "fast"


class Stock(JsonWebsocketConsumer):
    pass


def deep(levels: int) -> Any:
    value: Any = []
    for _ in range(levels):
        value = [value]
    return value


@pytest.mark.parametrize(
    "content",
    [
        {"type": "chat", "at": 1.5, "who": None, "tags": ["a", "é", "\u2028", "\x7f"]},
        {"nothing": None, "pair": (1, None)},
        [2**64 - 1, -(2**63), 2**70, -(2**70)],
        [1e16, 1e22, 1e-7, 5e-324, -0.0, 0.1],
        {1: "a", None: "b", False: "c", 1.5: "d"},
        {Marked("k"): Marked("v")},
        [Count(3), Count(2**70), Share(1.5), Level.HIGH, Pair(1, 2), OrderedDict(a=1)],
        "\ud800",
        "null",
        deep(400),
    ],
)
def test_the_fast_encoder_means_what_json_dumps_means(content: Any) -> None:
    text = Fast.encode_json(content)
    assert json.loads(text) == json.loads(json.dumps(content))
    assert "\n" not in text


@pytest.mark.parametrize("number", [math.nan, math.inf, -math.inf, Share(math.nan)])
def test_a_float_that_json_has_no_word_for_is_never_null(number: float) -> None:
    assert Fast.encode_json({"a": None, "b": [number]}) == f'{{"a":null,"b":[{json.dumps(number)}]}}'


@pytest.mark.parametrize(
    "content",
    [
        {1},
        b"x",
        bytearray(b"x"),
        decimal.Decimal("1.10"),
        datetime.datetime(2026, 1, 1),
        datetime.date(2026, 1, 1),
        datetime.time(1),
        object(),
        {(1, 2): 3},
    ],
)
def test_what_json_dumps_refuses_is_refused_with_its_words(content: Any) -> None:
    with pytest.raises(TypeError) as expected:
        json.dumps([content])
    with pytest.raises(TypeError) as raised:
        Fast.encode_json([content])
    assert str(raised.value) == str(expected.value)


def test_of_what_json_dumps_refuses_two_things_have_a_text() -> None:
    assert Fast.encode_json([uuid.UUID(int=1), Plain.A]) == '["00000000-0000-0000-0000-000000000001","a"]'


_values = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats(allow_nan=False) | st.text(),
    lambda inner: st.lists(inner) | st.dictionaries(st.text() | st.integers(), inner),
)


@given(_values)
def test_both_encoders_are_read_as_the_same(content: Any) -> None:
    assert json.loads(Fast.encode_json(content)) == json.loads(json.dumps(content))


def test_without_json_encoder_it_is_json_dumps_byte_for_byte() -> None:
    content = {"a": [1, "é", None], 2: math.nan}
    assert Stock.encode_json(content) == json.dumps(content)
    assert encoder_of(Stock)(content) == json.dumps(content)


async def test_the_asynchronous_class_has_it_too() -> None:
    assert await AsyncFast.encode_json({"a": "é"}) == '{"a":"é"}'
    assert encoder_of(AsyncFast)({"a": "é"}) == '{"a":"é"}'


def test_a_subclass_inherits_the_encoder_and_may_go_back() -> None:
    class Heir(Fast):
        pass

    class Back(Fast):
        json_encoder = None

    assert Heir.encode_json([1, 2]) == "[1,2]"
    assert Back.encode_json([1, 2]) == "[1, 2]"


@pytest.mark.parametrize("name", ["orjson", "", True])
def test_an_unknown_encoder_fails_when_the_class_is_made(name: Any) -> None:
    with pytest.raises(TypeError, match=r"Wrong.json_encoder: expected one of None, 'fast'; got .*encode_json\(\)"):
        type("Wrong", (JsonWebsocketConsumer,), {"json_encoder": name, "__qualname__": "Wrong"})


def test_a_missing_package_fails_when_the_class_is_made(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "orjson", None)
    with pytest.raises(MissingExtra, match=r'pip install "antiphon\[fast\]"'):
        type("Fast", (AsyncJsonWebsocketConsumer,), {"json_encoder": "fast"})


def test_an_encode_json_of_ones_own_wins_and_its_super_is_the_named_encoder() -> None:
    class Wrapped(JsonWebsocketConsumer):
        json_encoder = "fast"

        @classmethod
        def encode_json(cls, content: Any) -> str:
            return super().encode_json({"v": [1, content]})

    assert Wrapped.encode_json(2) == encoder_of(Wrapped)(2) == '{"v":[1,2]}'


def test_an_asynchronous_encode_json_serves_a_relay_unless_it_waits() -> None:
    class Own(AsyncJsonWebsocketConsumer):
        @classmethod
        async def encode_json(cls, content: Any) -> str:
            return f"<{content}>"

    class Waiting(AsyncJsonWebsocketConsumer):
        @classmethod
        async def encode_json(cls, content: Any) -> str:
            await Turn()
            return ""

    class Turn:
        def __await__(self) -> Any:
            yield

    assert encoder_of(Own)(1) == "<1>"
    with pytest.raises(RuntimeError, match="the encoder of a relay may not wait"):
        encoder_of(Waiting)(1)


def test_an_encode_json_that_needs_an_instance_serves_no_relay() -> None:
    class Own(JsonWebsocketConsumer):
        def encode_json(self, content: Any) -> str:  # type: ignore[override]  # as applications have it
            return ""

    with pytest.raises(TypeError, match="make it a classmethod"):
        encoder_of(Own)
