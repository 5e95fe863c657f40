"""The application a server runs: Django's views, and the consumers of ``routing.py`` for WebSockets and event streams."""

import os

from antiphon.auth import AuthMiddlewareStack
from antiphon.routing import URLRouter, asgi_application
from django.core.asgi import get_asgi_application
from django.urls import path, re_path

from stage.nameplate import Nameplate
from stage.sides import Sides, SideUser

os.environ.setdefault("DJANGO_SETTINGS_MODULE", "showcase.settings")
views = get_asgi_application()  # before the consumers, which import models

from showcase.routing import event_urlpatterns, websocket_urlpatterns  # noqa: E402


def who(routes):
    """Session and user, then what only the demo needs. An application leaves ``middleware`` out: the first is its default."""
    return AuthMiddlewareStack(SideUser(Nameplate(routes)))


http = URLRouter([path("events/", who(URLRouter(event_urlpatterns))), re_path("", views)])
application = Sides(asgi_application(websocket_urlpatterns, http=http, middleware=who))
