from __future__ import annotations

from typing import Any

import pytest

import antiphon
from antiphon import framework, options
from antiphon.exceptions import OptionError


def test_every_default_passes_its_own_check() -> None:
    for option in options.OPTIONS.values():
        assert option.check(option.default), option.name
        assert option.doc
        assert option.expects


def test_a_configured_value_is_returned_and_else_the_default() -> None:
    antiphon.configure(sync_threads=4, rate_limit=None)
    assert options.get("sync_threads") == 4
    assert options.get("rate_limit") is None
    assert options.get("receive_limit_frames") == 64


def test_an_option_that_does_not_exist_cannot_be_asked_for() -> None:
    with pytest.raises(KeyError):
        options.get("sync_thread")


WRONG: list[tuple[str, Any]] = [
    ("sync_threads", 0),
    ("sync_threads", True),
    ("sync_threads", 1.5),
    ("sync_threads", "32"),
    ("disconnect_grace_s", -1),
    ("disconnect_grace_s", "10"),
    ("receive_limit_frames", None),
    ("max_message_bytes", -1),
    ("rate_limit", "20"),
    ("rate_limit", "20/d"),
    ("rate_limit", "0/s"),
    ("rate_limit", 20),
    ("max_connections_per_user", 0),
    ("revalidate_interval_s", 0),
    ("on_drop", "nodots"),
    ("on_drop", 1),
    ("publish_retry_s", -0.1),
    ("publish_retry_s", None),
    ("ticket_max_age_s", 0),
    ("allowed_origins", "https://example.org"),
    ("allowed_origins", [1]),
]


@pytest.mark.parametrize(("name", "value"), WRONG)
def test_a_wrong_value_is_an_error_that_says_what_was_expected(name: str, value: Any) -> None:
    [problem] = options.validate({name: value})
    assert problem == f"ANTIPHON[{name!r}]: expected {options.OPTIONS[name].expects}; got {value!r}"
    framework.install(framework.Framework(**{name: value}))
    with pytest.raises(OptionError, match=name):
        options.get(name)


RIGHT: list[tuple[str, Any]] = [
    ("disconnect_grace_s", 0),
    ("disconnect_grace_s", None),
    ("rate_limit", "5/10s"),
    ("rate_limit", (5, 2)),
    ("on_drop", print),
    ("on_drop", "builtins.print"),
    ("publish_retry_s", 0),
    ("allowed_origins", {"https://example.org"}),
    ("revalidate_interval_s", 0.5),
]


@pytest.mark.parametrize(("name", "value"), RIGHT)
def test_a_right_value_is_taken(name: str, value: Any) -> None:
    assert options.validate({name: value}) == []
    framework.install(framework.Framework(**{name: value}))
    assert options.get(name) == value


def test_all_problems_of_a_mapping_are_told_and_near_misses_are_suggested() -> None:
    problems = options.validate({"sync_thread": 3, "zzz": 1, "rate_limit": "x", "sync_threads": 3})
    assert problems[0] == "unknown ANTIPHON option 'sync_thread'; did you mean 'sync_threads'?"
    assert problems[1].startswith("unknown ANTIPHON option 'zzz'; known: accept_timeout_s, allowed_origins, ")
    assert "rate_limit" in problems[2]
    assert len(problems) == 3


def test_a_name_that_is_no_text_is_a_problem_and_no_crash() -> None:
    assert "unknown ANTIPHON option 3" in options.validate({3: 1})[0]  # type: ignore[dict-item]


@pytest.mark.parametrize(
    ("rate", "parsed"),
    [
        ("20/s", (20, 1.0)),
        ("300/m", (300, 60.0)),
        ("5/10s", (5, 10.0)),
        ("1/2h", (1, 7200.0)),
        (" 20 / s ", (20, 1.0)),
        ((3, 0.5), (3, 0.5)),
    ],
)
def test_rates_are_counts_over_seconds(rate: Any, parsed: tuple[int, float]) -> None:
    assert options.parse_rate(rate) == parsed


@pytest.mark.parametrize(
    "rate",
    ["", "/", "20/", "/s", "-1/s", "1.5/s", "20/0s", "²/s", "1/²s", "20/s/s", (0, 1), (1, 0), (1,), None, 5, [1, 1]],
)
def test_anything_else_is_no_rate(rate: Any) -> None:
    with pytest.raises(OptionError, match="rate_limit: expected"):
        options.parse_rate(rate)
