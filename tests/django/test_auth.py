from __future__ import annotations

from typing import Any
from unittest import mock

import pytest
from django.contrib.auth import HASH_SESSION_KEY, SESSION_KEY, get_user_model, user_logged_in, user_logged_out
from django.contrib.auth.models import AnonymousUser
from django.contrib.sessions.backends.db import SessionStore

from antiphon import auth as door
from antiphon.auth import AuthMiddleware, AuthMiddlewareStack, UserLazyObject, get_user, login, logout
from antiphon.django import auth
from tests.django.asgi import Recorder, play, websocket

pytestmark = pytest.mark.django_db(transaction=True)

MODEL_BACKEND = "django.contrib.auth.backends.ModelBackend"


@pytest.fixture
def bob() -> Any:
    return get_user_model().objects.create_user("bob", password="secret")


@pytest.fixture
def bill() -> Any:
    return get_user_model().objects.create_user("bill", password="secret")


@pytest.fixture
def session() -> SessionStore:
    store = SessionStore()
    store.create()
    return store


async def test_without_a_login_the_user_is_anonymous(session: SessionStore) -> None:
    assert isinstance(await get_user({"session": session}), AnonymousUser)


@pytest.mark.parametrize("call", [get_user, logout])
async def test_a_scope_without_a_session_is_an_error(call: Any) -> None:
    with pytest.raises(ValueError, match="in SessionMiddleware"):
        await call({})


async def test_login_remembers_the_user(session: SessionStore, bob: Any) -> None:
    scope: dict[str, Any] = {"session": session}
    with mock.patch.object(user_logged_in, "send") as sent:
        await login(scope, bob)
    sent.assert_called_once_with(sender=get_user_model(), request=None, user=bob)
    assert scope["user"] == bob
    assert await get_user({"session": session}) == bob


async def test_login_takes_the_user_of_the_scope(session: SessionStore, bob: Any) -> None:
    scope = {"session": session, "user": bob}
    await login(scope, None)
    assert await get_user(scope) == bob
    with pytest.raises(ValueError, match="User must be passed"):
        await login({"session": session}, None)


async def test_login_of_another_user_starts_a_new_session(session: SessionStore, bob: Any, bill: Any) -> None:
    scope = {"session": session}
    await login(scope, bob)
    await session.aset("of", "bob")
    await login(scope, bill)
    assert await session.aget("of") is None
    assert await get_user(scope) == bill


async def test_with_several_backends_login_asks_which(session: SessionStore, bob: Any, settings: Any) -> None:
    settings.AUTHENTICATION_BACKENDS = [MODEL_BACKEND, "django.contrib.auth.backends.RemoteUserBackend"]
    with pytest.raises(ValueError, match="multiple authentication backends"):
        await login({"session": session}, bob)
    await login({"session": session}, bob, backend=MODEL_BACKEND)
    assert await get_user({"session": session}) == bob


async def test_logout_forgets_the_user_and_closes_the_sockets_of_the_session(
    session: SessionStore, bob: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    closed: list[Any] = []
    monkeypatch.setattr(auth, "close_session", lambda *args: closed.append(args))
    scope = {"session": session}
    await login(scope, bob)
    key = session.session_key
    with mock.patch.object(user_logged_out, "send") as sent:
        await logout(scope)
    sent.assert_called_once_with(sender=get_user_model(), request=None, user=bob)
    assert isinstance(scope["user"], AnonymousUser)
    assert session.session_key is None
    assert closed == [(key, "unauthenticated")]


async def test_logout_without_a_login_sends_nothing(session: SessionStore) -> None:
    scope = {"session": session}
    with mock.patch.object(user_logged_out, "send") as sent:
        await logout(scope)
    sent.assert_not_called()
    assert "user" not in scope


async def test_a_changed_password_ends_the_session(session: SessionStore, bob: Any) -> None:
    await login({"session": session}, bob)
    await session.asave()
    bob.set_password("another")
    await bob.asave()
    assert isinstance(await get_user({"session": session}), AnonymousUser)
    assert session.session_key is None


async def test_a_secret_key_that_was_turned_keeps_users_logged_in(
    session: SessionStore, bob: Any, settings: Any
) -> None:
    await login({"session": session}, bob)
    await session.asave()
    key, old_hash = session.session_key, await session.aget(HASH_SESSION_KEY)
    settings.SECRET_KEY_FALLBACKS, settings.SECRET_KEY = [settings.SECRET_KEY], "another secret key"
    assert await get_user({"type": "websocket", "session": SessionStore(key)}) == bob
    store = SessionStore(key)
    assert await get_user({"type": "http", "session": store}) == bob
    assert store.session_key != key
    assert await store.aget(HASH_SESSION_KEY) != old_hash


async def test_a_backend_that_is_not_configured_any_more_counts_no_more(
    session: SessionStore, bob: Any, settings: Any
) -> None:
    await login({"session": session}, bob)
    settings.AUTHENTICATION_BACKENDS = ["django.contrib.auth.backends.RemoteUserBackend"]
    assert isinstance(await get_user({"session": session}), AnonymousUser)


async def test_the_user_is_there_before_the_application_runs(session: SessionStore, bob: Any) -> None:
    await login({"session": session}, bob)
    await session.asave()
    app = Recorder()
    headers = [(b"cookie", f"sessionid={session.session_key}".encode())]
    await play(AuthMiddlewareStack(app), websocket(headers=headers))
    assert app.scope["user"] == bob
    assert SESSION_KEY in app.scope["session"]


async def test_without_a_cookie_the_user_is_anonymous_and_no_thread_is_visited(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(auth, "get_user", None)
    app = Recorder()
    await play(AuthMiddlewareStack(app), websocket())
    assert app.scope["user"].is_anonymous


async def test_a_user_from_above_stays(session: SessionStore, bob: Any) -> None:
    app = Recorder()
    await play(AuthMiddleware(app), websocket(session=session, user=bob))
    assert app.scope["user"] is bob


async def test_a_user_read_too_early_says_so() -> None:
    with pytest.raises(ValueError, match="before it is ready"):
        _ = UserLazyObject().pk


async def test_the_user_needs_a_session() -> None:
    with pytest.raises(ValueError, match="SessionMiddleware must be above it"):
        await play(AuthMiddleware(Recorder()), websocket())


async def test_the_steps_of_the_middleware_can_be_overridden(session: SessionStore, bob: Any) -> None:
    class Mine(AuthMiddleware):
        async def resolve_scope(self, scope: Any) -> None:
            scope["user"]._wrapped = bob

    app = Recorder()
    await play(Mine(app), websocket(session=session))
    assert app.scope["user"] == bob


def test_the_door_lists_what_it_has() -> None:
    assert all(hasattr(door, name) for name in door.__all__)
