"""Values that an option cannot take, values that are taken with a word of warning, and what a failure tells to do."""

from __future__ import annotations

import asyncio
import logging
import re
from collections.abc import Callable
from typing import Any

import pytest

from antiphon import framework
from antiphon.engines.redis import hosts as hosts_module
from antiphon.engines.redis.advice import advised
from antiphon.engines.redis.hosts import parse_hosts
from antiphon.exceptions import EngineUnavailable, OptionError
from antiphon.layer import redis as layer_module
from antiphon.layers import EmbeddedChannelLayer, InMemoryChannelLayer, RedisChannelLayer
from antiphon.testing.faults import ValkeyServer, free_port
from tests.waiting import until

SENTINEL = {"master_name": "m", "sentinels": [("a", 26379)]}
LAYERS = (InMemoryChannelLayer, EmbeddedChannelLayer, RedisChannelLayer)


@pytest.fixture(autouse=True)
def untold(monkeypatch: pytest.MonkeyPatch) -> None:
    """Say anew in each test what is said once a process."""
    monkeypatch.setattr(hosts_module, "_told", set())
    monkeypatch.setattr(layer_module, "_told_short", False)


def warnings_of(caplog: pytest.LogCaptureFixture) -> list[str]:
    return [record.getMessage() for record in caplog.records if record.levelno >= logging.WARNING]


# --- refused


@pytest.mark.parametrize(
    ("options", "says"),
    [
        ({"cluster": "yes"}, "cluster: expected True or False; got 'yes'"),
        ({"cluster": "no"}, "cluster: expected True or False; got 'no'"),
        ({"cluster": None}, "cluster: expected True or False; got None"),
        ({"cluster": 1}, "cluster: expected True or False; got 1"),
        ({"cluster": True, "hosts": [SENTINEL]}, "hosts[0]: expected a server of the cluster; got sentinels"),
        (
            {"cluster": True, "hosts": ["redis://a", "redis://b/1"]},
            "hosts[1]: db: a cluster has database 0 alone; got 1",
        ),
        ({"prefix": "a b"}, "prefix: expected 1 to 100 printable characters, no space; got 'a b'"),
        ({"prefix": "a\tb"}, r"prefix: expected 1 to 100 printable characters, no space; got 'a\tb'"),
        ({"prefix": "a\x7f"}, "prefix: expected 1 to 100 printable characters"),
        ({"hosts": ["redis://h:99999"]}, "its port is no number from 1 to 65535"),
        ({"hosts": ["redis://h:abc"]}, "its port is no number from 1 to 65535"),
        ({"hosts": [{"master_name": "m", "sentinels": ["a"]}]}, "or a (host, port) pair; got scheme ''"),
        ({"hosts": [{"address": "redis://a", "pasword": 1}]}, "unknown option 'pasword'; did you mean 'password'?"),
    ],
)
def test_a_value_that_cannot_be_meant_is_refused_when_the_layer_is_made(options: dict[str, Any], says: str) -> None:
    with pytest.raises(OptionError, match=re.escape(says)):
        RedisChannelLayer(**options)


@pytest.mark.parametrize("cluster", [True, False])
def test_a_cluster_of_plain_servers_and_database_0_are_taken(cluster: bool) -> None:
    RedisChannelLayer(hosts=["redis://a/0", ("b", 7000), {"host": "c", "db": 0}], cluster=cluster)


def test_an_unknown_option_of_a_host_is_answered_with_those_that_matter() -> None:
    with pytest.raises(OptionError, match="unknown option 'foo'; known: address, ") as error:
        parse_hosts([{"address": "redis://a", "foo": 1}])
    told = str(error.value)
    assert "password" in told
    assert "parser_class" not in told
    assert "queue_class" not in told


@pytest.mark.parametrize("layer", LAYERS)
@pytest.mark.parametrize("name", ["channel_capacity", "channel_overflow"])
@pytest.mark.parametrize("wrong", [[("a", 1)], 5, "a*", {5: 3}, {None: 3}, {re.compile(b"a"): 3}], ids=repr)
def test_what_is_no_dict_of_patterns_is_refused_by_every_layer(
    layer: Callable[..., object], name: str, wrong: object
) -> None:
    values = {"channel_capacity": "positive ints", "channel_overflow": "'drop_new' or 'drop_old' or 'close'"}[name]
    says = f"{name}: expected a dict of channel patterns to {values}; got {wrong!r}"
    with pytest.raises(OptionError, match=re.escape(says)):
        layer(**{name: wrong})


@pytest.mark.parametrize("layer", LAYERS)
def test_globs_and_compiled_patterns_are_taken(layer: Callable[..., Any]) -> None:
    made = layer(
        channel_capacity={"http.*": 7, re.compile(r"^w\d$"): 8, "none": 9},
        channel_overflow={re.compile("^w"): "close", "http.*": "drop_old"},
    )
    assert [made.get_capacity(name) for name in ("http.x", "w1", "other")] == [7, 8, 100]
    assert [made.get_overflow(name) for name in ("http.x", "w1", "other")] == ["drop_old", "close", "drop_new"]
    assert layer(channel_capacity=None, channel_overflow={}).get_capacity("http.x") == 100


# --- taken, with a warning


def test_an_empty_list_of_hosts_means_the_default_and_is_told_once(caplog: pytest.LogCaptureFixture) -> None:
    assert parse_hosts([]) == parse_hosts(()) == parse_hosts(None)
    (told,) = warnings_of(caplog)
    assert told.startswith("hosts: the list is empty, so localhost:6379 is used")


def test_no_hosts_at_all_are_nothing_to_warn_of(caplog: pytest.LogCaptureFixture) -> None:
    parse_hosts(None)
    assert warnings_of(caplog) == []


@pytest.mark.parametrize(
    ("hosts", "twins"),
    [
        (["redis://a", "redis://b", ("a", 6379)], "hosts[0] and hosts[2] are one server"),
        (["unix:///s", {"path": "/s"}], "hosts[0] and hosts[1] are one server"),
        (["redis://a:1", "redis://a:2"], None),
        ([SENTINEL, {**SENTINEL, "master_name": "n"}], None),
    ],
)
def test_shards_on_one_server_are_told(hosts: list[Any], twins: str | None, caplog: pytest.LogCaptureFixture) -> None:
    assert len(parse_hosts(hosts)) == len(hosts)
    told = warnings_of(caplog)
    assert (told == []) if twins is None else (twins in told[0] and len(told) == 1)


def test_a_cluster_may_be_told_one_server_twice(caplog: pytest.LogCaptureFixture) -> None:
    parse_hosts(["redis://a", "redis://a"], cluster=True)
    assert warnings_of(caplog) == []


def test_a_short_secret_is_told_once_without_a_letter_of_it(caplog: pytest.LogCaptureFixture) -> None:
    for _ in range(2):
        RedisChannelLayer(symmetric_encryption_keys=["x" * 16, "hunter2"])
    (told,) = warnings_of(caplog)
    assert told.startswith("symmetric_encryption_keys[1] is shorter than 16 characters")
    assert "hunter2" not in told


def test_long_secrets_are_nothing_to_warn_of(caplog: pytest.LogCaptureFixture) -> None:
    RedisChannelLayer(symmetric_encryption_keys=["x" * 16, b"y" * 32])
    assert warnings_of(caplog) == []


# --- what a server or a socket says, and what to do


@pytest.mark.parametrize(
    ("reason", "expected"),
    [
        ("WRONGPASS user is disabled..", "WRONGPASS user is disabled"),
        ("the server closed the connection", "the server closed the connection"),
        ("[Errno 2] No such file or directory: '/usr/bin/x'", "[Errno 2] No such file or directory: '/usr/bin/x'"),
        ("[Errno 2] No such file or directory", "[Errno 2] No such file or directory (is the server running?)"),
        ("MOVED 9 127.0.0.1:1", "MOVED 9 127.0.0.1:1 (it belongs to a cluster: is the option 'cluster' set?)"),
    ],
)
def test_a_reason_loses_its_full_stop_and_gains_advice_where_there_is_some(reason: str, expected: str) -> None:
    assert advised(reason, "asgi") == expected
    assert advised(advised(reason, "asgi"), "asgi") == expected


RIGHTS = {
    "channels": (["~*", "resetchannels", "+@all"], "(its account needs &mine:a1:*; SECURITY.md"),
    "commands": (
        ["~*", "&*", "-@all", "+hello", "+ping"],
        "(its account needs that command, ~mine:a1:* and &mine:a1:*; SECURITY.md",
    ),
}


@pytest.mark.parametrize("missing", RIGHTS)
async def test_a_right_that_is_missing_is_named(
    any_server: ValkeyServer, missing: str, caplog: pytest.LogCaptureFixture
) -> None:
    rights, says = RIGHTS[missing]
    any_server.command("ACL", "SETUSER", "poor", "reset", "on", ">secret", *rights)
    layer = RedisChannelLayer(
        hosts=[any_server.unix_url.replace("unix://", "unix://poor:secret@")], prefix="mine", timeout_s=0.5
    )
    with pytest.raises(EngineUnavailable, match=re.escape(says)) as error:
        await layer.group_send("g", {"type": "t"})
    assert ".." not in str(error.value)
    with pytest.raises(EngineUnavailable, match=re.escape(says)):
        await asyncio.to_thread(layer.publish_blocking, ["g:g"], layer.encode({"type": "t"}), None)
    await layer.close()
    (told,) = warnings_of(caplog)  # the cause, and nothing about what would be nice to have
    assert "cannot connect" in told
    assert says in told


async def test_a_right_to_keys_that_is_missing_is_named(any_server: ValkeyServer) -> None:
    any_server.command("ACL", "SETUSER", "poor", "reset", "on", ">secret", "&*", "+@all")
    layer = RedisChannelLayer(hosts=[any_server.unix_url.replace("unix://", "unix://poor:secret@")], prefix="mine")
    with pytest.raises(EngineUnavailable, match=re.escape("(its account needs ~mine:a1:*; SECURITY.md")):
        await layer.send("worker", {"type": "t"})
    await layer.close()


async def test_a_password_that_is_missing_is_named(any_server: ValkeyServer) -> None:
    any_server.command("CONFIG", "SET", "requirepass", "secret")
    layer = RedisChannelLayer(hosts=[any_server.unix_url], timeout_s=0.5)
    try:
        with pytest.raises(EngineUnavailable, match=r"it wants a password: redis://:password@host\)\.$"):
            await layer.group_send("g", {"type": "t"})
        with pytest.raises(
            EngineUnavailable, match=r"it wants a password: redis://:password@host\); nothing was sent$"
        ):
            await asyncio.to_thread(layer.publish_blocking, ["g:g"], layer.encode({"type": "t"}), None)
    finally:
        any_server.command("AUTH", "secret")
        any_server.command("CONFIG", "SET", "requirepass", "")
        await layer.close()


async def test_a_cluster_that_is_none_is_named(any_server: ValkeyServer) -> None:
    layer = RedisChannelLayer(hosts=[any_server.unix_url], cluster=True, timeout_s=0.5)
    with pytest.raises(EngineUnavailable, match=r"\(it belongs to no cluster: remove the option 'cluster'\)$"):
        await layer.group_send("g", {"type": "t"})
    await layer.close()


async def test_a_server_that_is_away_at_the_start_is_told_and_so_is_its_coming(
    caplog: pytest.LogCaptureFixture,
) -> None:
    port = free_port()
    layer = RedisChannelLayer(hosts=[("127.0.0.1", port)], timeout_s=0.3)
    with pytest.raises(EngineUnavailable, match=r"\(is the server running\?\)\.$"):
        await layer.group_send("g", {"type": "t"})
    with pytest.raises(EngineUnavailable, match=r"\(is the server running\?\); nothing was sent$"):
        await asyncio.to_thread(layer.publish_blocking, ["g:g"], layer.encode({"type": "t"}), None)
    assert [text.endswith("(is the server running?)") for text in warnings_of(caplog)] == [True]
    with ValkeyServer(port=port):
        await until(lambda: layer.stats()["links"]["up"] == 1)
        await layer.close()
    assert re.fullmatch(rf"Engine link 127\.0\.0\.1:{port} is up, after [\d.]+ s", warnings_of(caplog)[1])
    assert len(warnings_of(caplog)) == 2


async def test_a_link_that_was_told_to_be_down_is_told_to_be_up_again(
    own_valkey: ValkeyServer, caplog: pytest.LogCaptureFixture, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(type(framework.current()), "under_test", lambda self: False)
    layer = RedisChannelLayer(hosts=[own_valkey.url])
    await layer.new_channel()
    await until(lambda: layer.stats()["links"]["up"] == 1)
    assert warnings_of(caplog) == []
    own_valkey.kill()
    await until(lambda: layer.stats()["links"]["down"] == 1)
    own_valkey.start()
    await until(lambda: layer.stats()["links"]["up"] == 1)
    await layer.close()
    told = [text for text in warnings_of(caplog) if text.startswith("Engine link")]
    assert [re.sub(r"link \S+ of node \w+|[\d.]+ s$", "…", text) for text in told] == [
        "Engine … is down; connections stay open",
        "Engine … is up again after …",
    ]
