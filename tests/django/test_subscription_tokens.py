"""Tokens of connections and of subscriptions: what they say, and each way in which they are worth nothing."""

from __future__ import annotations

import time
from typing import Any

import jwt
import pytest
from django.contrib.auth.models import AnonymousUser, User

from antiphon.auth import connection_token, make_token, revoke_user, subscription_token
from antiphon.django import subscription_tokens
from antiphon.django.subscription_tokens import read_connection_token, read_subscription_token
from antiphon.exceptions import OptionError, TokenExpired, TokenInvalid

SECRET = "only for these tests, and as long as HS512 wants its secrets to be: 64"

pytestmark = pytest.mark.django_db


@pytest.fixture(params=["django", "jwt"])
def way(request: pytest.FixtureRequest, settings: Any) -> str:
    if request.param == "jwt":
        settings.ANTIPHON = {"jwt": {"secret": SECRET}}
    return str(request.param)


@pytest.fixture
def ada() -> User:
    return User.objects.create_user("ada", password="x")


@pytest.fixture
def clock(monkeypatch: pytest.MonkeyPatch) -> Any:
    class Clock:
        ahead_s = 0.0

        def time(self) -> float:
            return time.time() + self.ahead_s

    clock = Clock()
    monkeypatch.setattr(subscription_tokens, "time", clock)
    return clock


def test_a_token_says_who_and_until_when(way: str, ada: User) -> None:
    claims = read_connection_token(connection_token(ada, ttl_s=60, info={"name": "Ada"}))
    assert (claims.user, claims.info, claims.group) == (ada, {"name": "Ada"}, None)
    assert 50 < claims.expires_s - time.time() < 70
    assert read_connection_token(connection_token(None)).user is None
    assert read_connection_token(connection_token(AnonymousUser())).user is None


def test_a_subscriptions_token_is_for_one_group(way: str, ada: User) -> None:
    claims = read_subscription_token(subscription_token(ada, "room_7"))
    assert (claims.user, claims.group) == (ada, "room_7")


def test_one_kind_is_not_the_other(way: str, ada: User) -> None:
    with pytest.raises(TokenInvalid):
        read_subscription_token(connection_token(ada))
    with pytest.raises(TokenInvalid):
        read_connection_token(subscription_token(ada, "room"))
    with pytest.raises(TokenInvalid):
        read_connection_token(make_token(ada))


def test_one_that_is_over_is_told_from_one_that_is_bad(way: str, ada: User, clock: Any) -> None:
    token = connection_token(ada, ttl_s=10)
    clock.ahead_s = 12
    with pytest.raises(TokenExpired):
        read_connection_token(token)


@pytest.mark.parametrize("token", ["", "x", "a.b.c", "é" * 50, "." * 1000, "eyJhbGciOiJub25lIn0.eyJzdWIiOiIxIn0."])
def test_nonsense_is_refused(way: str, token: str) -> None:
    with pytest.raises(TokenInvalid):
        read_connection_token(token)


def test_a_changed_one_is_refused(way: str, ada: User) -> None:
    token = connection_token(ada)
    for at in range(0, len(token), 7):
        changed = token[:at] + ("A" if token[at] != "A" else "B") + token[at + 1 :]
        if changed.rstrip("AB") != token.rstrip("AB"):
            with pytest.raises(TokenInvalid):
                read_connection_token(changed)


def test_it_ends_with_the_password_the_user_and_the_secret(way: str, ada: User, settings: Any) -> None:
    token = connection_token(ada)
    ada.set_password("y")
    ada.save()
    with pytest.raises(TokenInvalid, match="password changed"):
        read_connection_token(token)
    token = connection_token(ada)
    User.objects.update(is_active=False)
    with pytest.raises(TokenInvalid, match="not active"):
        read_connection_token(token)
    User.objects.update(is_active=True)
    settings.SECRET_KEY = "another"
    settings.ANTIPHON = {"jwt": {"secret": SECRET[::-1]}} if way == "jwt" else {}
    with pytest.raises(TokenInvalid):
        read_connection_token(token)


@pytest.mark.django_db(transaction=True)
def test_revoking_a_user_ends_what_was_made_before(way: str, ada: User, clock: Any) -> None:
    token, other = connection_token(ada), connection_token(User.objects.create_user("bob"))
    revoke_user(ada)
    with pytest.raises(TokenInvalid, match="revoked"):
        read_connection_token(token)
    assert read_connection_token(other).user.username == "bob"
    clock.ahead_s = 1
    assert read_connection_token(connection_token(ada)).user == ada


@pytest.mark.parametrize("ttl_s", [0, -1, True, "60", 31 * 86400])
def test_a_life_that_cannot_be_is_an_error_at_the_call(ada: User, ttl_s: Any) -> None:
    with pytest.raises(ValueError, match="ttl_s: expected"):
        connection_token(ada, ttl_s=ttl_s)


def test_a_user_that_is_not_saved_is_an_error_at_the_call() -> None:
    with pytest.raises(ValueError, match="expected a user that is saved"):
        connection_token(User(username="new"))


def test_tokens_that_another_service_makes(ada: User, settings: Any) -> None:
    settings.ANTIPHON = {"jwt": {"secret": SECRET}}
    theirs = {"sub": str(ada.pk), "exp": int(time.time()) + 60}
    assert read_connection_token(jwt.encode(theirs, SECRET)).user == ada
    assert read_subscription_token(jwt.encode({**theirs, "channel": "room"}, SECRET)).group == "room"
    for claims, algorithm in (
        ({**theirs, "sub": "99999"}, "HS256"),
        ({"sub": str(ada.pk)}, "HS256"),
        (theirs, "HS512"),
    ):
        with pytest.raises(TokenInvalid):
            read_connection_token(jwt.encode(claims, SECRET, algorithm=algorithm))


def test_who_has_the_public_key_reads_and_does_not_make(ada: User, settings: Any) -> None:
    from cryptography.hazmat.primitives import serialization
    from cryptography.hazmat.primitives.asymmetric import ed25519

    private = ed25519.Ed25519PrivateKey.generate()
    public = private.public_key().public_bytes(
        serialization.Encoding.PEM, serialization.PublicFormat.SubjectPublicKeyInfo
    )
    settings.ANTIPHON = {"jwt": {"algorithm": "EdDSA", "public_key": public}}
    claims = {"sub": str(ada.pk), "exp": int(time.time()) + 60}
    assert read_connection_token(jwt.encode(claims, private, algorithm="EdDSA")).user == ada
    with pytest.raises(OptionError, match="made elsewhere"):
        connection_token(ada)
    with pytest.raises(TokenInvalid):
        read_connection_token(jwt.encode(claims, "", algorithm="none"))
