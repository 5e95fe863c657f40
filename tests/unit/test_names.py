from __future__ import annotations

import re
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from antiphon import names

ASCII = "abcXYZ019-_."


@pytest.mark.parametrize("name", ["a", "chat_lobby", "user-1.x", "..", "-", "9" * 99])
def test_a_group_name_of_ascii_letters_digits_and_three_marks_is_taken(name: str) -> None:
    names.require_group(name)
    names.require_group(name)  # known by now: the short way


@pytest.mark.parametrize(
    "name",
    [
        "",
        "a" * 100,
        "chat\n",
        "\nchat",
        "chat room",
        "¹",
        "chat_١",  # an Arabic digit, which \d and isdigit() take
        "größe",
        "a!b",
        "a/b",
        "a:b",
        "\0",
        b"chat",
        None,
        1,
        ["chat"],
        {"chat": 1},
        ("chat",),
    ],
)
def test_any_other_group_name_is_a_type_error_that_shows_it(name: Any) -> None:
    with pytest.raises(TypeError, match="Group name must be a valid unicode string") as caught:
        names.require_group(name)
    assert repr(name)[:100] in str(caught.value)


@pytest.mark.parametrize("name", ["a", "specific.a1b2!3", "worker-thumbnails", "a!", "a" * 99, "a" * 97 + "!b"])
def test_a_channel_name_may_have_one_exclamation_mark(name: str) -> None:
    names.require_channel(name)
    names.require_channel(name)


@pytest.mark.parametrize(
    "name", ["", "!", "!a", "a!b!c", "a" * 100, "a\n", "a!b\n", "a!\n", "a b", "é!1", None, 7, b"a", ["a"], {}]
)
def test_any_other_channel_name_is_a_type_error_that_shows_it(name: Any) -> None:
    with pytest.raises(TypeError, match="Channel name must be a valid unicode string"):
        names.require_channel(name)


def test_a_name_for_receive_ends_at_its_exclamation_mark() -> None:
    names.require_channel("a!", receive=True)
    names.require_channel("worker", receive=True)
    for _ in range(2):  # once unknown, once known
        with pytest.raises(TypeError, match="must end at the !"):
            names.require_channel("a!b", receive=True)


def test_a_long_wrong_name_is_shown_cut_short() -> None:
    with pytest.raises(TypeError) as caught:
        names.require_group("ä" * 100_000)
    assert len(str(caught.value)) < 400


def test_a_subclass_of_str_is_checked_like_any_text() -> None:
    class Name(str):
        __slots__ = ()

    names.require_group(Name("ok"))
    with pytest.raises(TypeError):
        names.require_group(Name("not ok"))


def test_more_names_than_are_remembered_are_still_checked() -> None:
    for number in range(names._KNOWN_MAX + 10):
        names.require_group(f"g{number}")
        names.require_channel(f"c{number}")
    assert len(names.known_groups) <= names._KNOWN_MAX
    assert len(names._known_channels) <= names._KNOWN_MAX
    with pytest.raises(TypeError):
        names.require_group("g 1")


@given(st.one_of(st.text(max_size=110), st.text(ASCII, max_size=110), st.text(ASCII + "!", max_size=110)))
def test_names_are_taken_exactly_when_the_rule_says_so(name: str) -> None:
    group = bool(name) and len(name) < 100 and all(c.isascii() and (c.isalnum() or c in "-_.") for c in name)
    assert _taken(names.require_group, name) is group
    channel = len(name) < 100 and re.fullmatch(r"[a-zA-Z0-9_.\-]+(![a-zA-Z0-9_.\-]*)?", name) is not None
    assert _taken(names.require_channel, name) is channel


def _taken(require: Any, name: str) -> bool:
    try:
        require(name)
    except TypeError:
        return False
    return True


def test_the_node_is_found_in_every_channel_name_it_makes() -> None:
    node = names.new_node_id()
    assert re.fullmatch("[0-9a-f]{12}", node)
    assert node != names.new_node_id()
    assert names.node_of(f"specific.{node}!1f") == node
    assert names.node_of(f"my.own.prefix.{node}!1f") == node
    assert names.node_of("worker") is None
    assert names.is_local(f"specific.{node}!1f")
    assert not names.is_local("worker.a")


def test_topics_of_different_kinds_never_meet() -> None:
    name = "n.a1"
    topics = {names.group_topic(name), names.user_topic(name), names.inbox_topic(name), names.control_topic()}
    assert len(topics) == 4
    assert names.group_topic("c") != names.control_topic()
