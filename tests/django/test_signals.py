from __future__ import annotations

from typing import Any

import pytest
from django.apps import apps
from django.contrib.auth import alogout, get_user_model, user_logged_out
from django.contrib.auth.hashers import make_password
from django.contrib.auth.models import User
from django.contrib.sessions.backends.db import SessionStore
from django.core.signals import request_started
from django.db import transaction
from django.test import AsyncClient, Client, RequestFactory

from antiphon.django import revoke, signals
from antiphon.layers import InMemoryChannelLayer, channel_layers
from tests.waiting import until

pytestmark = pytest.mark.django_db(transaction=True)


class Layer(InMemoryChannelLayer):
    """A layer that notes what it is told to close."""

    def __init__(self) -> None:
        super().__init__()
        self.closed: list[tuple[str, str, str]] = []

    async def close_user(self, user: Any, reason: str = "revoked") -> int:
        self.closed.append(("user", user, reason))
        return 1

    async def close_session(self, session_key: str, reason: str = "") -> int:
        self.closed.append(("session", session_key, reason))
        return 1


@pytest.fixture(autouse=True)
def layer() -> Layer:
    layer = Layer()
    channel_layers.backends["default"] = layer
    return layer


@pytest.fixture
def bob(layer: Layer) -> Any:
    return get_user_model().objects.create_user("bob", password="secret")


def test_a_new_user_closes_nothing(bob: Any, layer: Layer) -> None:
    bob.first_name = "Bob"
    bob.save()
    assert layer.closed == []


def test_a_changed_password_closes_the_sockets_of_the_user(bob: Any, layer: Layer) -> None:
    bob.set_password("another")
    bob.save()
    assert layer.closed == [("user", str(bob.pk), "revoked")]
    bob.save()
    assert len(layer.closed) == 1


def test_an_upgraded_hash_does_not(bob: Any, layer: Layer, settings: Any) -> None:
    bob.password = make_password("secret", hasher="md5")
    bob.save()
    settings.PASSWORD_HASHERS = [
        "django.contrib.auth.hashers.PBKDF2PasswordHasher",
        "django.contrib.auth.hashers.MD5PasswordHasher",
    ]
    assert bob.check_password("secret")
    assert bob.password.startswith("pbkdf2_")
    assert layer.closed == []


def test_a_password_that_is_disabled_closes_them_too(bob: Any, layer: Layer) -> None:
    bob.set_unusable_password()
    bob.save()
    assert layer.closed == [("user", str(bob.pk), "revoked")]
    bob.set_unusable_password()  # again: single sign-on does it at each login
    bob.save()
    assert len(layer.closed) == 1


def test_a_user_loaded_in_part_is_judged_by_what_is_there(bob: Any, layer: Layer) -> None:
    part = get_user_model().objects.only("pk").get(pk=bob.pk)
    part.first_name = "Bob"
    part.save()
    assert layer.closed == []


def test_a_user_made_inactive_is_closed_out(bob: Any, layer: Layer) -> None:
    bob.is_active = False
    bob.save()
    assert layer.closed == [("user", str(bob.pk), "revoked")]


def test_a_deleted_user_is_closed_out(bob: Any, layer: Layer) -> None:
    key = str(bob.pk)
    bob.delete()
    assert layer.closed == [("user", key, "revoked")]


def test_so_is_one_that_was_changed_or_deleted_as_a_proxy(bob: Any, layer: Layer) -> None:
    class Member(User):
        class Meta:
            app_label = "auth"
            proxy = True

    registry = apps.all_models["auth"]
    try:
        signals.connect()  # the app did it before this test had its model
        member = Member.objects.get(pk=bob.pk)
        member.is_active = False
        member.save()
        assert layer.closed == [("user", str(bob.pk), "revoked")]
        member.delete()
        assert len(layer.closed) == 2
    finally:
        del registry["member"]
        apps.clear_cache()


def test_nothing_is_closed_before_the_commit_or_after_a_rollback(bob: Any, layer: Layer) -> None:
    with transaction.atomic():
        bob.set_password("another")
        bob.save()
        assert layer.closed == []
    assert len(layer.closed) == 1
    with transaction.atomic():
        bob.is_active = False
        bob.save()
        transaction.set_rollback(True)
    assert len(layer.closed) == 1


def test_a_logout_closes_the_sockets_of_that_session(bob: Any, layer: Layer) -> None:
    client = Client()
    client.force_login(bob)
    key = client.session.session_key
    client.get("/logout/")
    assert layer.closed == [("session", key, "unauthenticated")]


async def test_so_does_a_logout_on_the_running_loop(bob: Any, layer: Layer) -> None:
    client = AsyncClient()
    await client.aforce_login(bob)
    key = (await client.asession()).session_key
    await client.get("/alogout/")
    assert layer.closed == [("session", key, "unauthenticated")]


async def test_a_signal_sent_on_the_running_loop_does_not_block_it(bob: Any, layer: Layer) -> None:
    request: Any = RequestFactory().get("/")
    request.session = SessionStore("abcdefghij")
    user_logged_out.send(sender=type(bob), request=request, user=bob)
    await alogout(request)
    await until(lambda: layer.closed)
    assert layer.closed[0] == ("session", "abcdefghij", "unauthenticated")


def test_a_layer_that_fails_is_logged_and_hurts_nobody(
    bob: Any, layer: Layer, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    async def fail(user: Any, reason: str = "revoked") -> int:
        raise LookupError("the engine is gone")

    monkeypatch.setattr(layer, "close_user", fail)
    bob.set_password("another")
    bob.save()
    assert "Could not close the sockets of a user in layer 'default'" in caplog.text


def test_a_foreign_layer_is_passed_over(bob: Any) -> None:
    channel_layers.backends["default"] = object()
    revoke.close_user(bob, "revoked")
    revoke.close_session(None, "revoked")


def test_a_websocket_that_reaches_wsgi_is_one_line_that_says_what_to_do(caplog: pytest.LogCaptureFixture) -> None:
    Client().get("/", headers={"upgrade": "websocket", "connection": "Upgrade"})
    [record] = [record for record in caplog.records if record.name == "antiphon.server"]
    assert "'/' reached WSGI" in record.getMessage()
    assert "manage.py runserver" in record.getMessage()


async def test_a_websocket_that_arrives_as_plain_http_is_another(caplog: pytest.LogCaptureFixture) -> None:
    scope = {"path": "/ws/", "headers": [(b"upgrade", b"WebSocket")]}
    await request_started.asend(sender=None, scope=scope)
    [record] = [record for record in caplog.records if record.name == "antiphon.server"]
    assert "'/ws/' arrived as plain HTTP" in record.getMessage()
    assert "antiphon[server]" in record.getMessage()
