"""What a client may do at most, and for how long: rates, sizes, deadlines; and others who end what it has."""

from __future__ import annotations

import asyncio
import json
import time
from typing import Any

import pytest

from antiphon.layers import InMemoryChannelLayer
from antiphon.subscriptions import Grant
from tests.consumers.client import members, until, user
from tests.subscriptions.speaking import Open, speaker


async def test_a_thousand_subscribes_have_their_answers(layer: InMemoryChannelLayer) -> None:
    class Few(Open):
        max_subscriptions = 10
        command_rate_limit = "100/h"

    async with speaker(Few) as one:
        await one.begin()
        one.text("\n".join(one.command("subscribe", channel=f"g{n}") for n in range(1000)))
        answers = [await one.line() for _ in range(1000)]
        codes = [line["error"]["code"] if "error" in line else 0 for line in answers]
        assert codes == [0] * 10 + [106] * 990
        assert (await one.do("rpc", method="x")) == {"code": 111, "message": "too many requests", "temporary": True}
        assert await one.do("unsubscribe", channel="g1") == {}  # never an error: clients would reconnect


async def test_who_goes_on_and_on_is_closed(layer: InMemoryChannelLayer) -> None:
    class Strict(Open):
        command_rate_limit = "2/h"

    async with speaker(Strict) as one:
        await one.begin()
        for _ in range(2):
            assert (await one.do("rpc", method="x"))["code"] == 104
        one.text("\n".join(one.command("rpc", method="x") for _ in range(30)))
        while (event := await one.next())["type"] != "websocket.close":
            assert json.loads(event["text"])["error"]["code"] == 111
        assert event["code"] == 3013
    async with speaker(Strict) as two:
        await two.begin()
        two.text('{"send":{}}\n' * 3)
        assert await two.closed() == (3013, "too many requests")


@pytest.mark.parametrize(
    "frame",
    ["", " \n ", "nonsense", "[]", "1", '{"id":1}', '{"id":1,"subscribe":{"channel":"a"}}', '{"send":{}}', None],
)
async def test_what_is_not_the_protocol_ends_the_connection_for_good(layer: InMemoryChannelLayer, frame: Any) -> None:
    async with speaker() as one:
        await one.connect()
        one.put({"type": "websocket.receive", **({"text": frame} if frame is not None else {"bytes": b"{}"})})
        assert await one.closed() == (3501, "bad request")


async def test_a_frame_that_is_too_large_ends_it_too(layer: InMemoryChannelLayer) -> None:
    async with speaker() as one:
        await one.begin()
        one.text(" " * 65537)
        assert await one.closed() == (3501, "too_big")


async def test_the_other_encoding_is_refused_and_without_a_subprotocol_none_is_chosen(
    layer: InMemoryChannelLayer,
) -> None:
    async with speaker(subprotocols=["centrifuge-protobuf"]) as one:
        assert (await one.connect())["subprotocol"] == "centrifuge-protobuf"  # else no client hears the code
        assert await one.closed() == (3506, "inappropriate protocol")
    async with speaker() as two:
        assert (await two.connect())["subprotocol"] is None


async def test_a_permission_that_takes_too_long_is_a_temporary_error(layer: InMemoryChannelLayer) -> None:
    class Slow(Open):
        subscribe_timeout_s = 0.05

        async def authorize_subscribe(self, group: str) -> bool:
            if group == "slow":
                await asyncio.Event().wait()
            return True

    async with speaker(Slow) as one:
        await one.begin()
        assert await one.do("subscribe", channel="slow") == {
            "code": 100,
            "message": "internal server error",
            "temporary": True,
        }
        assert await one.do("subscribe", channel="quick") == {}
    assert members("slow") == 0


async def test_a_client_that_does_not_say_who_it_is_is_stale(layer: InMemoryChannelLayer) -> None:
    class Impatient(Open):
        connect_timeout_s = 0.02

    async with speaker(Impatient) as one:
        await one.connect()
        assert await one.closed() == (3502, "stale")


async def test_pings_go_out_and_one_that_is_not_answered_ends_the_connection(layer: InMemoryChannelLayer) -> None:
    class Quick(Open):
        ping_interval_s = 0.02
        pong_timeout_s = 30.0

    told: list[int] = []

    class Short(Quick):
        pong_timeout_s = 0.01

        async def on_disconnect(self, code: int) -> None:
            told.append(code)

    async with speaker(Quick) as one:
        await one.begin()
        for _ in range(3):
            assert await one.next_text() == "{}"
            one.text("{}")
    async with speaker(Short) as two:
        await two.begin()
        while (event := await two.next())["type"] != "websocket.close":
            assert event["text"] == "{}"
        assert event["code"] == 3012
    assert len(told) == 1  # of an end of ours, too


async def test_pings_go_out_while_a_method_takes_its_time(layer: InMemoryChannelLayer) -> None:
    go = asyncio.Event()

    class Slow(Open):
        ping_interval_s = 0.02
        pong_timeout_s = 100.0

        async def rpc_slow(self, data: Any) -> None:
            await go.wait()

    async with speaker(Slow) as one:
        await one.begin()
        one.text(one.command("rpc", method="slow"))
        for _ in range(3):
            assert await one.next_text() == "{}"
            one.text("{}")
        go.set()
        while (line := await one.line()) == {}:
            one.text("{}")
        assert line["rpc"] == {"data": None}


class Brief(Open):
    """Permissions end at once, or a moment later."""

    expiry_grace_s = -0.9  # a second is the shortest that clients know

    async def authorize_connect(self, data: Any) -> Any:
        return Grant(expires_s=time.time()) if data else True

    async def authorize_subscribe(self, group: str) -> Any:
        return Grant(expires_s=time.time())


async def test_a_connection_whose_token_was_not_renewed_ends(layer: InMemoryChannelLayer) -> None:
    async with speaker(Brief) as one:
        result = await one.begin(data="brief")
        assert (result["expires"], result["ttl"]) == (True, 1)
        assert await one.closed() == (3005, "connection expired")


async def test_a_subscription_whose_token_was_not_renewed_ends(layer: InMemoryChannelLayer) -> None:
    async with speaker(Brief) as one:
        await one.begin()
        result = await one.do("subscribe", channel="room")
        assert (result["expires"], result["ttl"]) == (True, 1)
        assert await one.push("unsubscribe") == ("room", {"code": 2501, "reason": "subscription expired"})
        await until(lambda: members("room") == 0)
        await one.quiet()


async def test_permissions_are_asked_for_again(layer: InMemoryChannelLayer) -> None:
    allowed = {"a", "b"}
    failing = False

    class Checking(Open):
        reauth_interval_s = 0.02

        async def authorize_subscribe(self, group: str) -> bool:
            if failing:
                raise ZeroDivisionError("not knowing is no reason")
            return group in allowed

    async with speaker(Checking) as one:
        await one.begin()
        for group in ("a", "b"):
            assert await one.do("subscribe", channel=group) == {}
        failing = True
        await asyncio.sleep(0.05)
        failing = False
        allowed.remove("a")
        assert await one.push("unsubscribe") == ("a", {"code": 2003, "reason": "permission denied"})
        await until(lambda: members("a") == 0)
        assert members("b") == 1


async def test_others_may_end_a_subscription_of_one_user(layer: InMemoryChannelLayer) -> None:
    async with speaker(user=user(1)) as one, speaker(user=user(2)) as two:
        for each in (one, two):
            await each.begin()
            await each.do("subscribe", channel="room")
        await layer.announce("room", "antiphon.unsubscribe", {"group": "room", "user": "1"})
        assert await one.push("unsubscribe") == ("room", {"code": 2000, "reason": "server unsubscribe"})
        await until(lambda: members("room") == 1)
        await layer.announce("room", "antiphon.unsubscribe", {"group": "room", "user": None, "code": 2500})
        assert await two.push("unsubscribe") == ("room", {"code": 2500, "reason": "insufficient state"})
        await one.quiet()


async def test_a_user_may_be_put_out_of_a_group_and_may_ask_again(layer: InMemoryChannelLayer) -> None:
    entering: list[str] = []

    class PutOut(Open):
        async def _antiphon_enter(self, group: str, since: Any = None) -> Any:
            joined = await super()._antiphon_enter(group, since)
            if entering:
                await layer.unsubscribe_user(1, group)
            return joined

    async with speaker(PutOut, user=user(1)) as one, speaker(PutOut, user=user(2)) as two:
        for each in (one, two):
            await each.begin()
            await each.do("subscribe", channel="log")
        assert await layer.unsubscribe_user(1, "log") == 1
        assert await one.push("unsubscribe") == ("log", {"code": 2000, "reason": "server unsubscribe"})
        assert "epoch" in await one.do("subscribe", channel="log")
        await one.do("unsubscribe", channel="log")
        entering.append("1")
        assert (await one.do("subscribe", channel="log"))["code"] == 103
        assert (await one.do("subscribe", channel="room"))["code"] == 103
        assert (members("log"), members("room")) == (1, 0)
        for each in (one, two):
            await each.quiet()


@pytest.mark.parametrize(
    ("reason", "code"), [("revoked", 3503), ("unauthenticated", 3500), ("restart", 3001), ("error", 3004)]
)
async def test_a_connection_that_others_end_says_so_in_the_protocol(
    layer: InMemoryChannelLayer, reason: str, code: int
) -> None:
    async with speaker(user=user(1)) as one:
        await one.begin()
        assert await layer.close_user(1, reason=reason) == 1
        assert await one.closed() == (code, reason)


async def test_a_user_has_no_more_connections_than_allowed(layer: InMemoryChannelLayer) -> None:
    class Single(Open):
        max_connections_per_user = 1

    async with speaker(Single, user=user(1)) as one:
        await one.begin()
        async with speaker(Single, user=user(1)) as two:
            assert (await two.connect())["type"] == "websocket.accept"
            assert await two.closed() == (3504, "too_many_connections")
