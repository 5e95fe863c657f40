"""The application a server runs: Django for HTTP, the consumers of ``routing.py`` for WebSockets."""

import os

from antiphon.auth import AuthMiddlewareStack
from antiphon.routing import asgi_application

from stage.sides import Sides, SideUser

os.environ.setdefault("DJANGO_SETTINGS_MODULE", "showcase.settings")


def who(routes):
    """Session and user, then the two windows' users. Without windows: leave ``middleware`` out, this is its default."""
    return AuthMiddlewareStack(SideUser(routes))


application = Sides(asgi_application("showcase.routing.websocket_urlpatterns", middleware=who))
