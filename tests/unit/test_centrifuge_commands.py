"""What is read as a command, and what is not one."""

from __future__ import annotations

import json
from typing import Any

import pytest

from antiphon.wire.centrifuge.commands import (
    PONG,
    Connect,
    History,
    Malformed,
    Publish,
    Rpc,
    Send,
    Subscribe,
    Unknown,
    read_command,
)


@pytest.mark.parametrize(
    ("line", "command"),
    [
        ({}, PONG),
        ({"id": 1, "connect": {}}, Connect(1)),
        (
            {"id": 1, "connect": {"token": "t", "name": "js", "subs": {}, "headers": {"a": "b"}}},
            Connect(1, "t", name="js"),
        ),
        ({"id": 2, "subscribe": {"channel": "c", "token": None}}, Subscribe(2, "c")),
        (
            {"id": 2, "subscribe": {"channel": "c", "recover": True, "offset": 7, "epoch": "e", "tf": {"x": 1}}},
            Subscribe(2, "c", recover=True, offset=7, epoch="e"),
        ),
        ({"id": 2, "subscribe": {"channel": "c", "type": 4}}, Subscribe(2, "c", kind=4)),
        ({"id": 3, "publish": {"channel": "c", "data": None}}, Publish(3, "c")),
        ({"id": 3, "history": {"channel": "c", "limit": -1, "reverse": False}}, History(3, "c", -1)),
        ({"id": 3, "rpc": {}}, Rpc(3)),
        ({"send": {"data": [1]}}, Send(0, [1])),
        ({"id": 0, "send": {"data": 1}}, Send(0, 1)),
        ({"id": 4, "teleport": {}}, Unknown(4)),
        ({"id": 4, "connect": None, "rpc": {"method": "m"}}, Rpc(4, "m")),
    ],
)
def test_a_command_is_read_and_what_is_unknown_in_it_ignored(line: Any, command: Any) -> None:
    assert read_command(json.dumps(line)) == command


@pytest.mark.parametrize(
    "line",
    [
        "",
        "{",
        "null",
        "[{}]",
        '"text"',
        '{"id":1}',
        '{"id":1,"connect":[]}',
        '{"id":1,"connect":null}',
        '{"id":-1,"connect":{}}',
        '{"id":1.0,"connect":{}}',
        '{"id":true,"connect":{}}',
        '{"id":"1","connect":{}}',
        '{"id":4294967296,"connect":{}}',
        '{"connect":{}}',
        '{"id":1,"send":{}}',
        '{"id":1,"rpc":{},"publish":{"channel":"c","data":1}}',
        '{"id":1,"subscribe":{}}',
        '{"id":1,"subscribe":{"channel":""}}',
        '{"id":1,"subscribe":{"channel":7}}',
        '{"id":1,"subscribe":{"channel":"c","recover":1}}',
        '{"id":1,"subscribe":{"channel":"c","offset":-1}}',
        '{"id":1,"subscribe":{"channel":"c","offset":1.5}}',
        '{"id":1,"subscribe":{"channel":"c","offset":true}}',
        '{"id":1,"subscribe":{"channel":"c","offset":9007199254740992}}',
        '{"id":1,"publish":{"channel":"c"}}',
        '{"id":1,"history":{"channel":"c","since":[]}}',
        '{"id":1,"history":{"channel":"c","since":{"offset":"1"}}}',
        '{"id":1,"history":{"channel":"c","limit":2147483648}}',
        '{"id":1,"refresh":{}}',
        '{"id":1,"sub_refresh":{"channel":"c"}}',
        '{"id":1,"rpc":{"data":NaN}}',
        '{"id":1,"rpc":{"data":1e999}}',
        '{"id":1,"rpc":{"data":"\\ud800"}}',
        '{"id":1,"rpc":{"data":' + "9" * 5000 + "}}",
        '{"id":1,"rpc":{"data":' + "[" * 300 + "]" * 300 + "}}",
        '{"id":1,"rpc":{"data":' + "[" * 100_000,
        "{" * 100_000,
    ],
)  # fmt: skip
def test_what_is_no_command_is_malformed(line: str) -> None:
    with pytest.raises(Malformed):
        read_command(line)


def test_brackets_in_text_are_not_depth_and_pairs_of_surrogates_are_text() -> None:
    data = "[" * 300 + '\\"' + "{" * 300 + "\U0001f600"
    assert read_command(json.dumps({"id": 1, "rpc": {"data": data}})) == Rpc(1, "", data)
    flat: list[Any] = [[]] * 300
    assert read_command(json.dumps({"id": 1, "rpc": {"data": flat}})) == Rpc(1, "", flat)


def test_a_position_may_lack_what_is_nothing() -> None:
    for since, expected in (({}, ("", 0)), ({"offset": 3, "epoch": None}, ("", 3)), ({"epoch": "e"}, ("e", 0))):
        command = read_command(json.dumps({"id": 1, "history": {"channel": "c", "since": since}}))
        assert isinstance(command, History)
        assert command.position == expected
