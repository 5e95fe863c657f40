"""Fragments: rendered once, addressed, escaped, sent after the commit."""

from __future__ import annotations

import asyncio
from collections.abc import Iterator
from typing import Any

import pytest
from django.db import transaction
from django.template import TemplateDoesNotExist

from antiphon.generic.html import HtmlConsumer
from antiphon.html import abroadcast_html, broadcast_html
from antiphon.layers import InMemoryChannelLayer, channel_layers
from tests.consumers.client import Client

TEMPLATES = {
    "row.html": "<li>{{ text }}</li>",
    "whole.html": '<p id="status" hx-swap-oob="true">{{ text }}</p>',
    "nowhere.html": '<p id="status">{{ text }}</p>',
}


@pytest.fixture
def layer(settings: Any) -> Iterator[InMemoryChannelLayer]:
    loaders = [("django.template.loaders.locmem.Loader", TEMPLATES)]
    settings.TEMPLATES = [
        {"BACKEND": "django.template.backends.django.DjangoTemplates", "OPTIONS": {"loaders": loaders}}
    ]
    layer = InMemoryChannelLayer()
    before = channel_layers.set("default", layer)
    yield layer
    if before is None:
        channel_layers.backends.pop("default")
    else:
        channel_layers.set("default", before)


async def received(layer: InMemoryChannelLayer, channel: str) -> Any:
    return await asyncio.wait_for(layer.receive(channel), 30)


async def test_a_fragment_is_rendered_escaped_and_addressed(layer: InMemoryChannelLayer) -> None:
    channel = await layer.new_channel()
    await layer.group_add("room", channel)
    await abroadcast_html("room", "row.html", {"text": "<b>&"}, target='#list > [data-a="1"]', swap="afterbegin")
    assert await received(layer, channel) == {
        "type": "html.fragment",
        "html": '<div hx-swap-oob="afterbegin:#list &gt; [data-a=&quot;1&quot;]"><li>&lt;b&gt;&amp;</li></div>',
    }
    await asyncio.to_thread(broadcast_html, "room", "whole.html", {"text": "up"}, event="status")
    assert await received(layer, channel) == {
        "type": "html.fragment",
        "html": '<p id="status" hx-swap-oob="true">up</p>',
        "event": "status",
    }
    await abroadcast_html("room", "row.html", {"text": 1}, target="#rows", wrap="tbody", exclude=[channel])
    await abroadcast_html("room", "row.html", {"text": 2}, target="#rows", wrap="tbody")
    assert (await received(layer, channel))["html"] == '<tbody hx-swap-oob="beforeend:#rows"><li>2</li></tbody>'


@pytest.mark.django_db(transaction=True)
def test_it_leaves_after_the_commit(layer: InMemoryChannelLayer) -> None:
    with transaction.atomic():
        assert broadcast_html("room", "row.html", {"text": 1}, target="#list").state == "deferred"
    assert broadcast_html("room", "row.html", {"text": 1}, target="#list").state == "sent"


@pytest.mark.parametrize(
    ("options", "said"),
    [
        ({"swap": "sideways"}, "swap: expected one of"),
        ({"target": " "}, "target: expected a CSS selector"),
        ({"wrap": "div onclick=x"}, "wrap: expected the name of an element"),
    ],
)
def test_wrong_words_are_errors_at_the_call(layer: InMemoryChannelLayer, options: Any, said: str) -> None:
    with pytest.raises(ValueError, match=said):
        broadcast_html("room", "row.html", {}, **options)


def test_a_template_that_does_not_exist_is_an_error_at_the_call(layer: InMemoryChannelLayer) -> None:
    with pytest.raises(TemplateDoesNotExist):
        broadcast_html("room", "none.html")


def test_a_fragment_that_names_no_place_is_warned_of_once(
    layer: InMemoryChannelLayer, settings: Any, caplog: pytest.LogCaptureFixture
) -> None:
    settings.DEBUG = True
    for _ in range(2):
        broadcast_html("room", "nowhere.html", {"text": 1})
        broadcast_html("room", "whole.html", {"text": 1})
    assert caplog.text.count("names no place") == 1


async def test_a_websocket_gets_the_same_text(layer: InMemoryChannelLayer) -> None:
    class Page(HtmlConsumer):
        groups = ("room",)

    async with Client(Page.as_asgi()) as one, Client(Page.as_asgi()) as two:
        await one.connect()
        await two.connect()
        await abroadcast_html("room", "whole.html", {"text": "<up>"})
        for client in (one, two):
            assert await client.next_text() == '<p id="status" hx-swap-oob="true">&lt;up&gt;</p>'
