from __future__ import annotations

import datetime
from typing import Any

import pytest
from django.contrib.sessions.backends.db import SessionStore
from django.core.exceptions import SuspiciousOperation
from django.db import OperationalError, connection

from antiphon.auth import AuthMiddlewareStack
from antiphon.db import database_sync_to_async
from antiphon.sessions import CookieMiddleware, SessionMiddleware, SessionMiddlewareStack, save_session
from tests.django.asgi import DENIED, Recorder, http, play, websocket


def cookies_of(start: dict[str, Any]) -> list[str]:
    return [value.decode() for name, value in start["headers"] if name == b"Set-Cookie"]


async def test_the_cookies_of_all_headers_are_read() -> None:
    app = Recorder()
    headers = [(b"cookie", b"a=1; b=2"), (b"host", b"x"), (b"cookie", b"c=3")]
    await play(CookieMiddleware(app), http(headers=headers))
    assert app.scope["cookies"] == {"a": "1", "b": "2", "c": "3"}


async def test_without_a_cookie_header_there_are_no_cookies() -> None:
    app = Recorder()
    await play(CookieMiddleware(app), http())
    assert app.scope["cookies"] == {}


async def test_a_scope_without_headers_is_an_error() -> None:
    with pytest.raises(ValueError, match="did not have a headers key"):
        await play(CookieMiddleware(Recorder()), {"type": "channel"}, {"type": "x"})


def test_a_cookie_has_the_form_of_channels() -> None:
    message: dict[str, Any] = {}
    CookieMiddleware.set_cookie(message, "Testing-Key", "testing-value")
    assert message == {"headers": [(b"Set-Cookie", b"Testing-Key=testing-value; Path=/; SameSite=lax")]}


def test_a_cookie_that_ends_at_a_date_says_so_both_ways() -> None:
    message: dict[str, Any] = {}
    end = datetime.datetime.now(datetime.UTC) + datetime.timedelta(days=1)
    CookieMiddleware.set_cookie(message, "k", "v", expires=end, secure=True, httponly=True, domain="example.com")
    [cookie] = cookies_of(message)
    assert "Max-Age=86400" in cookie
    assert f"expires={end:%a, %d %b %Y}" in cookie
    assert "Secure" in cookie
    assert "HttpOnly" in cookie
    assert "Domain=example.com" in cookie


def test_a_deleted_cookie_ends_in_the_past() -> None:
    message: dict[str, Any] = {}
    CookieMiddleware.delete_cookie(message, "k")
    assert "expires=Thu, 01 Jan 1970" in cookies_of(message)[0]


def test_an_unknown_samesite_is_an_assertion_error() -> None:
    with pytest.raises(AssertionError, match="'strict', 'lax' or 'none'; got 'Hello'"):
        CookieMiddleware.set_cookie({}, "k", "v", samesite="Hello")


async def test_a_session_needs_cookies() -> None:
    with pytest.raises(ValueError, match="No cookies in scope"):
        await play(SessionMiddleware(Recorder()), http())


async def test_a_session_that_nobody_reads_costs_no_query() -> None:  # no django_db mark: a query would fail
    app = Recorder()
    await play(SessionMiddlewareStack(app), websocket(headers=[(b"cookie", b"sessionid=abcdefghij")]))
    assert app.scope["session"].session_key == "abcdefghij"


@pytest.mark.django_db(transaction=True)
async def test_a_changed_session_is_saved_when_the_response_starts() -> None:
    async def app(scope: Any, receive: Any, send: Any) -> None:
        await scope["session"].aset("colour", "blue")
        await send({"type": "http.response.start", "status": 200, "headers": []})

    [start] = await play(SessionMiddlewareStack(app), http())
    key = cookies_of(start)[0].partition(";")[0].removeprefix("sessionid=")
    assert await SessionStore(key).aget("colour") == "blue"


@pytest.mark.django_db(transaction=True)
async def test_a_failed_response_does_not_save_the_session() -> None:
    async def app(scope: Any, receive: Any, send: Any) -> None:
        await scope["session"].aset("colour", "blue")
        await send({"type": "http.response.start", "status": 500, "headers": []})

    [start] = await play(SessionMiddlewareStack(app), http())
    assert cookies_of(start) == []


@pytest.mark.django_db(transaction=True)
async def test_a_flushed_session_takes_its_cookie_away_and_leaves_no_row() -> None:
    store = SessionStore()
    await store.aset("colour", "blue")
    await store.asave()

    async def app(scope: Any, receive: Any, send: Any) -> None:
        await scope["session"].aflush()
        await send({"type": "http.response.start", "status": 200, "headers": []})

    headers = [(b"cookie", f"sessionid={store.session_key}".encode())]
    [start] = await play(SessionMiddlewareStack(app), http(headers=headers))
    assert "Max-Age=0" in cookies_of(start)[0]
    assert await SessionStore.get_model_class().objects.acount() == 0


async def test_a_session_from_above_stays() -> None:
    app, session = Recorder(), object()
    await play(SessionMiddleware(app), http(session=session))
    assert app.scope["session"] is session


@pytest.mark.django_db(transaction=True)
async def test_saving_a_session_that_was_deleted_meanwhile_is_suspicious() -> None:
    store = SessionStore()
    await store.asave()
    await SessionStore(store.session_key).aflush()
    await store.aset("colour", "blue")
    with pytest.raises(SuspiciousOperation, match="deleted before the request completed"):
        await save_session({"session": store})


async def test_saving_without_a_session_says_what_is_missing() -> None:
    with pytest.raises(ValueError, match="SessionMiddleware"):
        await save_session({"type": "websocket"})


def changing(save: str) -> Any:
    async def app(scope: Any, receive: Any, send: Any) -> None:
        await scope["session"].aset("colour", "blue")
        if save == "helper":
            await save_session(scope)
        elif save == "own":
            await scope["session"].asave()

    return app


@pytest.mark.django_db(transaction=True)
async def test_a_websocket_that_leaves_session_changes_unsaved_is_warned_about_once(
    caplog: pytest.LogCaptureFixture,
) -> None:
    await play(SessionMiddlewareStack(changing("nothing")), websocket("/ws/"))
    [record] = caplog.records
    assert record.name == "antiphon.security"
    assert "WebSocket '/ws/' ended with changes to its session" in record.getMessage()
    assert "(keys: 'colour')" in record.getMessage()
    assert "save_session(self.scope)" in record.getMessage()


@pytest.mark.django_db(transaction=True)
@pytest.mark.parametrize("save", ["helper", "own"])
async def test_a_websocket_that_saved_its_session_is_not(caplog: pytest.LogCaptureFixture, save: str) -> None:
    await play(SessionMiddlewareStack(changing(save)), websocket("/ws/"))
    assert not caplog.records


@pytest.mark.django_db(transaction=True)
async def test_a_missing_table_is_one_line_and_a_denial(caplog: pytest.LogCaptureFixture) -> None:
    rename = 'ALTER TABLE "{}" RENAME TO "{}"'
    await execute(rename.format("django_session", "gone"))
    try:
        headers = [(b"cookie", b"sessionid=abcdefghij")]
        sent = await play(AuthMiddlewareStack(Recorder()), websocket("/ws/", headers=headers))
    finally:
        await execute(rename.format("gone", "django_session"))
    assert sent == DENIED
    [record] = caplog.records
    assert record.getMessage().startswith(
        "WebSocket '/ws/' denied: the table 'django_session' does not exist, run \"manage.py migrate\""
    )
    assert record.exc_info is None


@pytest.mark.django_db(transaction=True)
async def test_another_trouble_of_the_database_is_raised() -> None:
    async def app(scope: Any, receive: Any, send: Any) -> None:
        raise OperationalError("of another kind")

    with pytest.raises(OperationalError, match="of another kind"):
        await play(SessionMiddlewareStack(app), websocket())


@database_sync_to_async
def execute(sql: str) -> None:
    with connection.cursor() as cursor:
        cursor.execute(sql)
