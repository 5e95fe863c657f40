"""``LiveServerTestCase``: Django's, with WebSockets. This module needs Django; nothing imports it unasked.

The server is a thread of the test's process, so the application and the test share settings, layers, patches and the
test database.
"""

from __future__ import annotations

from typing import Any, ClassVar

from django.contrib.staticfiles.handlers import ASGIStaticFilesHandler
from django.test.testcases import TransactionTestCase
from django.test.utils import modify_settings
from django.utils.functional import classproperty

from ..django.routing import get_default_application
from .connections import in_memory, shared_connections
from .server import LiveServer

__all__ = ["ChannelsLiveServerTestCase", "LiveServerTestCase"]


class LiveServerTestCase(TransactionTestCase):
    """A TransactionTestCase with the project's ASGI application behind real sockets, one server a class.

    ``host``, ``port`` (0: a free one); ``application``: the one to serve, else that of ``ASGI_APPLICATION``;
    ``serve_static``: serve the static files of the installed apps, through ``static_wrapper``. SQLite in memory works:
    the server's threads use the connections of the test, as with Django's own live server.
    """

    host: ClassVar[str] = "localhost"
    port: ClassVar[int] = 0
    application: ClassVar[Any] = None
    serve_static: ClassVar[bool] = True
    static_wrapper: ClassVar[Any] = ASGIStaticFilesHandler
    # Channels starts a process with it; here it may be set, and is not used.
    ProtocolServerProcess: ClassVar[Any] = LiveServer
    server: ClassVar[LiveServer]

    @classproperty
    def live_server_url(cls) -> str:  # noqa: N805 - a property of the class
        """The address of the server, without a slash at the end."""
        return cls.server.url

    @classproperty
    def live_server_ws_url(cls) -> str:  # noqa: N805 - a property of the class
        """The same for WebSockets."""
        return cls.server.ws_url

    @classmethod
    def setUpClass(cls) -> None:
        """Start the server."""
        super().setUpClass()
        cls.enterClassContext(modify_settings(ALLOWED_HOSTS={"append": cls.host}))
        cls.enterClassContext(shared_connections(in_memory))
        application = cls.application or get_default_application()
        if cls.serve_static:
            application = cls.static_wrapper(application)
        cls.server = LiveServer(application, cls.host, cls.port)
        cls.server.start()
        cls.addClassCleanup(cls.server.stop)


ChannelsLiveServerTestCase = LiveServerTestCase
