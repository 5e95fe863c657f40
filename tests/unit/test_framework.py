from __future__ import annotations

import subprocess
import sys
import uuid
from types import SimpleNamespace
from typing import Any

import pytest

import antiphon
from antiphon import framework
from antiphon.framework import Framework, user_key


def test_the_default_framework_knows_no_layers_transactions_or_users() -> None:
    bare = Framework()
    assert bare.layer_configs() == {}
    assert bare.options() == {}
    assert bare.on_commit(lambda: None, "default") is False
    assert bare.identity({}) == (None, None)
    assert bare.identity({"user": SimpleNamespace(is_authenticated=False, pk=3)}) == (None, None)
    assert bare.identity({"user": SimpleNamespace(is_authenticated=True, pk=3)}) == ("3", None)
    assert not bare.has_database
    assert bare.under_test()


def test_installing_returns_the_one_before() -> None:
    first, second = Framework(), Framework()
    framework.install(first)
    assert framework.current() is first
    assert framework.install(second) is first
    assert framework.current() is second


def test_django_is_found_where_its_settings_are_set_up() -> None:
    assert framework.current().name == "django"


@pytest.mark.parametrize(
    ("user", "key"),
    [
        (7, "7"),
        ("ada", "ada"),
        (0, "0"),
        (uuid.UUID(int=5), str(uuid.UUID(int=5))),
        (SimpleNamespace(pk=7, id=8), "7"),
        (SimpleNamespace(id=8), "8"),
        (SimpleNamespace(username="ada"), "ada"),
        (SimpleNamespace(pk=None, id=0), "0"),
    ],
)
def test_a_user_is_known_by_its_key(user: Any, key: str) -> None:
    assert user_key(user) == key


@pytest.mark.parametrize("user", [None, "", object(), SimpleNamespace(pk=None)])
def test_what_has_no_key_is_refused(user: Any) -> None:
    with pytest.raises(TypeError, match="expected a user with a primary key"):
        user_key(user)


@pytest.mark.django_db
def test_a_user_that_was_never_saved_or_is_anonymous_is_refused() -> None:
    from django.contrib.auth.models import AnonymousUser, User

    for user in (AnonymousUser(), User(username="")):
        with pytest.raises(TypeError, match="expected a user with a primary key"):
            user_key(user)


def run(code: str, **env: str) -> str:
    return subprocess.run(
        [sys.executable, "-W", "error", "-c", code],
        capture_output=True,
        text=True,
        check=True,
        timeout=50,
        env=_env(env),
    ).stdout


def _env(more: dict[str, str]) -> dict[str, str]:
    import os
    from pathlib import Path

    kept = {k: v for k, v in os.environ.items() if k != "DJANGO_SETTINGS_MODULE"}
    source = Path(antiphon.__file__).parents[1]
    return {**kept, "PYTHONPATH": f"{source}:{Path(__file__).parents[2]}", **more}


def test_importing_antiphon_loads_neither_django_nor_settings() -> None:
    out = run(
        "import sys, antiphon, antiphon.layers\nprint([m for m in sys.modules if m.split('.')[0] == 'django'])",
        DJANGO_SETTINGS_MODULE="there.is.no.such.module",
    )
    assert out.strip() == "[]"


def test_without_django_settings_the_layer_works_on_the_defaults() -> None:
    out = run(
        "import asyncio, sys\n"
        "from antiphon import framework, get_channel_layer\n"
        "async def main():\n"
        "    layer = get_channel_layer()\n"
        "    await layer.send('worker', {'type': 'hello'})\n"
        "    print(await layer.receive('worker'), framework.current().name)\n"
        "asyncio.run(main())\n"
        "print('django' in sys.modules)\n"
    )
    assert out.split("\n")[:2] == ["{'type': 'hello'} none", "False"]


def test_django_that_is_set_up_after_the_first_layer_is_still_found() -> None:
    out = run(
        "import antiphon\n"
        "from antiphon import framework, get_channel_layer\n"
        "get_channel_layer()\n"
        "print(framework.current().name)\n"
        "from django.conf import settings\n"
        "settings.configure()\n"
        "print(framework.current().name)\n"
    )
    assert out.split() == ["none", "django"]
