from __future__ import annotations

import subprocess
import sys
from collections.abc import Iterator
from typing import Any

import pytest
from django.core.management import call_command, get_commands
from django.core.management.base import SystemCheckError
from django.db import connection

from antiphon.django.checks import check_apps, check_layers, check_options, check_origins, check_tables, check_tickets
from antiphon.routing import ProtocolTypeRouter
from tests.django.asgi import Recorder, http, play

MEMORY = "antiphon.layers.InMemoryChannelLayer"
REDIS = "antiphon.layers.RedisChannelLayer"


class Foreign:
    def __init__(self, hosts: Any = None, prefix: str = "") -> None: ...


@pytest.fixture
def _commands() -> Iterator[None]:
    cached: Any = get_commands
    cached.cache_clear()
    yield
    cached.cache_clear()


def ids(messages: list[Any]) -> list[str]:
    return [message.id.removeprefix("antiphon.") for message in messages]


def test_the_tests_own_settings_are_clean(settings: Any) -> None:
    settings.DEBUG = True  # pytest-django switches it off
    call_command("check", fail_level="WARNING")


def test_the_layer_in_memory_is_fine_for_a_developer(settings: Any) -> None:
    settings.DEBUG = True
    assert check_layers() == []
    del settings.CHANNEL_LAYERS
    assert check_layers() == []


@pytest.mark.parametrize("layers", [None, {}, {"default": {"BACKEND": MEMORY}}])
def test_it_is_a_warning_where_debug_is_off(settings: Any, layers: Any) -> None:
    settings.DEBUG, settings.CHANNEL_LAYERS = False, layers
    [warning] = check_layers()
    assert warning.id == "antiphon.W001"
    assert "CHANNEL_LAYERS['default']" in str(warning.hint)


@pytest.mark.parametrize(
    ("layers", "expected", "text"),
    [
        (["default"], "E001", "expected a dict of alias"),
        ({"default": MEMORY}, "E001", "expected a dict with a BACKEND"),
        ({"default": {}}, "E001", "expected a dict with a BACKEND"),
        ({"default": {"BACKEND": MEMORY, "CONFG": {}}}, "E002", "unknown key 'CONFG'; did you mean 'CONFIG'?"),
        ({"default": {"BACKEND": "antiphon.layers.Nothing"}}, "E003", "cannot import BACKEND"),
        ({"default": {"BACKEND": "nothing"}}, "E003", "cannot import BACKEND"),
        ({"default": {"BACKEND": None}}, "E003", "cannot import BACKEND"),
        ({"default": {"BACKEND": MEMORY, "CONFIG": {"capcity": 1}}}, "E004", "did you mean 'capacity'?"),
        ({"default": {"BACKEND": MEMORY, "CONFIG": {"capacity": "many"}}}, "E004", "capacity"),
        ({"default": {"BACKEND": MEMORY, "CONFIG": 7}}, "E004", "expected a dict; got 7"),
        ({"default": {"BACKEND": MEMORY, "TEST_CONFIG": {"expir": 1}}}, "E004", "did you mean 'expiry'?"),
        ({"x": {"BACKEND": f"{__name__}.Foreign", "CONFIG": {"hosst": []}}}, "E004", "did you mean 'hosts'?"),
        ({"x": {"BACKEND": "channels_redis.core.RedisChannelLayer"}}, "W006", "written for Channels"),
        ({"x": {"BACKEND": REDIS, "CONFIG": {"hosts": "redis://localhost"}}}, "E004", "You must pass a list"),
        ({"x": {"BACKEND": REDIS, "CONFIG": {"hosts": [], "capasity": 1}}}, "E004", "did you mean 'capacity'?"),
        ({"x": {"BACKEND": "channels.layers.InMemoryChannelLayer"}}, "W006", "of the package channels"),
    ],
)
def test_a_wrong_layer_says_what_is_wrong(settings: Any, layers: Any, expected: str, text: str) -> None:
    settings.CHANNEL_LAYERS = layers
    message = check_layers()[0]
    assert ids([message]) == [expected]
    assert text in message.msg
    assert message.hint


def test_a_layer_whose_extra_is_missing_says_what_to_install() -> None:
    program = f"""
import sys; sys.modules["hiredis"] = None
from django.conf import settings
settings.configure(INSTALLED_APPS=["antiphon"], SECRET_KEY="x", CHANNEL_LAYERS={{"default": {{"BACKEND": {REDIS!r}}}}})
import django; django.setup()
from antiphon.django.checks import check_layers
[error] = check_layers()
print(error.id, error.msg)
"""
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=True, timeout=50)
    assert done.stdout.startswith(
        "antiphon.E003 CHANNEL_LAYERS['default']: RedisChannelLayer needs the package 'hiredis'"
    )
    assert 'pip install "antiphon[redis]"' in done.stdout


def test_a_foreign_layer_with_its_options_is_fine(settings: Any) -> None:
    settings.CHANNEL_LAYERS = {"x": {"BACKEND": f"{__name__}.Foreign", "CONFIG": {"hosts": []}}}
    assert check_layers() == []


@pytest.mark.parametrize(
    ("options", "text"),
    [
        ({"sync_thread": 4}, "unknown ANTIPHON option 'sync_thread'; did you mean 'sync_threads'?"),
        ({"sync_threads": -1}, "expected a positive int; got -1"),
        (7, "ANTIPHON: expected a dict; got 7"),
    ],
)
def test_wrong_options_are_errors_that_fail_the_command(settings: Any, options: Any, text: str) -> None:
    settings.ANTIPHON = options
    [error] = check_options()
    assert error.id == "antiphon.E005"
    assert text in error.msg
    with pytest.raises(SystemCheckError, match=r"antiphon\.E005"):
        call_command("check")


def test_right_options_are_fine(settings: Any) -> None:
    settings.ANTIPHON = {"sync_threads": 4, "rate_limit": "20/s"}
    assert check_options() == []


@pytest.mark.parametrize("application", [None, "nodots"])
def test_a_missing_application_is_noted(settings: Any, application: Any) -> None:
    settings.ASGI_APPLICATION = application
    assert ids(check_apps()) == ["W002"]


@pytest.mark.usefixtures("_commands")
def test_users_without_sessions_are_noted(settings: Any) -> None:
    settings.INSTALLED_APPS = ["antiphon", "django.contrib.auth", "django.contrib.contenttypes"]
    assert ids(check_apps()) == ["W003"]


@pytest.mark.usefixtures("_commands")
def test_an_app_whose_runserver_comes_first_is_noted(settings: Any) -> None:
    settings.INSTALLED_APPS = ["django.contrib.staticfiles", "antiphon"]
    [warning] = check_apps()
    assert warning.id == "antiphon.W005"
    assert 'Put "antiphon" before "django.contrib.staticfiles"' in str(warning.hint)


def test_daphne_in_front_is_noted(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("antiphon.django.checks.get_commands", lambda: {"runserver": "daphne"})
    assert ids(check_apps()) == ["W004"]


@pytest.mark.django_db(transaction=True)
def test_a_missing_table_is_found_where_databases_are_checked() -> None:
    assert check_tables(databases=["default"]) == []
    with connection.cursor() as cursor:
        cursor.execute("ALTER TABLE django_session RENAME TO gone")
        try:
            [warning] = check_tables(databases=["default"])
            assert check_tables() == []
        finally:
            cursor.execute("ALTER TABLE gone RENAME TO django_session")
    assert warning.id == "antiphon.W007"
    assert "migrate" in str(warning.hint)


def test_tickets_need_a_cache_that_is_shared(settings: Any) -> None:
    assert ids(check_tickets()) == ["W008"]
    settings.CACHES = {"default": {"BACKEND": "django.core.cache.backends.db.DatabaseCache"}}
    assert check_tickets() == []


async def test_a_missing_app_is_one_line_at_the_first_connection(
    monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    router = ProtocolTypeRouter({"http": Recorder()})
    await play(router, http())
    assert not caplog.records
    monkeypatch.setattr("antiphon.django.apps._settled", False)
    await play(router, http())
    await play(router, http())
    [record] = caplog.records
    assert record.getMessage().startswith('"antiphon" is not in INSTALLED_APPS')


def test_an_origin_check_that_lets_everybody_in_is_a_warning_for_deployment(settings: Any) -> None:
    settings.ALLOWED_HOSTS = ["example.com"]
    assert check_origins() == []
    settings.ALLOWED_HOSTS = ["*"]
    assert ids(check_origins()) == ["W009"]
    settings.ANTIPHON = {"allowed_origins": ["https://example.com"]}
    assert check_origins() == []
    settings.ANTIPHON = {"allowed_origins": ["*"]}
    assert "allowed_origins" in check_origins()[0].msg
    settings.ANTIPHON = {"allowed_origins": 7}  # E005 says so
    assert check_origins() == []


@pytest.mark.parametrize(
    ("groups", "found"),
    [
        ({"chat_*": {"history_size": 99}}, ["W010"]),
        ({"chat_*": {"history_size": 100}, "news": {"presence": True}}, []),
        ({"chat_*": {"history_size": 100}, "chat_lobby": {"presence": True}}, ["W011"]),
        ({"chat_lobby": {"presence": True}, "chat_*": {"history_size": 100}}, []),
        ({"chat_*": {"history_size": 0}}, []),
        ({"chat_*": {"history": 5}}, ["E004"]),
    ],
)
def test_options_of_groups_that_cannot_help_are_told(settings: Any, groups: Any, found: list[str]) -> None:
    settings.DEBUG = True
    settings.CHANNEL_LAYERS = {"default": {"BACKEND": MEMORY, "CONFIG": {"groups": groups}}}
    assert ids(check_layers()) == found
