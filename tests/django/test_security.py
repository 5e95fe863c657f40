from __future__ import annotations

from typing import Any

import pytest

from antiphon.generic.websocket import AsyncWebsocketConsumer
from antiphon.security.websocket import AllowedHostsOriginValidator, OriginValidator, WebsocketDenier
from tests.django.asgi import DENIED, Recorder, http, play, websocket


async def allowed(validator_or_patterns: Any, origin: bytes | None) -> bool:
    app = Recorder()
    validator = validator_or_patterns
    if isinstance(validator_or_patterns, list):
        validator = OriginValidator(app, validator_or_patterns)
    headers = [] if origin is None else [(b"origin", origin)]
    sent = await play(validator, websocket("/ws/", headers=headers))
    assert (sent == DENIED) != (sent[0]["type"] == "websocket.accept")
    return sent != DENIED


@pytest.mark.parametrize(
    ("pattern", "origin"),
    [
        ("example.com", b"http://example.com"),
        ("example.com", b"https://EXAMPLE.com:8000"),
        (".example.com", b"https://www.example.com"),
        (".example.com", b"https://example.com"),
        ("https://example.com", b"https://example.com:443"),
        ("https://.example.com:8443", b"https://a.example.com:8443"),
        ("[::1]", b"http://[::1]:8000"),
        ("http://[::1]:8000", b"http://[::1]:8000"),
        ("xn--bcher-kva.example", b"https://xn--bcher-kva.example"),
        ("*", b"https://anything.test"),
        ("*", None),
    ],
)
async def test_an_origin_that_matches_may_connect(pattern: str, origin: bytes | None) -> None:
    assert await allowed([pattern], origin)


@pytest.mark.parametrize(
    ("pattern", "origin"),
    [
        ("example.com", b"http://evil.test"),
        ("example.com", b"http://example.com.evil.test"),
        ("example.com", b"http://www.example.com"),
        ("example.com", None),
        ("example.com", b""),
        ("example.com", b"null"),
        ("example.com", b"example.com"),
        ("http://example.com", b"http://example.com:8000"),
        ("wss://example.com", b"https://example.com"),
        ("*.example.com", b"http://www.example.com"),
        ("example.com", b"http://example.com@evil.test"),
        ("example.com", b"http://evil.test@example.com"),
        ("example.com", b"http://evil.test\\@example.com"),
        ("example.com", b"http://example.com."),
        ("example.com", b"http:///example.com"),
        ("xn--bcher-kva.example", b"http://b\xc3\xbccher.example"),
        ("[::1]", b"http://[::2]"),
        ("[::1]", b"http://[::1].evil.test"),
        ("null", b"null"),
        ("http://example.com:99999", b"http://example.com"),
    ],
)
async def test_an_origin_that_does_not_match_is_denied(pattern: str, origin: bytes | None) -> None:
    assert not await allowed([pattern], origin)


@pytest.mark.parametrize("origin", [b"http://[", b"http://h:99999", b"http://h:port", b"\xff\xfe"])
@pytest.mark.parametrize("pattern", ["h", "http://h", ".h"])
async def test_a_malformed_origin_is_denied_and_not_raised(pattern: str, origin: bytes) -> None:
    assert not await allowed([pattern], origin)


@pytest.mark.parametrize("origins", ["example.com", "https://*.example.com", "*"])
def test_one_string_is_no_list_of_origins(origins: str) -> None:
    with pytest.raises(TypeError, match="expected a list of origins"):
        OriginValidator(Recorder(), origins)


async def test_the_last_origin_header_counts() -> None:
    app = Recorder()
    headers = [(b"origin", b"http://evil.test"), (b"origin", b"http://example.com")]
    await play(OriginValidator(app, ["example.com"]), websocket(headers=headers))
    assert app.scopes


async def test_a_denial_logs_one_line_with_origin_rule_and_setting(
    caplog: pytest.LogCaptureFixture, settings: Any
) -> None:
    settings.ALLOWED_HOSTS = ["example.com"]
    assert not await allowed(AllowedHostsOriginValidator(Recorder()), b"http://evil.test\n")
    [record] = caplog.records
    assert record.name == "antiphon.security"
    assert record.getMessage() == (
        "WebSocket '/ws/' denied: its origin 'http://evil.test\\n' matches no allowed one. Allowed: 'example.com'. "
        "If it is yours, add it to ALLOWED_HOSTS"
    )


async def test_a_developer_without_allowed_hosts_may_connect_from_this_machine(settings: Any) -> None:
    settings.ALLOWED_HOSTS, settings.DEBUG = [], True
    validator = AllowedHostsOriginValidator(Recorder())
    assert await allowed(validator, b"http://localhost:8000")
    assert await allowed(validator, b"http://[::1]:8000")
    assert not await allowed(validator, b"http://example.com")
    settings.DEBUG = False
    assert not await allowed(AllowedHostsOriginValidator(Recorder()), b"http://localhost:8000")


async def test_only_websockets_have_their_origin_checked() -> None:
    with pytest.raises(ValueError, match="non-WebSocket"):
        await play(OriginValidator(Recorder(), ["*"]), http())


async def test_the_rules_can_be_overridden() -> None:
    class Mine(OriginValidator):
        def match_allowed_origin(self, parsed_origin: Any, pattern: str) -> bool:
            return bool(parsed_origin.scheme == pattern)

    assert await allowed(Mine(Recorder(), ["app"]), b"app://anything")


async def test_the_denier_is_a_consumer_by_its_interface() -> None:
    assert issubclass(WebsocketDenier, AsyncWebsocketConsumer)
    assert await play(WebsocketDenier(), websocket()) == DENIED
