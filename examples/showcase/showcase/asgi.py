"""The application a server runs: Django for HTTP, the consumers of ``routing.py`` for WebSockets."""

import os

from antiphon.auth import AuthMiddlewareStack
from antiphon.routing import asgi_application

from stage.nameplate import Nameplate
from stage.sides import Sides, SideUser

os.environ.setdefault("DJANGO_SETTINGS_MODULE", "showcase.settings")


def who(routes):
    """Session and user, then what only the demo needs. An application leaves ``middleware`` out: the first is its default."""
    return AuthMiddlewareStack(SideUser(Nameplate(routes)))


application = Sides(asgi_application("showcase.routing.websocket_urlpatterns", middleware=who))
