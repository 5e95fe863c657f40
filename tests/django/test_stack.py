from __future__ import annotations

from typing import Any

import pytest
from django.core.exceptions import ImproperlyConfigured

from antiphon.routing import asgi_application
from tests.django.asgi import DENIED, Recorder, http, path, play, websocket

ORIGIN: Any = {"headers": [(b"origin", b"http://localhost:8000")]}

app_by_path = Recorder()
urlpatterns = [path("ws/", app_by_path)]


@pytest.mark.django_db(transaction=True)
async def test_one_line_gives_origin_check_session_and_user() -> None:
    app = Recorder()
    application = asgi_application([path("ws/", app)])
    await play(application, websocket("/ws/", **ORIGIN))
    assert app.scope["user"].is_anonymous
    assert app.scope["session"].session_key is None
    assert await play(application, websocket("/ws/", headers=[(b"origin", b"http://evil.test")])) == DENIED
    # A browser always says where it comes from; a client with neither that nor a cookie has nothing to misuse.
    assert await play(application, websocket("/ws/", headers=[(b"cookie", b"sessionid=x")])) == DENIED
    assert (await play(application, websocket("/ws/")))[0]["type"] == "websocket.accept"


@pytest.mark.django_db(transaction=True)
async def test_it_serves_the_views_and_lifespan() -> None:
    application = asgi_application([])
    sent = await play(application, http("/", headers=[(b"host", b"testserver")]))
    assert (sent[0]["status"], sent[1]["body"]) == (200, b"anonymous")
    sent = await play(application, {"type": "lifespan"}, {"type": "lifespan.startup"}, {"type": "lifespan.shutdown"})
    assert len(sent) == 2


async def test_routes_may_be_named_so_that_they_are_imported_after_setup() -> None:
    application = asgi_application(f"{__name__}.urlpatterns", middleware=lambda inner: inner)
    await play(application, websocket("/ws/", **ORIGIN))
    assert app_by_path.scopes


@pytest.mark.parametrize("routes", ["tests.nowhere.urlpatterns", f"{__name__}.ORIGIN", 7, "tests"])
def test_wrong_routes_say_what_was_expected(routes: Any) -> None:
    with pytest.raises(ImproperlyConfigured, match="asgi_application: "):
        asgi_application(routes)


async def test_worker_channels_and_another_http_side_can_be_given() -> None:
    worker, web = Recorder(), Recorder("web")
    application = asgi_application([], http=web, channels={"thumbnails": worker})
    await play(application, {"type": "channel", "channel": "thumbnails"}, {"type": "x"})
    await play(application, http())
    assert worker.scopes
    assert web.scopes


async def test_allowed_origins_come_from_the_argument_then_the_option(
    settings: Any, caplog: pytest.LogCaptureFixture
) -> None:
    def build(**kwargs: Any) -> Any:
        return asgi_application([path("", Recorder())], middleware=lambda inner: inner, **kwargs)

    settings.ANTIPHON = {"allowed_origins": ["https://app.example.com"]}
    app_origin: Any = {"headers": [(b"origin", b"https://app.example.com")]}
    assert await play(build(), websocket(**app_origin)) != DENIED
    assert await play(build(), websocket(**ORIGIN)) == DENIED
    assert 'add it to ANTIPHON["allowed_origins"]' in caplog.text
    assert await play(build(allowed_origins=["localhost"]), websocket(**ORIGIN)) != DENIED
