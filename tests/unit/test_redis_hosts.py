"""The ``hosts`` option in all the forms that channels_redis takes."""

from __future__ import annotations

import logging
import ssl
from typing import Any

import pytest

from antiphon.engines.redis import hosts as module
from antiphon.engines.redis.hosts import Address, SentinelHost, SingleHost, parse_hosts
from antiphon.exceptions import OptionError


def only(entry: object) -> Address:
    (host,) = parse_hosts([entry])
    assert isinstance(host, SingleHost)
    return host.address


@pytest.mark.parametrize("nothing", [None, [], ()])
def test_no_hosts_mean_the_local_server(nothing: object) -> None:
    assert parse_hosts(nothing) == (SingleHost(Address("localhost", 6379)),)


@pytest.mark.parametrize("text", ["redis://localhost", b"redis://localhost"])
def test_text_in_place_of_a_list_gets_the_error_of_channels_redis(text: object) -> None:
    with pytest.raises(ValueError, match="You must pass a list of Redis hosts, even if there is only one."):
        parse_hosts(text)


@pytest.mark.parametrize(
    ("entry", "expected"),
    [
        ("redis://", Address()),
        ("redis://cache", Address("cache")),
        ("valkey://cache:7000/3", Address("cache", 7000, db=3)),
        ("redis://cache?db=4", Address("cache", db=4)),
        ("redis://cache/1?db=4", Address("cache", db=4)),
        ("redis://:p%40ss@cache", Address("cache", password="p@ss")),
        ("redis://ann:secret@cache:1/", Address("cache", 1, username="ann", password="secret")),
        ("redis://[::1]:7000", Address("::1", 7000)),
        ("redis://cache?socket_connect_timeout=1.5", Address("cache", connect_timeout_s=1.5)),
        ("unix:///run/v.sock", Address(path="/run/v.sock")),
        ("unix://:secret@/run/a%20b.sock?db=2", Address(path="/run/a b.sock", db=2, password="secret")),
        (("cache", 7000), Address("cache", 7000)),
        (["cache", "7000"], Address("cache", 7000)),
        ({"address": "redis://cache:7000"}, Address("cache", 7000)),
        ({"address": ("cache", 7000), "db": 1}, Address("cache", 7000, db=1)),
        ({"address": "redis://cache/2", "db": 5, "password": "x"}, Address("cache", db=2, password="x")),
        ({"host": "cache", "port": 1, "db": 2}, Address("cache", 1, db=2)),
        ({"host": "cache", "username": "u", "password": b"p"}, Address("cache", username="u", password="p")),
        ({"path": "/run/v.sock", "db": "1"}, Address(path="/run/v.sock", db=1)),
        ({"unix_socket_path": "/run/v.sock"}, Address(path="/run/v.sock")),
    ],
)
def test_one_server_is_understood_in_every_form(entry: object, expected: Address) -> None:
    assert only(entry) == expected


def test_several_entries_are_shards_in_order() -> None:
    parsed = parse_hosts([("a", 1), "redis://b:2"])
    assert [host.address.name for host in parsed if isinstance(host, SingleHost)] == ["a:1", "b:2"]


def test_sentinels_are_understood_with_what_each_side_needs_to_connect() -> None:
    (host,) = parse_hosts([
        {
            "master_name": "main",
            "sentinels": [("s1", 26379), {"host": "s2", "password": "own"}, "redis://s3:26380"],
            "sentinel_kwargs": {"password": "shared", "socket_timeout": 1},
            "password": "data",
            "db": 3,
            "socket_connect_timeout": 2,
        }
    ])  # fmt: skip
    assert host == SentinelHost(
        "main",
        (
            Address("s1", 26379, password="shared", connect_timeout_s=2),
            Address("s2", 26379, password="own", connect_timeout_s=2),
            Address("s3", 26380, password="shared", connect_timeout_s=2),
        ),
        Address(db=3, password="data", connect_timeout_s=2),
    )


@pytest.mark.parametrize(
    ("hosts", "told"),
    [
        ({"host": "x"}, "expected a list"),
        (7, "expected a list"),
        (["localhost:6379"], "redis://"),
        (["http://localhost"], "got scheme 'http'"),
        (["redis://cache/zero"], "db: expected a number"),
        (["redis://cache:70000"], "malformed"),
        (["unix://"], "expected a path"),
        ([7], "got int"),
        ([("a", 1, 2)], "got tuple"),
        ([("a", "x")], "port: expected a number from 1 to 65535; got 'x'"),
        ([{"address": 7}], "expected a URL"),
        ([{"host": "a", "pasword": "x"}], "did you mean 'password'"),
        (["redis://a?healthcheck_interval=1"], "did you mean 'health_check_interval'"),
        ([{"host": "a", "socket_connect_timeout": -1}], "more than 0"),
        ([{"host": "a", "password": 7}], "password: expected text; got int"),
        ([{"master_name": "m"}], "expected a list of .host, port. pairs; got None"),
        ([{"sentinels": [("a", 1)]}], "master_name"),
        ([{"master_name": "m", "sentinels": [("a", 1)], "address": "redis://x"}], "got both"),
        ([{"master_name": "m", "sentinels": [("a", 1)], "sentinel_kwargs": {"pasword": 1}}], "did you mean"),
        ([{"host": "a", "ssl": True, "ssl_cert_reqs": "maybe"}], "'required', 'optional', 'none' or None"),
        ([{"host": "a", "ssl": True, "ssl_ca_certs": "/nowhere.pem"}], "do not make a TLS context"),
    ],
)
def test_what_cannot_be_meant_is_refused_with_what_was_expected(hosts: object, told: str) -> None:
    with pytest.raises(OptionError, match=told):
        parse_hosts(hosts)


@pytest.mark.parametrize("scheme", ["rediss", "valkeys"])
def test_a_tls_url_makes_a_context_that_verifies(scheme: str) -> None:
    context = only(f"{scheme}://cache:6380").ssl
    assert context is not None
    assert context.verify_mode is ssl.CERT_REQUIRED
    assert context.check_hostname


@pytest.mark.parametrize(
    "extra", [{"ssl_cert_reqs": None}, {"ssl_cert_reqs": "none"}, {"ssl_cert_reqs": ssl.CERT_NONE}]
)
def test_verification_can_be_given_up_as_redis_py_has_it(extra: dict[str, Any]) -> None:
    context = only({"address": "rediss://cache", **extra}).ssl
    assert context is not None
    assert context.verify_mode is ssl.CERT_NONE
    assert not context.check_hostname


def test_a_url_can_give_up_the_check_of_the_host_name_alone() -> None:
    context = only("rediss://cache?ssl_check_hostname=false").ssl
    assert context is not None
    assert context.verify_mode is ssl.CERT_REQUIRED
    assert not context.check_hostname


def test_options_of_redis_pys_pools_are_accepted_and_told_once(caplog: pytest.LogCaptureFixture) -> None:
    module._told.clear()
    entry = {"host": "a", "socket_timeout": None, "health_check_interval": 30, "decode_responses": False, "protocol": 2}
    with caplog.at_level(logging.INFO):
        assert only(entry) == Address("a")
        assert only(entry) == Address("a")
    (record,) = caplog.records
    assert record.levelno == logging.INFO
    assert (
        "decode_responses, health_check_interval, protocol, socket_timeout: accepted without effect" in record.message
    )


def test_a_password_is_never_shown() -> None:
    secret = "hunter2"
    shown = [
        repr(parse_hosts([f"redis://ann:{secret}@cache/1"])),
        only(f"redis://:{secret}@cache").name,
        repr(parse_hosts([{"master_name": "m", "sentinels": [("s", 1)], "password": secret}])),
    ]
    for wrong in (f"redis://:{secret}@[cache", f"redis://:{secret}#@cache:x", f"http://:{secret}@cache"):
        with pytest.raises(OptionError) as error:
            parse_hosts([wrong])
        shown += [str(error.value), repr(error.value.__cause__)]
    with pytest.raises(OptionError) as error:
        parse_hosts([{"address": {"password": secret}}])
    shown.append(str(error.value))
    assert not [text for text in shown if secret in text]


def test_an_address_shows_where_as_whom_and_how() -> None:
    assert repr(only("rediss://ann:x@cache:1/2")) == "<Address cache:1 db 2 as 'ann' tls>"
    assert only("redis://[::1]:7").name == "[::1]:7"
    assert only("unix:///run/v.sock").name == "/run/v.sock"
