from __future__ import annotations

import logging
from typing import Any

import pytest
from django.core.exceptions import ImproperlyConfigured
from django.urls import include
from django.urls.exceptions import Resolver404

from antiphon.generic.websocket import AsyncWebsocketConsumer
from antiphon.middleware import BaseMiddleware
from antiphon.routing import ChannelNameRouter, ProtocolTypeRouter, URLRouter, get_default_application
from tests.django.asgi import DENIED, Recorder, http, path, play, re_path, websocket


async def test_a_path_reaches_its_application_with_what_the_pattern_captured() -> None:
    app = Recorder()
    router = URLRouter([path("ws/room/<int:room>/", app, kwargs={"kind": "chat"})])
    await play(router, websocket("/ws/room/7/"))
    assert app.scope["url_route"] == {"args": (), "kwargs": {"room": 7, "kind": "chat"}}
    assert app.scope["path_remaining"] == ""


async def test_the_slash_at_the_beginning_may_be_missing() -> None:
    app = Recorder()
    await play(URLRouter([path("ws/", app)]), websocket("ws/"))
    assert app.scopes


async def test_an_unknown_websocket_path_is_denied_with_one_line_that_names_near_routes(
    caplog: pytest.LogCaptureFixture,
) -> None:
    router = URLRouter([path("ws/chat/<room>/", Recorder()), path("ws/news/", Recorder())])
    assert await play(router, websocket("/ws/chta/lobby/\n")) == DENIED
    [record] = caplog.records
    assert record.name == "antiphon.routing"
    assert record.levelno == logging.WARNING
    assert record.getMessage() == "WebSocket '/ws/chta/lobby/\\n' denied: no route matches; near: 'ws/chat/<room>/'"


async def test_near_routes_are_looked_for_behind_middleware_and_in_nested_routers(
    caplog: pytest.LogCaptureFixture,
) -> None:
    router = URLRouter([path("ws/", BaseMiddleware(URLRouter([re_path(r"^lobby/$", Recorder())])))])
    assert await play(router, websocket("/ws/loby/")) == DENIED
    assert "near: 'ws/lobby/'" in caplog.text


async def test_an_unknown_http_path_is_a_404() -> None:
    start, body = await play(URLRouter([]), http("/nowhere/"))
    assert (start["status"], body["body"]) == (404, b"Not Found")


@pytest.mark.usefixtures("compat")
async def test_an_unknown_path_raises_where_the_way_of_channels_holds() -> None:
    with pytest.raises(ValueError, match="No route found for path '/nowhere/'"):
        await play(URLRouter([]), websocket("/nowhere/"))


async def test_a_router_behind_middleware_is_nested_without_marks() -> None:
    app = Recorder()
    inner = URLRouter([path("room/<name>/", app)])
    outer = URLRouter([path("<int:site>/", BaseMiddleware(BaseMiddleware(inner)))])
    await play(outer, websocket("/3/room/lobby/"))
    assert app.scope["url_route"]["kwargs"] == {"site": 3, "name": "lobby"}


async def test_the_routes_of_the_caller_stay_as_they_were() -> None:
    route: Any = path("a/", URLRouter([]))
    pattern = route.pattern
    URLRouter([route])
    assert route.pattern is pattern
    assert pattern._is_endpoint


async def test_a_nested_router_without_a_match_lets_the_next_route_try() -> None:
    app = Recorder()
    router = URLRouter([path("a/", URLRouter([path("b/", Recorder())])), path("a/c/", app)])
    await play(router, websocket("/a/c/"))
    assert app.scopes


async def test_a_resolver404_of_the_application_is_not_swallowed() -> None:
    async def broken(scope: Any, receive: Any, send: Any) -> None:
        raise Resolver404("of the application")

    other = Recorder()
    router = URLRouter([path("", URLRouter([path("a/", broken)])), path("a/", other)])
    with pytest.raises(Resolver404, match="of the application"):
        await play(router, websocket("/a/"))
    assert not other.scopes


@pytest.mark.parametrize("root_path", ["/mount", "/mount/"])
async def test_the_path_a_server_is_mounted_at_is_cut_off_once(root_path: str) -> None:
    app = Recorder()
    router = URLRouter([path("ws/", app)])
    await play(router, websocket("/mount/ws/", root_path=root_path))
    assert app.scopes
    assert await play(router, websocket("/mount/mount/ws/", root_path=root_path)) == DENIED
    assert await play(router, websocket("/mountws/", root_path=root_path)) == DENIED


async def test_a_scope_without_a_path_is_an_error() -> None:
    with pytest.raises(ValueError, match="No 'path' key"):
        await play(URLRouter([]), {"type": "websocket"})


def test_include_is_refused() -> None:
    with pytest.raises(ImproperlyConfigured, match="Use nested URLRouter"):
        URLRouter([path("", include([]))])


async def test_protocols_are_told_apart() -> None:
    ws, web = Recorder(), Recorder()
    router = ProtocolTypeRouter({"websocket": ws, "http": web})
    await play(router, websocket())
    await play(router, http())
    assert (len(ws.scopes), len(web.scopes)) == (1, 1)


async def test_lifespan_is_answered_without_being_mapped() -> None:
    sent = await play(
        ProtocolTypeRouter({}), {"type": "lifespan"}, {"type": "lifespan.startup"}, {"type": "lifespan.shutdown"}
    )
    assert [message["type"] for message in sent] == ["lifespan.startup.complete", "lifespan.shutdown.complete"]


async def test_an_unmapped_type_names_what_is_mapped() -> None:
    with pytest.raises(ValueError, match="No application configured for scope type 'aprs'; mapped: http"):
        await play(ProtocolTypeRouter({"http": Recorder()}), {"type": "aprs"}, {"type": "aprs.ping"})


async def test_a_websocket_at_an_application_for_http_alone_is_denied_with_one_line(
    caplog: pytest.LogCaptureFixture,
) -> None:
    assert await play(ProtocolTypeRouter({"http": Recorder()}), websocket("/ws/")) == DENIED
    [record] = caplog.records
    assert "maps only http" in record.getMessage()
    assert "asgi_application" in record.getMessage()


@pytest.mark.usefixtures("compat")
async def test_an_unmapped_websocket_raises_where_the_way_of_channels_holds() -> None:
    with pytest.raises(ValueError, match="'websocket'"):
        await play(ProtocolTypeRouter({"http": Recorder()}), websocket("/ws/"))


async def test_worker_channels_are_told_apart() -> None:
    app = Recorder()
    router = ChannelNameRouter({"thumbnails": app})
    await play(router, {"type": "channel", "channel": "thumbnails"}, {"type": "x"})
    assert app.scopes
    with pytest.raises(ValueError, match="'mail'; mapped: thumbnails"):
        await play(router, {"type": "channel", "channel": "mail"}, {"type": "x"})
    with pytest.raises(ValueError, match="without a 'channel' key"):
        await play(router, {"type": "http"}, {"type": "x"})


def test_the_default_application_is_the_one_the_setting_names(settings: Any) -> None:
    settings.ASGI_APPLICATION = "tests.django.asgi.play"
    application: Any = get_default_application()
    assert application is play


@pytest.mark.parametrize(
    ("value", "message"),
    [
        (None, "Cannot find ASGI_APPLICATION"),
        ("nodots", "Cannot find ASGI_APPLICATION"),
        ("tests.nowhere.application", "Cannot import ASGI_APPLICATION module 'tests.nowhere': No module named"),
        ("tests.django.asgi.nothing", "Cannot find 'nothing' in ASGI_APPLICATION module tests.django.asgi"),
    ],
)
def test_a_wrong_default_application_says_what_is_wrong(settings: Any, value: Any, message: str) -> None:
    settings.ASGI_APPLICATION = value
    with pytest.raises(ImproperlyConfigured, match=message):
        get_default_application()


def test_a_consumer_class_in_place_of_its_application_is_refused_at_the_start() -> None:
    with pytest.raises(ImproperlyConfigured, match=r"AsyncWebsocketConsumer\.as_asgi\(\)"):
        URLRouter([path("ws/", AsyncWebsocketConsumer)])
