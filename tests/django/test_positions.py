"""Positions in pages: read before the view's data, printed by the tag, presented by the page."""

from __future__ import annotations

import json
from collections.abc import Iterator
from typing import Any

import pytest
from asgiref.sync import sync_to_async
from django.http import HttpRequest, HttpResponse
from django.template import Context, RequestContext, Template
from django.template.response import SimpleTemplateResponse
from django.test import RequestFactory

from antiphon.consumers.position_tokens import NOWHERE
from antiphon.exceptions import EngineUnavailable, OptionError
from antiphon.layers import InMemoryChannelLayer, channel_layers
from antiphon.positions import group_positions, positions_of, token_position
from antiphon.types import Position

PAGE = Template('{% load antiphon %}{% group_position "room" %}')


@pytest.fixture
def layer() -> Iterator[InMemoryChannelLayer]:
    layer = InMemoryChannelLayer(groups={"room*": {"history_size": 50}})
    before = channel_layers.set("default", layer)
    yield layer
    if before is None:
        channel_layers.backends.pop("default")
    else:
        channel_layers.set("default", before)


@pytest.fixture
def request_() -> HttpRequest:
    return RequestFactory().get("/")


def send(layer: InMemoryChannelLayer, group: str = "room") -> None:
    from antiphon import group_send

    group_send(group, {"type": "t"})


def rendered(page: Template, request: HttpRequest) -> str:
    return page.render(RequestContext(request, {"request": request}))


def test_a_page_has_the_position_from_before_its_data(layer: InMemoryChannelLayer, request_: HttpRequest) -> None:
    send(layer)
    with group_positions(request_, "room") as positions:
        send(layer)  # it comes while the view reads: it may be in the data or not, so the page recovers it
    token = rendered(PAGE, request_)
    assert token_position(token, "room") == positions["room"]
    assert positions["room"].offset == 1


async def test_an_asynchronous_view_reads_them_too(layer: InMemoryChannelLayer, request_: HttpRequest) -> None:
    await layer.group_send("room", {"type": "t"})
    async with group_positions(request_, "room") as positions:
        pass
    assert positions == {"room": await layer.position("room")}


def test_the_decorator_takes_the_names_from_the_views_arguments(
    layer: InMemoryChannelLayer, request_: HttpRequest
) -> None:
    @group_positions("room_{name}", lambda request, name: f"room2_{name}")
    def view(request: HttpRequest, name: str) -> SimpleTemplateResponse:
        """Show a room."""
        page = Template('{% load antiphon %}{% group_position "room_a" "room2_a" %}')
        return SimpleTemplateResponse(page, RequestContext(request, {"request": request}))  # type: ignore[arg-type]

    assert view.__doc__ == "Show a room."
    for response in (view(request_, "a"), view(request_, name="a")):
        token = rendered(Template('{% load antiphon %}{% group_position "room_a" "room2_a" %}'), request_)
        assert response.status_code == 200
        assert {p.offset for p in positions_of(token, ["room_a", "room2_a"]).values()} == {0}


async def test_the_decorator_takes_asynchronous_views(layer: InMemoryChannelLayer, request_: HttpRequest) -> None:
    @group_positions("room_{name}")
    async def view(request: HttpRequest, name: str) -> HttpResponse:
        page = Template('{% load antiphon %}{% group_position "room_b" %}')
        return HttpResponse(await sync_to_async(rendered)(page, request))

    response = await view(request_, name="b")
    assert token_position(response.content.decode(), "room_b").offset == 0


def test_the_first_reading_counts(layer: InMemoryChannelLayer, request_: HttpRequest) -> None:
    with group_positions(request_, "room"):
        send(layer)
        with group_positions(request_, "room", "room2") as inner:
            assert inner["room"].offset == 0


def test_json_for_clients_of_other_protocols(layer: InMemoryChannelLayer, request_: HttpRequest) -> None:
    send(layer)
    with group_positions(request_, "room") as positions:
        pass
    page = Template('{% load antiphon %}{% group_position_json "room" as since %}<script>{{ since }}</script>')
    text = rendered(page, request_).removeprefix("<script>").removesuffix("</script>")
    assert Position(**json.loads(text)) == positions["room"]


@pytest.mark.parametrize(
    ("page", "said"),
    [
        ('{% load antiphon %}{% group_position "other" %}', "'other' was not read"),
        ("{% load antiphon %}{% group_position %}", "expected the name of a group"),
    ],
)
def test_what_was_not_read_is_said(layer: InMemoryChannelLayer, request_: HttpRequest, page: str, said: str) -> None:
    with group_positions(request_, "room"):
        pass
    with pytest.raises(ValueError, match=said):
        rendered(Template(page), request_)
    with pytest.raises(ValueError, match="has no request"):
        PAGE.render(Context())


@pytest.mark.parametrize(
    ("names", "error"), [((), TypeError), ((7,), TypeError), (("white space",), TypeError), (("plain",), OptionError)]
)
def test_wrong_names_are_errors_at_the_call(
    layer: InMemoryChannelLayer, request_: HttpRequest, names: Any, error: type[Exception]
) -> None:
    with pytest.raises(error), group_positions(request_, *names):
        pass


def test_a_page_is_rendered_while_the_engine_is_away(
    layer: InMemoryChannelLayer,
    request_: HttpRequest,
    monkeypatch: pytest.MonkeyPatch,
    caplog: pytest.LogCaptureFixture,
) -> None:
    def away(*args: Any) -> Any:
        raise EngineUnavailable("away")

    monkeypatch.setattr(layer, "positions_blocking", away)
    with group_positions(request_, "room"):
        pass
    assert token_position(rendered(PAGE, request_), "room") == NOWHERE
    assert "will not recover" in caplog.text


def test_another_secret_reads_nothing(layer: InMemoryChannelLayer, request_: HttpRequest, settings: Any) -> None:
    with group_positions(request_, "room") as positions:
        pass
    token = rendered(PAGE, request_)
    old, settings.SECRET_KEY = settings.SECRET_KEY, "new"
    assert token_position(token, "room") == NOWHERE
    settings.SECRET_KEY_FALLBACKS = [old]
    assert token_position(token, "room") == positions["room"]
    assert token_position(token, "room2") == NOWHERE
