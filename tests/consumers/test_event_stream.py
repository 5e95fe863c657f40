"""Streams of events: what a page gets, what it missed, what it is told when that is gone, and how a stream ends."""

from __future__ import annotations

import asyncio
import json
from typing import Any

import pytest

from antiphon.consumers.position_tokens import position_token
from antiphon.exceptions import EngineUnavailable
from antiphon.generic.events import EventStreamConsumer
from antiphon.layers import InMemoryChannelLayer, channel_layers
from antiphon.types import Event, Message, Position
from antiphon.wire.sse import EventReader, ServerEvent
from tests.consumers.client import HTTP, Client, members, until, user
from tests.test_docs import block

GROUPS = {"room*": {"history_size": 50}, "brief": {"history_size": 2}}


class Stream(EventStreamConsumer):
    groups: Any = ("room",)

    async def note(self, message: Message) -> None:
        await self.send_event({"n": message["n"]}, event="note")

    async def quiet(self, message: Message) -> None:
        pass


class Browser(Client):
    """An ``EventSource``: it reads the events of one stream."""

    def __init__(self, application: Any, last_id: str = "", query: str = "", **scope: Any) -> None:
        headers = [(b"last-event-id", last_id.encode())] if last_id else []
        super().__init__(
            application.as_asgi(), {**HTTP, "headers": headers, "query_string": query.encode(), "state": {}, **scope}
        )
        self.reader = EventReader()
        self.read: list[ServerEvent] = []

    async def opened(self) -> Any:
        """Wait for the head and the first part of the stream."""
        self.start()
        self.request()
        head = await self.next()
        if head["status"] == 200:
            self.read += self.reader.feed((await self.next())["body"])
        return head

    async def event(self) -> ServerEvent:
        while not self.read:
            self.read += self.reader.feed((await self.next())["body"])
        return self.read.pop(0)

    async def left(self) -> str:
        self.vanish()
        await self.ended()
        return self.reader.last_id


@pytest.fixture
def layer() -> InMemoryChannelLayer:
    layer = InMemoryChannelLayer(groups=GROUPS)
    channel_layers.set("default", layer)
    return layer


def note(n: int) -> Message:
    return {"type": "note", "n": n}


async def test_a_page_gets_what_its_groups_are_sent(layer: InMemoryChannelLayer) -> None:
    page = Browser(Stream)
    head = await page.opened()
    assert dict(head["headers"])[b"content-type"] == b"text/event-stream; charset=utf-8"
    assert page.reader.last_id
    assert 1000 <= (page.reader.retry_ms or 0) <= 3000
    await layer.group_send("room", note(1))
    assert (await page.event())[:2] == ("note", '{"n": 1}')
    await layer.group_send("room", {"type": "stream.event", "data": "two\nlines", "event": "text"})
    assert (await page.event())[:2] == ("text", "two\nlines")
    await layer.group_send("room", {"type": "stream.event", "data": [1]})
    assert (await page.event())[:2] == ("message", "[1]")
    await page.left()
    assert members("room") == 0


async def test_a_page_that_comes_back_gets_what_it_missed(layer: InMemoryChannelLayer) -> None:
    page = Browser(Stream)
    await page.opened()
    await layer.group_send("room", note(1))
    first = await page.event()
    last_id = await page.left()
    assert first.id == last_id
    for n in (2, 3, 4):
        await layer.group_send("room", note(n))
    again = Browser(Stream, last_id)
    await again.opened()
    assert [json.loads((await again.event()).data)["n"] for _ in range(3)] == [2, 3, 4]
    await layer.group_send("room", note(5))
    assert json.loads((await again.event()).data) == {"n": 5}
    await again.left()


async def test_the_id_names_the_places_in_all_groups(layer: InMemoryChannelLayer) -> None:
    class Two(Stream):
        def get_groups(self) -> list[str]:
            return ["room1", "room2"]

    page = Browser(Two)
    await page.opened()
    for n, group in enumerate(["room1", "room2", "room1"]):
        await layer.group_send(group, note(n))
        await page.event()
    last_id = await page.left()
    await layer.group_send("room2", note(10))
    await layer.group_send("room1", note(11))
    again = Browser(Two, last_id)
    await again.opened()
    assert sorted([json.loads((await again.event()).data)["n"] for _ in range(2)]) == [10, 11]
    await again.left()


async def test_a_page_may_present_the_position_that_it_was_rendered_at(layer: InMemoryChannelLayer) -> None:
    await layer.group_send("room", note(1))
    token = position_token({"room": await layer.position("room")})
    await layer.group_send("room", note(2))
    page = Browser(Stream, query=f"since={token}")
    await page.opened()
    assert json.loads((await page.event()).data) == {"n": 2}
    last_id = await page.left()
    await layer.group_send("room", note(3))
    again = Browser(Stream, last_id, query=f"since={token}")  # as a browser does: the address stays as it was
    await again.opened()
    assert json.loads((await again.event()).data) == {"n": 3}
    await again.left()


async def test_what_is_gone_is_told(layer: InMemoryChannelLayer) -> None:
    class Brief(Stream):
        groups = ("brief", "room")

    page = Browser(Brief)
    await page.opened()
    last_id = await page.left()
    for n in range(5):
        await layer.group_send("brief", note(n))
    await layer.group_send("room", note(9))
    again = Browser(Brief, last_id)
    await again.opened()
    assert (await again.event())[:2] == ("reset", '{"group": "brief"}')
    assert json.loads((await again.event()).data) == {"n": 9}
    await layer.group_send("brief", note(6))
    assert json.loads((await again.event()).data) == {"n": 6}
    last_id = await again.left()
    await layer.group_send("brief", note(7))
    third = Browser(Brief, last_id)
    await third.opened()
    assert json.loads((await third.event()).data) == {"n": 7}
    await third.left()


@pytest.mark.parametrize("last_id", ["nonsense", "AQ", "A" * 5000, "é", "AX" + "0" * 60])
async def test_a_forged_id_recovers_nothing(layer: InMemoryChannelLayer, last_id: str) -> None:
    await layer.group_send("room", note(1))
    page = Browser(Stream, headers=[(b"Last-Event-ID", last_id.encode())])
    await page.opened()
    assert (await page.event())[:2] == ("reset", '{"group": "room"}')
    await layer.group_send("room", note(2))
    assert json.loads((await page.event()).data) == {"n": 2}
    await page.left()


async def test_a_token_for_other_groups_or_from_the_future_recovers_nothing(layer: InMemoryChannelLayer) -> None:
    epoch = (await layer.position("room")).epoch
    for token in (
        position_token({"room7": Position(epoch, 0)}),
        position_token({"room": Position(epoch, 99)}),
        position_token({"room": Position("another", 0)}),
    ):
        page = Browser(Stream, token)
        await page.opened()
        assert (await page.event()).event == "reset"
        await page.left()


async def test_a_history_that_is_lost_while_the_stream_is_open(layer: InMemoryChannelLayer) -> None:
    page = Browser(Stream)
    await page.opened()
    await layer.group_send("room", note(1))
    await page.event()
    layer._bus.forget_logs()
    await layer.group_send("room", note(2))
    assert (await page.event())[:2] == ("reset", '{"group": "room"}')
    assert json.loads((await page.event()).data) == {"n": 2}
    last_id = await page.left()
    await layer.group_send("room", note(3))
    again = Browser(Stream, last_id)
    await again.opened()
    assert json.loads((await again.event()).data) == {"n": 3}
    await again.left()


async def test_what_is_sent_beside_the_messages_moves_no_position(layer: InMemoryChannelLayer) -> None:
    class Greeting(Stream):
        async def opened(self) -> None:
            await self.send_event("hello", event="greeting")

    page = Browser(Greeting)
    await page.opened()
    start = page.reader.last_id
    event = await page.event()
    assert event == ("greeting", "hello", start)
    await page.left()


async def test_the_line_is_kept_open(layer: InMemoryChannelLayer) -> None:
    class Lively(Stream):
        heartbeat_s = 0.01

    page = Browser(Lively)
    await page.opened()
    while not page.reader.comments:
        page.reader.feed((await page.next())["body"])
    await page.left()


async def test_a_stream_that_is_asked_to_end_ends_whole(layer: InMemoryChannelLayer) -> None:
    page = Browser(Stream)
    await page.opened()
    (channel,) = await layer.group_channels("room")
    await layer.close_channel(channel, "restart")
    assert await page.next() == {"type": "http.response.body", "body": b"", "more_body": False}
    await page.ended()
    assert members("room") == 0


async def test_who_may_not_join_is_refused_before_the_stream_begins(layer: InMemoryChannelLayer) -> None:
    class Closed(Stream):
        async def authorize_join(self, group: str) -> bool:
            return False

    page = Browser(Closed)
    assert (await page.opened())["status"] == 403
    await page.ended()


async def test_only_get_opens_a_stream(layer: InMemoryChannelLayer) -> None:
    page = Browser(Stream, method="POST")
    head = await page.opened()
    assert (head["status"], dict(head["headers"])[b"allow"]) == (405, b"GET")
    await page.ended()


async def test_an_engine_that_is_away_has_the_client_come_back(
    layer: InMemoryChannelLayer, monkeypatch: pytest.MonkeyPatch
) -> None:
    async def away(*args: Any, **kwargs: Any) -> None:
        raise EngineUnavailable("away")

    monkeypatch.setattr(type(layer._node()), "join", away)
    page = Browser(Stream)
    page.start()
    page.request()
    assert (await page.next())["status"] == 200
    end = await page.next()
    assert end["more_body"] is False
    page.reader.feed(end["body"])
    assert page.reader.retry_ms
    await page.ended()


async def test_more_groups_than_an_id_can_hold_are_an_error(layer: InMemoryChannelLayer) -> None:
    class Many(Stream):
        groups = tuple(f"room{n}" for n in range(33))

    page = Browser(Many)
    page.start()
    page.request()
    head = await page.next()
    assert head["status"] == 500


async def test_the_example_of_the_documents(layer: InMemoryChannelLayer) -> None:
    page = Browser(block("events", "class Notifications")["Notifications"], user=user(7))
    await page.opened()
    await layer.group_send("user_7", {"type": "notification", "text": "hello"})
    assert (await page.event())[:2] == ("notification", '{"text": "hello"}')
    await page.left()


async def test_a_text_for_names_is_an_error(layer: InMemoryChannelLayer, caplog: pytest.LogCaptureFixture) -> None:
    class One(Stream):
        groups = "room"

    page = Browser(One)
    assert (await page.opened())["status"] == 500
    await page.ended()
    assert "expected the names of groups; got one text: 'room'" in caplog.text


async def test_a_message_that_no_handler_survives_does_not_come_for_ever(
    layer: InMemoryChannelLayer, caplog: pytest.LogCaptureFixture
) -> None:
    class Brittle(Stream):
        groups = ("room1", "room2")

        async def note(self, message: Message) -> None:
            if message["n"] == 2:
                raise LookupError("as the test wants it")
            await super().note(message)

    page = Browser(Brittle)
    await page.opened()
    for n in (1, 2, 3):
        await layer.group_send("room1", note(n))
    assert json.loads((await page.event()).data) == {"n": 1}
    assert (await page.event())[:2] == ("reset", '{"group": "room1"}')
    await page.ended()
    assert page.events[-1]["more_body"] is False
    again = Browser(Brittle, page.reader.last_id)
    await again.opened()
    assert json.loads((await again.event()).data) == {"n": 3}
    await again.left()
    assert caplog.text.count("LookupError('as the test wants it')") == 1


async def test_the_first_id_is_before_what_was_not_sent_yet(layer: InMemoryChannelLayer) -> None:
    going = asyncio.Event()

    class Two(Stream):
        groups = ("room1", "room2")

        async def authorize_join(self, group: str) -> bool:
            if group == "room2":
                await until(lambda: self.position("room1") == top)  # the handler waits for the stream
                await going.wait()
            return True

    before = position_token({group: await layer.position(group) for group in ("room1", "room2")})
    await layer.group_send("room1", note(1))
    top = await layer.position("room1")
    page = Browser(Two, before)
    page.start()
    page.request()
    going.set()
    await page.next()
    page.reader.feed((await page.next())["body"])
    assert page.reader.last_id == before
    assert json.loads((await page.event()).data) == {"n": 1}
    assert await page.left() != before


async def test_groups_that_a_page_was_not_rendered_with_begin_when_it_comes(layer: InMemoryChannelLayer) -> None:
    class Three(Stream):
        groups = ("room1", "room2", "plain")

    token = position_token({"room1": await layer.position("room1")})
    await layer.group_send("room1", note(1))
    await layer.group_send("room2", note(2))
    page = Browser(Three, query=f"since={token}")
    await page.opened()
    assert json.loads((await page.event()).data) == {"n": 1}
    await layer.group_send("plain", note(3))
    assert json.loads((await page.event()).data) == {"n": 3}
    last_id = await page.left()
    again = Browser(Three, last_id)
    await again.opened()
    assert (await again.event())[:2] == ("reset", '{"group": "plain"}')
    await again.left()


class SlowBrowser(Browser):
    """Reads nothing after its first events until it is told to."""

    def __init__(self, *args: Any, **kwargs: Any) -> None:
        super().__init__(*args, **kwargs)
        self.reads = asyncio.Event()

    async def _send(self, event: Event) -> None:
        await super()._send(event)
        if len(self.events) > 3:
            await self.reads.wait()


async def test_a_slow_reader_is_sent_away_and_misses_nothing(layer: InMemoryChannelLayer) -> None:
    class Small(Stream):
        capacity = 3

    page = SlowBrowser(Small)
    await page.opened()
    await layer.group_send("room", note(0))
    await page.event()
    for n in range(1, 20):
        await layer.group_send("room", note(n))
    page.reads.set()
    await page.ended()
    while page._seen < len(page.events):
        page.read += page.reader.feed((await page.next())["body"])
    got = [0, *(json.loads(event.data)["n"] for event in page.read)]
    assert len(got) < 20
    again = Browser(Stream, page.reader.last_id)
    await again.opened()
    while len(got) < 20:
        got.append(json.loads((await again.event()).data)["n"])
    assert got == list(range(20))
    await again.left()
    await until(lambda: members("room") == 0)
