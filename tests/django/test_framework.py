from __future__ import annotations

import threading
import time
from typing import Any
from unittest import mock

import pytest
from django.contrib.auth import get_user_model
from django.contrib.auth.models import AnonymousUser
from django.contrib.sessions.backends.db import SessionStore
from django.core.exceptions import ImproperlyConfigured
from django.db import DatabaseError, transaction
from django.test import TestCase, override_settings
from django.utils.connection import ConnectionDoesNotExist

from antiphon import framework as seam
from antiphon.auth import UserLazyObject, login
from antiphon.django.framework import DjangoFramework, framework
from antiphon.layers import channel_layers, get_channel_layer


@pytest.fixture
def bob() -> Any:
    return get_user_model().objects.create_user("bob", password="secret")


def test_django_is_found_where_its_settings_are() -> None:
    assert isinstance(seam.current(), DjangoFramework)


def test_settings_are_read_at_each_call(settings: Any) -> None:
    settings.CHANNEL_LAYERS, settings.ANTIPHON = {"x": {"BACKEND": "y"}}, {"sync_threads": 2}
    assert framework.layer_configs() == {"x": {"BACKEND": "y"}}
    assert framework.options() == {"sync_threads": 2}
    del settings.CHANNEL_LAYERS
    assert framework.layer_configs() == {}
    settings.ANTIPHON = ["sync_threads"]
    with pytest.raises(ImproperlyConfigured, match="ANTIPHON: expected a dict; got"):
        framework.options()


def test_overridden_settings_give_other_layers_and_the_old_ones_afterwards() -> None:
    before = get_channel_layer()
    memory = "antiphon.layers.InMemoryChannelLayer"
    with override_settings(CHANNEL_LAYERS={"default": {"BACKEND": memory, "CONFIG": {"capacity": 7}}}):
        assert channel_layers.backends == {}
        assert get_channel_layer().capacity == 7
    assert get_channel_layer().capacity == 100
    assert get_channel_layer() is not before


@pytest.mark.django_db(transaction=True)
def test_outside_a_transaction_there_is_nothing_to_wait_for() -> None:
    assert framework.on_commit(lambda: None, "default") is False


@pytest.mark.django_db(transaction=True)
def test_inside_a_transaction_the_call_waits_for_the_commit_and_its_failure_stays_inside() -> None:
    calls: list[str] = []

    def fail() -> None:
        calls.append("first")
        raise LookupError

    with transaction.atomic():
        assert framework.on_commit(fail, "default") is True
        assert framework.on_commit(lambda: calls.append("second"), "default") is True
        assert calls == []
    assert calls == ["first", "second"]
    with transaction.atomic():
        framework.on_commit(lambda: calls.append("never"), "default")
        transaction.set_rollback(True)
    assert calls == ["first", "second"]


def test_an_unknown_database_is_an_error_at_the_call() -> None:
    with pytest.raises(ConnectionDoesNotExist, match="elsewhere"):
        framework.on_commit(lambda: None, "elsewhere")


def test_connections_are_released_through_the_name_that_is_patched() -> None:
    with mock.patch("antiphon.db.close_old_connections") as patched:
        framework.release_connections()
    patched.assert_called_once_with()


def test_a_test_runner_is_seen() -> None:
    assert framework.under_test()
    assert framework.has_database


# No django_db mark on these: a query would fail them.


def test_identity_of_nobody() -> None:
    assert framework.identity({}) == (None, None)
    assert framework.identity({"user": AnonymousUser(), "session": SessionStore()}) == (None, None)


def test_identity_never_resolves_a_lazy_user() -> None:
    assert framework.identity({"user": UserLazyObject(), "session": SessionStore("abcdefghij")}) == (None, "abcdefghij")


def test_identity_of_a_user_is_its_primary_key() -> None:
    user = UserLazyObject()
    user._wrapped = get_user_model()(pk=42)
    assert framework.identity({"user": user}) == ("42", None)


async def logged_in(user: Any) -> dict[str, Any]:
    session = SessionStore()
    scope: dict[str, Any] = {"type": "websocket", "session": session}
    await login(scope, user)
    await session.asave()
    scope["session"] = SessionStore(session.session_key)
    await scope["session"].aload()
    await scope["session"].aget("x")
    return scope


@pytest.mark.django_db(transaction=True)
async def test_a_user_who_is_still_there_may_stay(bob: Any) -> None:
    assert await framework.revalidate(await logged_in(bob)) is None


@pytest.mark.django_db(transaction=True)
async def test_nobody_may_stay() -> None:
    assert await framework.revalidate({"user": AnonymousUser(), "session": SessionStore("abcdefghij")}) is None
    assert await framework.revalidate({}) is None


@pytest.mark.django_db(transaction=True)
async def test_a_session_that_ended_is_unauthenticated(bob: Any) -> None:
    scope = await logged_in(bob)
    await SessionStore(scope["session"].session_key).aflush()
    assert await framework.revalidate(scope) == "unauthenticated"


@pytest.mark.django_db(transaction=True)
@pytest.mark.parametrize("change", ["password", "inactive", "deleted"])
async def test_a_user_who_changed_is_revoked(bob: Any, change: str) -> None:
    scope = await logged_in(bob)
    fresh = await get_user_model().objects.aget(pk=bob.pk)
    if change == "password":
        fresh.set_password("another")
        await fresh.asave()
    elif change == "inactive":
        fresh.is_active = False
        await fresh.asave()
    else:
        await fresh.adelete()
    assert await framework.revalidate(scope) == "revoked"
    # The same for somebody a token brought, without a session.
    assert await framework.revalidate({"user": bob}) == "revoked"


@pytest.mark.django_db(transaction=True)
async def test_a_user_whose_password_was_never_loaded_is_not_judged_by_it(bob: Any) -> None:
    part = await get_user_model().objects.only("pk", "is_active").aget(pk=bob.pk)
    assert await framework.revalidate({"user": part}) is None


@pytest.mark.django_db(transaction=True)
async def test_a_session_that_was_saved_by_its_own_method_still_ends(bob: Any) -> None:
    scope = await logged_in(bob)
    session = scope["session"]
    await session.aset("seen", 1)
    await session.asave()  # unlike save_session(), it leaves "modified" as it is
    assert await framework.revalidate(scope) is None
    await SessionStore(session.session_key).aflush()
    assert await framework.revalidate(scope) == "unauthenticated"


@pytest.mark.django_db(transaction=True)
async def test_a_login_that_was_not_saved_yet_may_stay(bob: Any) -> None:
    scope: dict[str, Any] = {"session": SessionStore()}
    await login(scope, bob)
    assert scope["session"].modified
    assert await framework.revalidate(scope) is None


@pytest.mark.django_db(transaction=True)
async def test_a_secret_key_that_was_turned_revokes_nobody(bob: Any, settings: Any) -> None:
    scope = await logged_in(bob)
    settings.SECRET_KEY_FALLBACKS, settings.SECRET_KEY = [settings.SECRET_KEY], "another secret key"
    assert await framework.revalidate(scope) is None
    settings.SECRET_KEY_FALLBACKS = []
    assert await framework.revalidate(scope) in ("revoked", "unauthenticated")


@pytest.mark.django_db(transaction=True)
async def test_a_token_that_ended_is_unauthenticated(bob: Any) -> None:
    assert await framework.revalidate({"user": bob, "antiphon.token_expires": time.time() + 5}) is None
    assert await framework.revalidate({"user": bob, "antiphon.token_expires": time.time() - 5}) == "unauthenticated"


@pytest.mark.django_db(transaction=True)
async def test_a_database_that_does_not_answer_ends_no_connection(bob: Any, caplog: pytest.LogCaptureFixture) -> None:
    with mock.patch("antiphon.django.framework._verdict", side_effect=DatabaseError("down")):
        assert await framework.revalidate({"user": bob}) is None
    assert "stays open" in caplog.text


class InsideTestCase(TestCase):
    def test_the_transaction_of_a_test_counts(self) -> None:
        assert framework.on_commit(lambda: None, "default") is True

    def test_but_not_that_of_another_thread(self) -> None:
        answers: list[bool] = []
        thread = threading.Thread(target=lambda: answers.append(framework.on_commit(lambda: None, "default")))
        thread.start()
        thread.join()
        assert answers == [False]
