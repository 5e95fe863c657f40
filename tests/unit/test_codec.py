from __future__ import annotations

import collections
import contextlib
import datetime as dt
import enum
import math
from decimal import Decimal
from typing import Any, NamedTuple
from uuid import UUID

import ormsgpack
import pytest
from django.utils.functional import lazystr
from django.utils.safestring import SafeString, mark_safe
from django.utils.translation import gettext_lazy
from hypothesis import example, given
from hypothesis import strategies as st

from antiphon import codec

UTC = dt.UTC


class Colour(enum.Enum):
    RED = "red"
    PAIR = (1, 2)


class Level(enum.IntEnum):
    HIGH = 3


class Kind(enum.StrEnum):
    CHAT = "chat"


class Point(NamedTuple):
    x: int
    y: int


class Whole(int):
    def __int__(self) -> int:
        return 99

    def __str__(self) -> str:
        return "ninety-nine"


def there_and_back(value: Any) -> Any:
    return codec.decode(codec.encode({"type": "t", "v": value}))["v"]


ZONES = st.one_of(
    st.just(UTC),
    st.integers(-86_399, 86_399).map(lambda seconds: dt.timezone(dt.timedelta(seconds=seconds))),
)
SCALARS = st.one_of(
    st.none(),
    st.booleans(),
    st.integers(),
    st.integers(-(2**300), 2**300),
    st.floats(allow_nan=False),
    st.text(st.characters(exclude_categories=["Cs"])),
    st.binary(),
    st.datetimes(timezones=st.none() | ZONES, allow_imaginary=True),
    st.dates(),
    st.times(timezones=st.none() | ZONES),
    st.timedeltas(),
    st.decimals(allow_nan=False),
    st.uuids(),
)
HASHABLE = SCALARS | st.frozensets(st.integers(), max_size=3)
KEYS = st.one_of(st.text(st.characters(exclude_categories=["Cs"])), st.integers(-(2**63), 2**63 - 1), st.booleans())
VALUES = st.recursive(
    SCALARS | st.sets(HASHABLE, max_size=4),
    lambda inner: st.lists(inner, max_size=4) | st.dictionaries(KEYS, inner, max_size=4),
    max_leaves=12,
)


@given(VALUES)
@example(2**64)
@example(-(2**63) - 1)
@example(math.inf)
@example(-0.0)
@example(dt.datetime(2026, 10, 25, 2, 30, fold=1))
@example(dt.time(2, 30, fold=1))
@example({(1, 2)})
@example({frozenset([1])})
def test_what_is_sent_arrives_equal_and_of_the_same_type(value: Any) -> None:
    arrived = there_and_back(value)
    assert arrived == value
    # A frozenset inside a set has to stay hashable; elsewhere the types are the very same.
    assert type(arrived) is type(value)
    assert getattr(arrived, "fold", 0) == getattr(value, "fold", 0)
    assert getattr(arrived, "tzinfo", None) is None or arrived.utcoffset() == value.utcoffset()


def test_nan_arrives_as_nan() -> None:
    assert math.isnan(there_and_back(math.nan))
    assert there_and_back(Decimal("NaN")).is_nan()
    assert there_and_back(Decimal("sNaN")).is_snan()
    assert str(there_and_back(Decimal("-0.00"))) == "-0.00"


@pytest.mark.parametrize(
    ("sent", "arrives"),
    [
        (bytearray(b"ab"), b"ab"),
        (memoryview(b"abcd")[1:3], b"bc"),
        ((1, (2, 3)), [1, [2, 3]]),
        (Point(1, 2), [1, 2]),
        (frozenset({1, 2}), {1, 2}),
        (Colour.RED, "red"),
        (Colour.PAIR, [1, 2]),
        (Level.HIGH, 3),
        (Kind.CHAT, "chat"),
        ([Colour.RED, {"deep": Level.HIGH}], ["red", {"deep": 3}]),
        ({Colour.RED, Level.HIGH}, {"red", 3}),
        (collections.OrderedDict(a=1), {"a": 1}),
        (collections.defaultdict(list, a=[1]), {"a": [1]}),
        (collections.Counter("aab"), {"a": 2, "b": 1}),
        (SafeString("<b>"), "<b>"),
        (mark_safe("<b>"), "<b>"),
        (lazystr("later"), "later"),
        (gettext_lazy("hello"), "hello"),
        ({"deep": [lazystr("later")]}, {"deep": ["later"]}),
        (Whole(5), 5),
        (set(), set()),
        ({}, {}),
        ("", ""),
    ],
)
def test_a_relative_of_a_plain_type_arrives_as_the_plain_type(sent: Any, arrives: Any) -> None:
    arrived = there_and_back(sent)
    assert arrived == arrives
    assert type(arrived) is type(arrives)


def test_the_text_of_a_str_subclass_travels_whatever_its_str_says() -> None:
    class Loud(str):
        __slots__ = ()

        def __str__(self) -> str:
            return self.upper()

    assert there_and_back(Loud("quiet")) == "quiet"
    assert type(there_and_back(Loud("quiet"))) is str


def test_a_named_zone_arrives_as_its_offset_at_that_moment() -> None:
    from zoneinfo import ZoneInfo

    try:
        berlin = ZoneInfo("Europe/Berlin")
    except Exception:
        pytest.skip("no time zone data on this machine")
    summer = dt.datetime(2026, 7, 1, 12, tzinfo=berlin)
    assert there_and_back(summer) == summer
    assert there_and_back(summer).utcoffset() == dt.timedelta(hours=2)


@given(st.dictionaries(st.one_of(KEYS, st.none(), st.binary(), st.floats(allow_nan=False)), st.integers()))
def test_plain_keys_of_any_kind_stay_what_they_are(value: dict[Any, int]) -> None:
    arrived = there_and_back(value)
    assert arrived == value
    assert {type(key) for key in arrived} == {type(key) for key in value}


def test_a_tuple_of_plain_values_may_be_a_key() -> None:
    assert there_and_back({(1, "a"): 1}) == {(1, "a"): 1}


def test_a_str_subclass_may_be_a_key() -> None:
    assert there_and_back({SafeString("k"): {SafeString("l"): 1}}) == {"k": {"l": 1}}


@pytest.mark.parametrize(
    "key",
    [Colour.RED, Level.HIGH, Kind.CHAT, dt.date(2026, 1, 1), UUID(int=1), Decimal(1), frozenset(), (1, UUID(int=1))],
)
def test_a_key_that_would_change_its_type_is_refused_with_its_place(key: Any) -> None:
    with pytest.raises(TypeError) as caught:
        codec.encode({"type": "t", "rows": [{key: 1}]})
    assert "message['rows'][0]: expected a key that is str, int" in str(caught.value)
    assert repr(key).strip("(1, )") in str(caught.value)


class Thing:
    pass


class Unshowable:
    def __repr__(self) -> str:
        raise RuntimeError("no text for this")


@pytest.mark.parametrize(
    ("value", "path"),
    [
        (Thing(), "message['v']"),
        ([1, {"a": Thing()}], "message['v'][1]['a']"),
        ((0, 0, Thing()), "message['v'][2]"),
        ({"a": {1: [Thing()]}}, "message['v']['a'][1][0]"),
        ({Thing()}, "message['v']{…}"),
        (3j, "message['v']"),
        ("\ud800", "message['v']"),
        (["fine", "\udfff"], "message['v'][1]"),
        (Thing, "message['v']"),
        (len, "message['v']"),
        ((x for x in [1]), "message['v']"),
        (range(3), "message['v']"),
        (ValueError("x"), "message['v']"),
        (collections.deque([1]), "message['v']"),
        (Unshowable(), "message['v']"),
        (memoryview(b"abcd")[::2], "message['v']"),
    ],
)
def test_what_no_message_can_carry_is_refused_with_its_path(value: Any, path: str) -> None:
    with pytest.raises(TypeError) as caught:
        codec.encode({"type": "t", "v": value})
    assert str(caught.value).startswith(f"{path}: expected a value that a message can carry")


def test_the_refusal_names_the_type_and_shows_the_value() -> None:
    with pytest.raises(TypeError, match=r"got .*Thing <.*Thing object"):
        codec.encode({"v": Thing()})
    with pytest.raises(TypeError, match="repr failed: RuntimeError"):
        codec.encode({"v": Unshowable()})


@pytest.mark.django_db
def test_a_model_and_a_queryset_are_refused_without_a_query(django_assert_num_queries: Any) -> None:
    from django.contrib.auth.models import User

    with django_assert_num_queries(0), pytest.raises(TypeError, match=r"message\['user'\]: .*auth.models.User"):
        codec.encode({"user": User(pk=1, username="ada")})
    with pytest.raises(TypeError, match=r"message\['users'\]: .*QuerySet"):
        codec.encode({"users": User.objects.none()})


@pytest.mark.parametrize("wrap", [lambda v: [v], lambda v: {"k": v}, lambda v: (v,), lambda v: {1: v}])
@pytest.mark.parametrize("depth", [1_000, 30_000])
def test_a_message_nested_too_deep_is_refused_and_not_a_crash(wrap: Any, depth: int) -> None:
    value: Any = 0
    for _ in range(depth):
        value = wrap(value)
    with pytest.raises(TypeError, match=f"nested deeper than {codec.MAX_DEPTH}"):
        codec.encode({"type": "t", "v": value})


def test_a_message_that_contains_itself_is_refused() -> None:
    message: dict[str, Any] = {"type": "t"}
    message["self"] = message
    with pytest.raises(TypeError, match="nested deeper"):
        codec.encode(message)


def test_a_message_as_deep_as_allowed_arrives() -> None:
    value: Any = "bottom"
    for _ in range(codec.MAX_DEPTH - 2):
        value = [value]
    assert there_and_back(value) == value


def test_what_arrives_is_a_copy_at_each_call() -> None:
    body = codec.encode({"type": "t", "list": [1], "set": {1}})
    first, second = codec.decode(body), codec.decode(body)
    first["list"].append(2)
    first["set"].add(2)
    assert second == {"type": "t", "list": [1], "set": {1}}


def test_encoding_changes_nothing_in_the_message() -> None:
    inner = (1, {2})
    message = {"type": "t", "v": inner, "e": Colour.RED}
    codec.encode(message)
    assert message == {"type": "t", "v": inner, "e": Colour.RED}
    assert message["v"] is inner


# The bytes of each extension: a later release must read what this one sends.
@pytest.mark.parametrize(
    ("value", "hexadecimal"),
    [
        ({"v": {1}}, "81a176d5019101"),
        (
            {"v": dt.datetime(2026, 1, 2, 3, 4, 5, 6, tzinfo=UTC)},
            "81a176c72002" + b"2026-01-02T03:04:05.000006+00:00".hex(),
        ),
        ({"v": dt.date(2026, 1, 2)}, "81a176c70a03" + b"2026-01-02".hex()),
        ({"v": dt.time(3, 4, fold=1)}, "81a176c70a04" + b"03:04:00~1".hex()),
        ({"v": dt.timedelta(-1, 2, 3)}, "81a176c70605" + b"-1,2,3".hex()),
        ({"v": Decimal("1.50")}, "81a176d606" + b"1.50".hex()),
        ({"v": UUID(int=1)}, "81a176d807" + "00" * 15 + "01"),
        ({"v": 2**64}, "81a176c71308" + b"0x10000000000000000".hex()),
        ({"v": [None, True, -1, 1.5, "é", b"\x00"]}, "81a17696c0c3ffcb3ff8000000000000a2c3a9c40100"),
    ],
)
def test_golden_bytes(value: Any, hexadecimal: str) -> None:
    assert codec.encode(value).hex() == hexadecimal
    assert codec.decode(bytes.fromhex(hexadecimal)) == value


EXTENSIONS = st.builds(
    lambda code, data: bytes(ormsgpack.packb(ormsgpack.Ext(code, data))),
    st.integers(0, 127),
    st.binary(max_size=40) | VALUES.map(lambda value: codec.encode({"v": value})[3:]) | st.text().map(str.encode),
)


@given(st.binary(max_size=200) | EXTENSIONS | st.tuples(st.binary(max_size=20), EXTENSIONS).map(b"".join))
@example(b"")
@example(b"\xc1")
@example(b"\x81\x80\x02")
@example(b"\x92\x01")
@example(bytes(ormsgpack.packb(ormsgpack.Ext(1, b"\x05"))))  # a set of no list
@example(bytes(ormsgpack.packb(ormsgpack.Ext(1, b"\x91\x80"))))  # a set of a dict
@example(bytes(ormsgpack.packb(ormsgpack.Ext(5, b"99999999999999,0,0"))))  # a timedelta that overflows
@example(bytes(ormsgpack.packb(ormsgpack.Ext(6, b"no number"))))
@example(bytes(ormsgpack.packb(ormsgpack.Ext(7, b"short"))))
@example(bytes(ormsgpack.packb(ormsgpack.Ext(99, b""))))
def test_junk_is_a_value_error_and_nothing_else(junk: bytes) -> None:
    with contextlib.suppress(ValueError):
        codec.decode(junk)


def test_extensions_nested_by_the_thousand_are_junk_and_not_a_crash() -> None:
    body = b"\x90"
    for _ in range(5_000):
        body = bytes(ormsgpack.packb(ormsgpack.Ext(1, b"\x91" + body)))
    with pytest.raises(ValueError):
        codec.decode(body)
