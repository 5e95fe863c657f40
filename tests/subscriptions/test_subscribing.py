"""Subscribing, publishing, leaving: what a client of the Centrifuge protocol gets, and when."""

from __future__ import annotations

import asyncio
import json
from typing import Any

import pytest

from antiphon import relay
from antiphon.layers import InMemoryChannelLayer
from antiphon.subscriptions import Grant, SubscriptionConsumer
from antiphon.subscriptions.answering import client_id
from tests.consumers.client import members, until, user
from tests.subscriptions.speaking import Open, speaker


async def test_a_subscriber_gets_what_is_published_its_own_included(layer: InMemoryChannelLayer) -> None:
    async with speaker(user=user(7)) as one, speaker() as two:
        number = (await one.begin())["client"]
        await two.begin()
        for each in (one, two):
            assert await each.do("subscribe", channel="room") == {}
        assert await one.do("publish", channel="room", data={"text": "hi"}) == {}
        pub = {"data": {"text": "hi"}, "info": {"client": number, "user": "7"}}
        assert [await one.push(), await two.push()] == [("room", pub), ("room", pub)]


async def test_what_the_application_sends_is_pushed_whole_or_its_data_alone(layer: InMemoryChannelLayer) -> None:
    async with speaker() as one:
        await one.begin()
        await one.do("subscribe", channel="room")
        await layer.group_send("room", {"type": "chat.message", "text": "é"})
        assert await one.push() == ("room", {"data": {"type": "chat.message", "text": "é"}})
        await layer.group_send("room", {"type": "publication", "data": [1], "tags": {"lang": "en"}})
        assert await one.push() == ("room", {"data": [1], "tags": {"lang": "en"}})


async def test_positions_stand_where_a_group_has_a_history(layer: InMemoryChannelLayer) -> None:
    await layer.group_send("log", {"type": "t"})
    top = await layer.position("log")
    async with speaker() as one:
        await one.begin()
        assert await one.do("subscribe", channel="log", positioned=True, recoverable=True) == {
            "recoverable": True,
            "positioned": True,
            "epoch": top.epoch,
            "offset": 1,
        }
        await layer.group_send("log", {"type": "publication", "data": None})
        assert await one.push() == ("log", {"data": None, "offset": 2})


async def test_forbidden_unknown_and_impossible_groups_are_told_apart_by_nothing(layer: InMemoryChannelLayer) -> None:
    class Named(Open):
        def group_for(self, channel: str) -> str | None:
            return {"room": "room", "hidden": "secret"}.get(channel)

    async with speaker(Named) as one:
        await one.begin()
        answers = [await one.do("subscribe", channel=channel) for channel in ("hidden", "nowhere", "secret", "a b")]
        answers += [await one.do(method, channel="hidden") for method in ("history", "presence", "presence_stats")]
        answers += [await one.do("publish", channel="hidden", data=1)]
        assert answers == [{"code": 103, "message": "permission denied"}] * 8


async def test_a_class_that_lets_nobody_in_is_told_once(
    layer: InMemoryChannelLayer, caplog: pytest.LogCaptureFixture
) -> None:
    class Forgot(SubscriptionConsumer):
        pass

    class Strict(SubscriptionConsumer):
        async def authorize_subscribe(self, group: str) -> Any:
            return await super().authorize_subscribe(group)

    for consumer in (Forgot, Forgot, Strict):
        async with speaker(consumer) as one:
            await one.begin()
            assert (await one.do("subscribe", channel="room"))["code"] == 103
    [record] = [each for each in caplog.records if "lets nobody subscribe" in each.getMessage()]
    assert "Forgot" in record.getMessage()


async def test_nobody_may_anything_unless_the_application_says_so(layer: InMemoryChannelLayer) -> None:
    async with speaker(SubscriptionConsumer) as one:
        await one.begin()
        assert (await one.do("subscribe", channel="room"))["code"] == 103
        assert (await one.do("publish", channel="room", data=1))["code"] == 103
        assert (await one.do("history", channel="room", limit=1))["code"] == 103
        assert (await one.do("subscribe", channel="room", token="forged"))["code"] == 103
    assert members("room") == 0


async def test_a_name_that_no_group_can_have_is_a_bad_request(layer: InMemoryChannelLayer) -> None:
    async with speaker() as one:
        await one.begin()
        assert [(await one.do("subscribe", channel=name))["code"] for name in ("a b", "x" * 100, "x" * 256)] == [
            107
        ] * 3


async def test_a_channel_may_have_another_name_than_its_group(layer: InMemoryChannelLayer) -> None:
    class Named(Open):
        def group_for(self, channel: str) -> str | None:
            return f"u_{self.user_id}" if channel == "me" else channel.replace(":", "_")

    async with speaker(Named, user=user(7)) as one, speaker(Named, user=user(8)) as two:
        for each in (one, two):
            await each.begin()
            assert await each.do("subscribe", channel="me") == {}
            assert await each.do("subscribe", channel="news:all") == {}
        assert (await one.do("subscribe", channel="u_7"))["code"] == 105  # the same group by another name
        await layer.group_send("u_7", {"type": "publication", "data": "for 7"})
        await layer.group_send("news_all", {"type": "publication", "data": "for all"})
        assert [await one.push(), await one.push()] == [("me", {"data": "for 7"}), ("news:all", {"data": "for all"})]
        assert await two.push() == ("news:all", {"data": "for all"})


async def test_connect_and_subscribes_may_come_in_one_frame(layer: InMemoryChannelLayer) -> None:
    async with speaker() as one:
        await one.connect()
        commands = [one.command("connect", name="js"), *(one.command("subscribe", channel=f"g{n}") for n in range(3))]
        one.text("\n".join(commands))
        assert [(await one.line())["id"] for _ in range(4)] == [1, 2, 3, 4]


async def test_nothing_of_a_group_comes_before_the_reply(layer: InMemoryChannelLayer) -> None:
    class Busy(Open):
        async def on_subscribe(self, group: str) -> None:
            await layer.group_send(group, {"type": "publication", "data": "welcome"})

        async def _antiphon_enter(self, group: str, since: Any = None) -> Any:
            result = await super()._antiphon_enter(group, since)
            await layer.group_send(group, {"type": "publication", "data": "early"})
            return result

    async with speaker(Busy) as one:
        await one.begin()
        assert await one.do("subscribe", channel="room") == {}
        assert [(await one.push())[1]["data"] for _ in range(2)] == ["early", "welcome"]


async def test_an_unsubscribe_behind_a_subscribe_that_is_under_way_wins(layer: InMemoryChannelLayer) -> None:
    asked, go = asyncio.Event(), asyncio.Event()

    class Slow(Open):
        async def authorize_subscribe(self, group: str) -> bool:
            asked.set()
            await go.wait()
            return True

    async with speaker(Slow) as one:
        await one.begin()
        one.text(one.command("subscribe", channel="room"), one.command("unsubscribe", channel="room"))
        await asked.wait()
        go.set()
        assert [await one.reply("subscribe"), await one.reply("unsubscribe")] == [{}, {}]
        assert members("room") == 0
        await layer.group_send("room", {"type": "publication", "data": 1})
        await one.quiet()


async def test_a_channel_that_was_left_is_free_in_the_same_frame(layer: InMemoryChannelLayer) -> None:
    async with speaker() as one:
        await one.begin()
        await one.do("subscribe", channel="room")
        assert await one.do("subscribe", channel="room") == {"code": 105, "message": "already subscribed"}
        frame = [one.command("unsubscribe", channel="room"), one.command("subscribe", channel="room")]
        one.text("\n".join(frame))
        assert [await one.reply("unsubscribe"), await one.reply("subscribe")] == [{}, {}]
        assert members("room") == 1


async def test_what_waited_of_a_group_is_not_pushed_after_it_was_left(layer: InMemoryChannelLayer) -> None:
    class Chatty(Open):
        async def rpc_fill(self, data: Any) -> None:
            for n in range(3):
                await layer.group_send("log", {"type": "publication", "data": n})

    async with speaker(Chatty) as one:
        await one.begin()
        start = await one.do("subscribe", channel="log")
        again = one.command("subscribe", channel="log", recover=True, epoch=start["epoch"], offset=0)
        # In one frame: what is sent meanwhile waits in the mailbox.
        frame = [one.command("rpc", method="fill"), one.command("unsubscribe", channel="log")]
        one.number += 10
        one.text("\n".join([*frame, again]))
        assert [await one.reply("rpc"), await one.reply("unsubscribe")] == [{"data": None}, {}]
        result = await one.reply("subscribe")
        assert [pub["offset"] for pub in result["publications"]] == [1, 2, 3]
        await one.quiet()


async def test_leaving_what_one_is_not_in_is_no_error(layer: InMemoryChannelLayer) -> None:
    async with speaker() as one:
        await one.begin()
        assert await one.do("unsubscribe", channel="nowhere") == {}


async def test_the_application_hears_of_each_subscription_and_of_its_end(layer: InMemoryChannelLayer) -> None:
    heard: list[Any] = []

    class Hearing(Open):
        async def on_connect(self) -> None:
            heard.append("connect")

        def on_subscribe(self, group: str) -> None:  # type: ignore[override]  # a plain function, on a thread
            heard.append(("in", group, sorted(self.subscriptions)))

        async def on_unsubscribe(self, group: str) -> None:
            heard.append(("out", group))

        async def on_disconnect(self, code: int) -> None:
            heard.append(code)

    async with speaker(Hearing) as one:
        await one.begin()
        await one.do("subscribe", channel="a")
        await one.do("subscribe", channel="b")
        await one.do("unsubscribe", channel="a")
    assert heard == ["connect", ("in", "a", ["a"]), ("in", "b", ["a", "b"]), ("out", "a"), ("out", "b"), 1000]
    assert members("b") == 0


async def test_permissions_may_have_data_and_plain_functions_may_give_them(layer: InMemoryChannelLayer) -> None:
    class Granting(SubscriptionConsumer):
        def authorize_subscribe(self, group: str) -> Grant:  # type: ignore[override]  # a plain function
            return Grant(data={"topic": group})

    async with speaker(Granting) as one:
        await one.begin()
        assert await one.do("subscribe", channel="room") == {"data": {"topic": "room"}}


async def test_groups_that_the_application_joined_are_its_own(layer: InMemoryChannelLayer) -> None:
    heard = asyncio.Event()

    class Joining(Open):
        async def on_connect(self) -> None:
            await self.join("staff")

        async def staff_note(self, message: Any) -> None:
            heard.set()

    async with speaker(Joining) as one:
        await one.begin()
        await one.do("subscribe", channel="room")
        await layer.group_send("staff", {"type": "staff.note"})
        await layer.group_send("room", {"type": "publication", "data": 1})
        assert await one.push() == ("room", {"data": 1})
        await heard.wait()


async def test_what_the_layer_says_of_groups_goes_to_who_has_them(
    layer: InMemoryChannelLayer, caplog: pytest.LogCaptureFixture
) -> None:
    heard: asyncio.Queue[Any] = asyncio.Queue()

    class Silent(Open):
        async def on_connect(self) -> None:
            await self.join("log1")

    class Hearing(Silent):
        async def group_lost(self, message: Any) -> None:
            await heard.put(message["group"])

    for cls in (Silent, Hearing):
        async with speaker(cls) as one:
            await one.begin()
            await one.do("subscribe", channel="log2")
            for group in ("log1", "log2"):
                await layer.group_send(group, {"type": "publication", "data": 1})
            assert (await one.push())[0] == "log2"
            layer._bus.forget_logs()
            for group in ("log1", "log2"):
                await layer.group_send(group, {"type": "publication", "data": 2})
            assert (await one.push("unsubscribe"))[0] == "log2"
            await one.quiet()
    assert await heard.get() == "log1"
    assert heard.empty()
    assert {record.message.split(":")[0] for record in caplog.records if "group.lost" in record.message} == set()


async def test_a_permission_that_was_not_awaited_is_none(layer: InMemoryChannelLayer) -> None:
    class Forgetful(Open):
        async def authorize_subscribe(self, group: str) -> Any:
            return asyncio.get_running_loop().create_future()

    async with speaker(Forgetful) as one:
        await one.begin()
        assert (await one.do("subscribe", channel="room"))["code"] == 100
    assert members("room") == 0


async def test_a_message_to_the_connection_itself_reaches_a_handler_which_may_push(layer: InMemoryChannelLayer) -> None:
    class Pushing(Open):
        async def note(self, message: Any) -> None:
            await self.push({"note": message["text"]})

        async def rpc_channel(self, data: Any) -> str:
            return self.channel_name

    async with speaker(Pushing) as one:
        await one.begin()
        channel = (await one.do("rpc", method="channel"))["data"]
        await layer.send(channel, {"type": "note", "text": "hello"})
        assert await one.line() == {"push": {"message": {"data": {"note": "hello"}}}}


async def test_what_json_cannot_hold_reaches_nobody_and_ends_nothing(
    layer: InMemoryChannelLayer, caplog: pytest.LogCaptureFixture
) -> None:
    async with speaker() as one:
        await one.begin()
        await one.do("subscribe", channel="log")
        for data in (float("nan"), b"bytes", "fine"):
            await layer.group_send("log", {"type": "publication", "data": data})
        assert await one.push() == ("log", {"data": "fine", "offset": 3})
        result = await one.do("history", channel="log", limit=-1)
        assert [pub["data"] for pub in result["publications"]] == ["fine"]
    assert [record.message for record in caplog.records if "JSON must be able to hold it" in record.message]


async def test_a_frame_is_made_once_for_all_subscribers(
    layer: InMemoryChannelLayer, monkeypatch: pytest.MonkeyPatch
) -> None:
    made = []
    from antiphon.subscriptions import pushes

    def counted(channel: str, content: Any) -> str:
        made.append(channel)
        return json.dumps({"push": {"channel": channel, "pub": content}})

    monkeypatch.setattr(pushes, "publication_push", counted)
    async with speaker() as one, speaker() as two, speaker() as three:
        for each in (one, two, three):
            await each.begin()
            await each.do("subscribe", channel="room")
        await layer.group_send("room", {"type": "publication", "data": 1})
        assert [await each.push() for each in (one, two, three)] == [("room", {"data": 1})] * 3
    assert made == ["room"]


async def test_a_message_to_several_groups_is_one_of_each_subscription(layer: InMemoryChannelLayer) -> None:
    async with speaker() as one:
        await one.begin()
        for group in ("log", "room"):
            await one.do("subscribe", channel=group)
        await layer.groups_send(["log", "room", "brief"], {"type": "publication", "data": 1})
        assert sorted([(await one.push())[0], (await one.push())[0]]) == ["log", "room"]
        assert (await one.do("subscribe", channel="brief", recover=True))["publications"] == [{"data": 1, "offset": 1}]


async def test_who_comes_and_goes_is_told_to_those_who_asked(layer: InMemoryChannelLayer) -> None:
    ada = {"user": "1", "channel": "specific.a!1", "info": {"name": "Ada"}}
    bob: dict[str, Any] = {"user": None, "channel": "specific.a!2", "info": {}}
    known = [{"client": client_id("specific.a!1"), "user": "1", "conn_info": {"name": "Ada"}}]
    known.append({"client": client_id("specific.a!2"), "user": ""})
    async with speaker() as one, speaker() as two:
        for each, asked in ((one, True), (two, False)):
            await each.begin()
            await each.do("subscribe", channel="heretoo")
            await each.do("subscribe", channel="here", join_leave=asked)
            assert (await one.push("join"))[0] == "here"  # its own, and that of the other
        for kind in ("join", "leave"):
            await layer.announce("here", f"presence.{kind}", {"group": "here", "users": [ada, bob]})
            await layer.announce("heretoo", f"presence.{kind}", {"group": "heretoo", "users": [ada]})
            assert [await one.push(kind), await one.push(kind)] == [("here", {"info": each}) for each in known]
        for each in (one, two):
            await each.quiet()


async def test_relays_are_refused_when_the_class_is_made() -> None:
    with pytest.raises(TypeError, match="has relays"):

        class Relaying(SubscriptionConsumer):
            @relay
            def price(message: Any) -> Any:
                return message


async def test_the_session_is_forgotten_with_its_client(layer: InMemoryChannelLayer) -> None:
    async with speaker() as one:
        await one.begin()
        await one.do("subscribe", channel="room")
        one.vanish()
        await one.ended()
    await until(lambda: members("room") == 0)
