from __future__ import annotations

import asyncio
import time
from typing import Any

import pytest
from django.contrib.auth import get_user_model
from django.contrib.auth.models import AnonymousUser

from antiphon.auth import InvalidToken, TokenMiddleware, TokenMiddlewareStack, arevoke_user, make_ticket, make_token
from tests.django.asgi import Recorder, http, play, websocket

pytestmark = pytest.mark.django_db(transaction=True)

EXTENSION: Any = {"extensions": {"websocket.http.response": {}}}


@pytest.fixture
def bob() -> Any:
    return get_user_model().objects.create_user("bob", password="secret")


def bearer(token: str) -> dict[str, Any]:
    return {"headers": [(b"authorization", f"Bearer {token}".encode())]}


async def refused(app: Any, scope: dict[str, Any]) -> bool:
    recorder = Recorder()
    middleware = TokenMiddleware(recorder) if app is None else app
    sent = await play(middleware, scope)
    return sent == [{"type": "websocket.close", "code": 4401}]


async def test_a_token_in_the_header_names_the_user(bob: Any) -> None:
    app = Recorder()
    await play(TokenMiddleware(app), websocket(**bearer(make_token(bob, max_age_s=60))))
    assert app.scope["user"] == bob
    assert 30 < app.scope["antiphon.token_expires"] - time.time() <= 60


async def test_a_token_among_the_subprotocols_names_the_user_and_is_never_the_one_accepted(bob: Any) -> None:
    app = Recorder()
    offered = ["antiphon.token." + make_token(bob), "chat.v2", "chat.v1"]
    [accept] = await play(TokenMiddleware(app), websocket(subprotocols=offered))
    assert app.scope["user"] == bob
    assert app.scope["subprotocols"] == ["chat.v2", "chat.v1"]
    assert accept["subprotocol"] == "chat.v2"


async def test_the_application_chooses_among_the_other_subprotocols(bob: Any) -> None:
    offered = ["chat.v2", "antiphon.token." + make_token(bob), "chat.v1"]
    [accept] = await play(TokenMiddleware(Recorder(subprotocol="chat.v1")), websocket(subprotocols=offered))
    assert accept["subprotocol"] == "chat.v1"


async def test_a_token_that_is_the_only_subprotocol_gets_a_hint(bob: Any, caplog: pytest.LogCaptureFixture) -> None:
    token = make_token(bob)
    [accept] = await play(TokenMiddleware(Recorder()), websocket(subprotocols=["antiphon.token." + token]))
    assert accept["subprotocol"] is None
    assert "offer a second one" in caplog.text
    assert token not in caplog.text


def test_a_token_may_stand_in_a_subprotocol(bob: Any) -> None:
    allowed = set("!#$%&'*+-.^_`|~0123456789abcdefghijklmnopqrstuvwxyzABCDEFGHIJKLMNOPQRSTUVWXYZ")
    assert set(make_token(bob)) <= allowed


async def test_a_ticket_opens_one_connection(bob: Any, caplog: pytest.LogCaptureFixture) -> None:
    app, ticket = Recorder(), make_ticket(bob)
    scope = websocket("/ws/", query_string=f"x=1&ticket={ticket}".encode())
    await play(TokenMiddleware(app), scope)
    assert app.scope["user"] == bob
    assert await refused(None, scope)
    [record] = caplog.records
    assert record.getMessage() == "WebSocket '/ws/' denied: its token (ticket) is refused: it was used before"


async def test_a_ticket_for_one_path_opens_no_other(bob: Any, caplog: pytest.LogCaptureFixture) -> None:
    ticket = make_ticket(bob, path="/ws/a/")
    query = {"query_string": f"ticket={ticket}".encode()}
    assert await refused(None, websocket("/ws/b/", **query))
    assert "it is for '/ws/a/'" in caplog.text
    app = Recorder()
    await play(TokenMiddleware(app), websocket("/ws/a/", **query))
    assert app.scope["user"] == bob


async def test_an_old_ticket_is_refused(bob: Any, settings: Any, caplog: pytest.LogCaptureFixture) -> None:
    settings.ANTIPHON = {"ticket_max_age_s": 0.001}
    ticket = make_ticket(bob)
    await asyncio.sleep(1.1)
    assert await refused(None, websocket(query_string=f"ticket={ticket}".encode()))
    assert "it expired" in caplog.text


async def test_a_token_is_no_ticket_and_a_ticket_no_token(bob: Any) -> None:
    assert await refused(None, websocket(**bearer(make_ticket(bob))))
    assert await refused(None, websocket(query_string=f"ticket={make_token(bob)}".encode()))


async def test_an_expired_token_is_refused(bob: Any, caplog: pytest.LogCaptureFixture) -> None:
    token = make_token(bob, max_age_s=-5)
    assert await refused(None, websocket(**bearer(token)))
    assert "it expired" in caplog.text
    assert token not in caplog.text


@pytest.mark.parametrize("token", ["nonsense", "a.b.c", "....", "\xff", "ey." * 5, " x"])
async def test_nonsense_is_refused(token: str, caplog: pytest.LogCaptureFixture) -> None:
    scope = websocket(headers=[(b"authorization", b"Bearer " + token.encode("latin1"))])
    assert await refused(None, scope)
    assert len(caplog.records) == 1
    assert token.strip() not in caplog.records[0].getMessage()


async def test_a_token_dies_with_the_password_and_with_the_user(bob: Any, caplog: pytest.LogCaptureFixture) -> None:
    token = make_token(bob)
    bob.set_password("another")
    await bob.asave()
    assert await refused(None, websocket(**bearer(token)))
    assert "password changed" in caplog.text
    token = make_token(bob)
    bob.is_active = False
    await bob.asave()
    assert await refused(None, websocket(**bearer(token)))
    await bob.adelete()
    assert await refused(None, websocket(**bearer(token)))


@pytest.mark.parametrize("make", [make_token, make_ticket])
async def test_revoking_a_user_ends_tokens_and_tickets(bob: Any, make: Any, caplog: pytest.LogCaptureFixture) -> None:
    def offering(value: str) -> dict[str, Any]:
        return bearer(value) if make is make_token else {"query_string": f"ticket={value}".encode()}

    await arevoke_user(await get_user_model().objects.acreate(username="eve"))
    before = make(bob)
    await arevoke_user(bob)
    assert await refused(None, websocket(**offering(before)))
    assert "tokens were revoked" in caplog.text
    await asyncio.sleep(0.002)  # tokens know their time to the millisecond
    app = Recorder()
    await play(TokenMiddleware(app), websocket(**offering(make(bob))))
    assert app.scope["user"] == bob


async def test_a_token_survives_a_secret_key_that_was_turned(bob: Any, settings: Any) -> None:
    token = make_token(bob)
    settings.SECRET_KEY_FALLBACKS, settings.SECRET_KEY = [settings.SECRET_KEY], "another secret key"
    app = Recorder()
    await play(TokenMiddleware(app), websocket(**bearer(token)))
    assert app.scope["user"] == bob


async def test_where_the_server_can_say_so_a_refusal_is_a_401() -> None:
    start, body = await play(TokenMiddleware(Recorder()), websocket(**bearer("x"), **EXTENSION))
    assert (start["type"], start["status"]) == ("websocket.http.response.start", 401)
    assert (b"www-authenticate", b"Bearer") in start["headers"]
    assert body["type"] == "websocket.http.response.body"


async def test_an_http_request_is_refused_with_401() -> None:
    start, _ = await play(TokenMiddleware(Recorder()), http(**bearer("x")))
    assert (start["type"], start["status"]) == ("http.response.start", 401)


async def test_without_a_token_the_scope_passes_as_it_is(bob: Any) -> None:
    app = Recorder()
    await play(TokenMiddleware(app), websocket(user=bob))
    assert app.scope["user"] is bob
    app = Recorder()
    await play(TokenMiddleware(app), websocket())
    assert isinstance(app.scope["user"], AnonymousUser)


async def test_a_token_can_be_required(caplog: pytest.LogCaptureFixture) -> None:
    assert await refused(TokenMiddleware(Recorder(), required=True), websocket("/ws/"))
    assert caplog.records[0].getMessage() == "WebSocket '/ws/' denied: it has no token"


async def test_a_token_wins_over_the_session(bob: Any) -> None:
    app = Recorder()
    await play(TokenMiddlewareStack(app), websocket(**bearer(make_token(bob))))
    assert app.scope["user"] == bob
    app = Recorder()
    await play(TokenMiddlewareStack(app), websocket())
    assert isinstance(app.scope["user"], AnonymousUser)


@pytest.mark.parametrize(("answer", "accepted"), [("user", True), ("none", False), ("raise", False)])
async def test_another_scheme_plugs_in(bob: Any, answer: str, accepted: bool, caplog: pytest.LogCaptureFixture) -> None:
    class Mine(TokenMiddleware):
        async def authenticate(self, token: str, scope: Any) -> Any:
            assert token == "key-of-bob"
            if answer == "raise":
                raise InvalidToken("unknown key")
            return bob if answer == "user" else None

    app = Recorder()
    sent = await play(Mine(app), websocket(**bearer("key-of-bob")))
    assert (sent[0]["type"] == "websocket.accept") is accepted
    assert "key-of-bob" not in caplog.text


def test_only_a_saved_user_gets_one() -> None:
    with pytest.raises(ValueError, match="expected a user that is saved"):
        make_token(AnonymousUser())
