"""What a layer does not take, and how it says so: names, messages and options, refused at the call."""

from __future__ import annotations

import re
from collections.abc import Awaitable
from typing import Any

import pytest

from antiphon.exceptions import MessageTooLarge, OptionError
from antiphon.layers import InMemoryChannelLayer
from tests.layer.conftest import Make
from tests.layer.members import HELLO

WRONG_NAMES: list[Any] = ["", "a b", "a\n", "a" * 100, "é", None, 3, b"a", ["a"]]


@pytest.mark.parametrize("name", WRONG_NAMES)
async def test_a_wrong_name_is_a_type_error_at_every_door(layer: InMemoryChannelLayer, name: Any) -> None:
    calls: list[Awaitable[Any]] = [
        layer.group_add(name, "c"),
        layer.group_discard(name, "c"),
        layer.group_send(name, HELLO),
        layer.groups_send(["fine", name], HELLO),
        layer.send_many([(name, HELLO)]),
        layer.group_channels(name),
        layer.group_count(name),
    ]
    for call in calls:
        with pytest.raises(TypeError, match="Group name must be"):
            await call
    calls = [
        layer.send(name, HELLO),
        layer.receive(name),
        layer.group_add("g", name),
        layer.group_discard("g", name),
        layer.group_discard_all(name),
        layer.close_channel(name),
        layer.group_send("g", HELLO, exclude=[name]),
        layer.groups_send(["g"], HELLO, exclude=[name]),
        layer.user_send(1, HELLO, exclude=[name]),
    ]
    for call in calls:
        with pytest.raises(TypeError, match="Channel name must be"):
            await call


@pytest.mark.parametrize("message", [None, "text", 3, b"", [], [("type", "t")], object()])
async def test_a_message_that_is_no_dict_is_a_type_error(layer: InMemoryChannelLayer, message: Any) -> None:
    for call in (layer.send("c", message), layer.group_send("g", message), layer.user_send(1, message)):
        with pytest.raises(TypeError, match="message: expected a dict; got"):
            await call


@pytest.mark.parametrize("message", [{}, {"type": None}, {"type": 3}, {"Type": "t"}, {"type": b"t"}])
async def test_a_message_without_a_type_is_a_type_error(layer: InMemoryChannelLayer, message: Any) -> None:
    for call in (layer.send("c", message), layer.group_send("g", message), layer.groups_send(["g"], message)):
        with pytest.raises(TypeError, match='expected a str under "type", which names the handler'):
            await call


async def test_what_cannot_be_sent_fails_at_the_sender_with_its_path(layer: InMemoryChannelLayer) -> None:
    with pytest.raises(TypeError, match=r"message\['user'\]: expected a value that a message can carry"):
        await layer.group_send("g", {"type": "t", "user": object()})


async def test_a_message_over_the_bound_is_refused_and_one_at_the_bound_is_not(make: Make) -> None:
    layer = make(max_message_bytes=200)
    room = 200 - len(layer.encode({"type": "t", "v": "x" * 100})) + 100
    assert len(layer.encode({"type": "t", "v": "x" * room})) == 200
    with pytest.raises(MessageTooLarge, match="message 't': 201 bytes encoded, max_message_bytes is 200"):
        await layer.group_send("g", {"type": "t", "v": "x" * (room + 1)})
    with pytest.raises(MessageTooLarge):
        await layer.send("worker", {"type": "t", "v": b"x" * 300})


async def test_a_str_in_the_place_of_a_list_of_names_is_told(layer: InMemoryChannelLayer) -> None:
    with pytest.raises(TypeError, match="exclude: expected a list of channels; got the str 'abc'"):
        await layer.group_send("g", HELLO, exclude="abc")
    with pytest.raises(TypeError, match="groups: expected a list of groups; got the str 'abc'"):
        await layer.groups_send("abc", HELLO)


@pytest.mark.parametrize(
    ("options", "says"),
    [
        ({"capacity": 0}, "capacity: expected a positive int; got 0"),
        ({"capacity": "100"}, "capacity: expected a positive int; got '100'"),
        ({"capacity": True}, "capacity"),
        ({"capacity": 1.5}, "capacity"),
        ({"expiry": 0}, "expiry: expected a number of seconds above 0; got 0"),
        ({"expiry": "60"}, "expiry"),
        ({"group_expiry": -1}, "group_expiry"),
        ({"timeout_s": None}, "timeout_s"),
        ({"max_message_bytes": 0}, "max_message_bytes"),
        ({"overflow": "explode"}, "overflow: expected 'drop_new' or 'drop_old' or 'close'; got 'explode'"),
        ({"channel_overflow": {"a*": "no"}}, "overflow"),
        ({"channel_capacity": {"a*": 0}}, "channel_capacity: expected positive ints; got 0"),
    ],
)
def test_a_wrong_option_is_refused_when_the_layer_is_made(options: dict[str, Any], says: str) -> None:
    with pytest.raises(OptionError, match=re.escape(says)):
        InMemoryChannelLayer(**options)


def test_an_unknown_option_is_refused_with_the_nearest_known_one() -> None:
    with pytest.raises(TypeError, match="unknown option of InMemoryChannelLayer 'capcity'; did you mean 'capacity'?"):
        InMemoryChannelLayer(capcity=3)
    with pytest.raises(TypeError, match="unknown option of InMemoryChannelLayer 'hosts'"):
        InMemoryChannelLayer(hosts=["redis://localhost"])
