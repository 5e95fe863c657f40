"""Each command, and each of its errors."""

from __future__ import annotations

import asyncio
import time
from typing import Any

import pytest

from antiphon import framework
from antiphon.exceptions import EngineUnavailable, ReplyError, TokenExpired, TokenInvalid
from antiphon.layer.presence.rosters import Member, PresenceStats, Roster
from antiphon.layers import InMemoryChannelLayer
from antiphon.subscriptions import Claims, Grant, SubscriptionConsumer
from antiphon.subscriptions.answering import client_id
from antiphon.testing import WebsocketCommunicator
from tests.consumers.client import user
from tests.subscriptions.speaking import Open, speaker


async def publish(layer: InMemoryChannelLayer, group: str, *data: Any) -> None:
    for each in data:
        await layer.group_send(group, {"type": "publication", "data": each})


# connect


async def test_the_reply_to_connect_says_how_the_connection_is_kept(layer: InMemoryChannelLayer) -> None:
    async with speaker() as one, speaker() as two:
        result = await one.begin(name="js", data={"page": 1})
        assert (result["ping"], result["pong"], result["version"]) == (25, True, "antiphon")
        assert result["client"] != (await two.begin())["client"]


async def test_the_application_may_tell_connecting_clients_something(layer: InMemoryChannelLayer) -> None:
    class Telling(Open):
        async def authorize_connect(self, data: Any) -> Any:
            return Grant(data={"you": data, "are": self.user_id}) if data else False

    async with speaker(Telling, user=user(7)) as one:
        assert (await one.begin(data="x"))["data"] == {"you": "x", "are": "7"}
    async with speaker(Telling) as two:
        assert await two.begin() == {"code": 101, "message": "unauthorized"}
        two.text(two.command("subscribe", channel="room"))  # what follows an error is not answered
        two.vanish()
        await two.ended()
        assert len(two.texts) == 1


class Tokens(Open):
    """Tokens are "<user>", "<user>:<seconds>", "late" or anything else, which is bad."""

    async def authenticate(self, token: str) -> Claims:
        return self.read(token)

    async def authorize_token(self, group: str, token: str) -> Grant:
        claims = self.read(token)
        return Grant(claims.expires_s, data=claims.user)

    def read(self, token: str) -> Claims:
        if token == "late":
            raise TokenExpired("its time is over")
        name, _, ttl = token.partition(":")
        if name not in ("ada", "bob"):
            raise TokenInvalid("nobody's")
        return Claims(name, time.time() + float(ttl) if ttl else None, {"name": name.title()})


async def test_a_token_says_who_the_client_is_and_until_when(layer: InMemoryChannelLayer) -> None:
    class Who(Tokens):
        async def rpc_who(self, data: Any) -> Any:
            return [self.user_id, self.claims.user, dict(self.claims.info or {})]

    async with speaker(Who, user=user(7)) as one:
        result = await one.begin(token="ada:3600")
        assert (result["expires"], 3500 < result["ttl"] <= 3600) == (True, True)
        assert (await one.do("rpc", method="who"))["data"] == ["ada", "ada", {"name": "Ada"}]
        assert await layer.close_user("ada") == 1
        assert (await one.closed())[0] == 3503


@pytest.mark.parametrize(
    ("cls", "token", "expected"),
    [(Tokens, "late", {"code": 109, "message": "token expired"}), (Tokens, "eve", 3500), (Open, "ada", 3500)],
)
async def test_a_token_that_is_over_is_answered_and_a_forged_one_ends_the_connection(
    layer: InMemoryChannelLayer, cls: Any, token: str, expected: Any
) -> None:
    async with speaker(cls) as one:
        await one.connect()
        one.text(one.command("connect", token=token))
        if isinstance(expected, dict):
            assert await one.reply("connect") == expected
        else:
            assert await one.closed() == (3500, "invalid token")


async def test_a_token_may_bring_the_user_itself(layer: InMemoryChannelLayer) -> None:
    class Bringing(Open):
        async def authenticate(self, token: str) -> Claims:
            return Claims(user(token))

        async def authorize_subscribe(self, group: str) -> bool:
            return bool(self.scope["user"].pk == group)

    async with speaker(Bringing) as one:
        await one.begin(token="ada")
        assert await one.do("subscribe", channel="ada") == {}
        assert (await one.do("subscribe", channel="bob"))["code"] == 103


async def test_a_framework_may_read_the_tokens(layer: InMemoryChannelLayer) -> None:
    class Reading(framework.Framework):
        async def read_connection_token(self, token: str) -> Claims:
            return Claims(token)

        async def read_subscription_token(self, token: str) -> Any:
            who, _, group = token.partition(":")
            return type("Read", (), {"user": who, "group": group, "expires_s": None, "info": None})

    before = framework.install(Reading())
    try:
        async with speaker(SubscriptionConsumer) as one:
            assert "client" in await one.begin(token="ada")
            assert await one.do("subscribe", channel="room", token="ada:room") == {}
            for token in ("ada:other", "bob:more"):
                assert (await one.do("subscribe", channel="more", token=token))["code"] == 103
    finally:
        framework.install(before)


async def test_an_error_of_the_application_is_answered_and_what_it_says_stays_here(
    layer: InMemoryChannelLayer, caplog: pytest.LogCaptureFixture
) -> None:
    class Failing(Open):
        async def authorize_connect(self, data: Any) -> bool:
            raise ZeroDivisionError("a secret")

    async with speaker(Failing) as one:
        assert await one.begin() == {"code": 100, "message": "internal server error", "temporary": True}
    assert "a secret" in caplog.text


async def test_in_a_test_what_a_method_raises_comes_out_there(layer: InMemoryChannelLayer) -> None:
    class Failing(Open):
        async def rpc_fail(self, data: Any) -> None:
            raise ZeroDivisionError("seen")

    client = WebsocketCommunicator(Failing.as_asgi(), "/")
    await client.connect()
    await client.send_json_to({"id": 1, "connect": {}})
    assert "client" in (await client.receive_json_from())["connect"]
    await client.send_json_to({"id": 2, "rpc": {"method": "fail"}})
    with pytest.raises(ZeroDivisionError, match="seen"):
        await client.receive_json_from()


# subscribe


async def test_a_subscription_may_need_a_token_of_its_own(layer: InMemoryChannelLayer) -> None:
    async with speaker(Tokens) as one:
        await one.begin()
        result = await one.do("subscribe", channel="room", token="ada:60")
        assert (result["expires"], 50 <= result["ttl"] <= 60, result["data"]) == (True, True, "ada")
        assert await one.do("subscribe", channel="more", token="late") == {"code": 109, "message": "token expired"}
        assert await one.do("subscribe", channel="more", token="eve") == {"code": 103, "message": "permission denied"}
        assert (await one.do("subscribe", channel="more", type=1))["code"] == 108


async def test_an_engine_that_is_away_is_a_temporary_error(
    layer: InMemoryChannelLayer, monkeypatch: pytest.MonkeyPatch
) -> None:
    async def away(*args: Any, **kwargs: Any) -> Any:
        raise EngineUnavailable("away")

    async with speaker() as one:
        await one.begin()
        await one.do("subscribe", channel="room")
        node: Any = layer._node()
        monkeypatch.setattr(node, "join", away)
        monkeypatch.setattr(layer, "group_send", away)
        for answer in (await one.do("subscribe", channel="more"), await one.do("publish", channel="room", data=1)):
            assert answer == {"code": 100, "message": "internal server error", "temporary": True}


# publish, history


async def test_what_is_too_large_exceeds_a_limit(
    layer: InMemoryChannelLayer,
) -> None:
    layer.max_message_bytes = 500
    async with speaker() as one:
        await one.begin()
        assert (await one.do("publish", channel="room", data="x" * 600))["code"] == 106


async def test_a_history_is_read_from_either_end_or_from_a_position(layer: InMemoryChannelLayer) -> None:
    await publish(layer, "log", *range(1, 6))
    top = await layer.position("log")

    async with speaker() as one:
        await one.begin()
        assert (await one.do("history", channel="log", limit=1))["code"] == 103
        await one.do("subscribe", channel="log")

        async def offsets(**fields: Any) -> list[int]:
            result = await one.do("history", channel="log", **fields)
            assert (result["epoch"], result["offset"]) == (top.epoch, 5)
            return [pub["offset"] for pub in result["publications"]]

        assert await offsets() == []
        assert await offsets(limit=0, reverse=False) == []
        assert await offsets(limit=-1) == [1, 2, 3, 4, 5]
        assert await offsets(limit=2) == [1, 2]
        assert await offsets(limit=2, reverse=True) == [5, 4]
        assert await offsets(limit=2, since={"offset": 2, "epoch": top.epoch}) == [3, 4]
        assert await offsets(limit=9, since={"offset": 3}) == [4, 5]
        assert await offsets(limit=2, since={"offset": 4, "epoch": top.epoch}, reverse=True) == [3, 2]
        assert await offsets(limit=9, since={"offset": 1}, reverse=True) == []
        since = {"offset": 2, "epoch": "another"}
        assert (await one.do("history", channel="log", limit=9, since=since, reverse=True))["code"] == 112
        assert await one.do("history", channel="log", limit=9, since=since) == {
            "code": 112,
            "message": "unrecoverable position",
        }
        await one.do("subscribe", channel="room")
        assert (await one.do("history", channel="room", limit=9))["code"] == 108


async def test_a_history_reply_holds_no_more_than_it_may(layer: InMemoryChannelLayer) -> None:
    class Brief(Open):
        history_limit = 3

    await publish(layer, "log", *range(1, 9))
    async with speaker(Brief) as one:
        await one.begin()
        await one.do("subscribe", channel="log")
        for limit in (-1, 100):
            result = await one.do("history", channel="log", limit=limit)
            assert [pub["offset"] for pub in result["publications"]] == [1, 2, 3]


async def test_presence_is_told_without_the_names_of_channels(
    layer: InMemoryChannelLayer, monkeypatch: pytest.MonkeyPatch
) -> None:
    members = [Member("1", "specific.a!1", {"name": "Ada"}), Member(None, "specific.a!2", {})]

    async def presence(group: str, **options: Any) -> Roster:
        return Roster(members)

    async def presence_stats(group: str) -> PresenceStats:
        return PresenceStats(2, 1)

    monkeypatch.setattr(layer, "presence", presence, raising=False)
    monkeypatch.setattr(layer, "presence_stats", presence_stats, raising=False)
    async with speaker() as one:
        await one.begin()
        for group in ("here", "room"):
            assert (await one.do("presence", channel=group))["code"] == 103
            await one.do("subscribe", channel=group)
        first, second = client_id("specific.a!1"), client_id("specific.a!2")
        assert (await one.do("presence", channel="here"))["presence"] == {
            first: {"client": first, "user": "1", "conn_info": {"name": "Ada"}},
            second: {"client": second, "user": ""},
        }
        assert await one.do("presence_stats", channel="here") == {"num_clients": 2, "num_users": 1}
        assert [(await one.do(method, channel="room"))["code"] for method in ("presence", "presence_stats")] == [
            108
        ] * 2


# rpc, send, ping


async def test_methods_are_called_by_name_and_answer(layer: InMemoryChannelLayer) -> None:
    class Calling(Open):
        async def rpc_add(self, data: Any) -> Any:
            return data["a"] + data["b"]

        def rpc_shop_total(self, data: Any) -> Any:
            return {"total": 3}

        async def rpc_refuse(self, data: Any) -> None:
            raise ReplyError(1001, "sold out", temporary=bool(data))

        async def rpc_odd(self, data: Any) -> Any:
            return {1, 2}

    async with speaker(Calling) as one:
        await one.begin()
        assert await one.do("rpc", method="add", data={"a": 1, "b": 2}) == {"data": 3}
        assert await one.do("rpc", method="shop.total") == {"data": {"total": 3}}
        assert await one.do("rpc", method="refuse") == {"code": 1001, "message": "sold out"}
        assert (await one.do("rpc", method="refuse", data=1))["temporary"] is True
        assert (await one.do("rpc", method="odd"))["code"] == 100
        for name in ("nothing", "", "_private", "add()", "x" * 101, "é", "add\n"):
            assert (await one.do("rpc", method=name))["code"] == 104


async def test_messages_without_an_answer_reach_the_application(layer: InMemoryChannelLayer) -> None:
    heard: asyncio.Queue[Any] = asyncio.Queue()

    class Hearing(Open):
        async def on_message(self, data: Any) -> None:
            await heard.put(data)
            raise ZeroDivisionError("logged, and nothing more")

    async with speaker(Hearing) as one:
        await one.begin()
        one.text('{"send":{"data":{"typing":true}}}\n{"send":{}}')
        assert [await heard.get(), await heard.get()] == [{"typing": True}, None]
        await one.quiet()


async def test_what_this_version_does_not_have_is_said(layer: InMemoryChannelLayer) -> None:
    async with speaker() as one:
        await one.begin()
        one.text('{"id":8,"ping":{}}\n{"id":9,"teleport":{"to":"mars"}}\n{}')
        assert [(await one.line())["error"]["code"] for _ in range(2)] == [108, 104]
        await one.quiet()


# refresh


async def test_a_new_token_lengthens_the_connection(layer: InMemoryChannelLayer) -> None:
    async with speaker(Tokens) as one:
        await one.begin(token="ada:60")
        assert 3500 < (await one.do("refresh", token="ada:3600"))["ttl"] <= 3600
        assert await one.do("refresh", token="ada") == {}
        assert await one.do("refresh", token="late") == {"code": 110, "message": "expired"}
        one.text(one.command("refresh", token="bob:3600"))
        assert await one.closed() == (3500, "invalid token")


async def test_a_new_token_lengthens_a_subscription(layer: InMemoryChannelLayer) -> None:
    async with speaker(Tokens) as one:
        await one.begin(token="ada")
        await one.do("subscribe", channel="room", token="ada:60")
        assert 3500 < (await one.do("sub_refresh", channel="room", token="ada:3600"))["ttl"] <= 3600
        assert (await one.do("sub_refresh", channel="room", token="late"))["code"] == 109
        assert (await one.do("sub_refresh", channel="room", token="eve"))["code"] == 103
        assert (await one.do("sub_refresh", channel="more", token="ada:3600"))["code"] == 103
