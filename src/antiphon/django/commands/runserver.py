"""``manage.py runserver``: Django's own, with uvicorn under it, so that it serves ASGI and WebSockets."""

from __future__ import annotations

import errno
import os
import socket
import sys
from importlib.metadata import version
from importlib.util import find_spec
from typing import Any

from django.apps import apps
from django.conf import settings
from django.core.management.base import BaseCommand, CommandError, CommandParser
from django.core.management.commands import runserver
from django.db import connections
from django.utils import autoreload

from ...exceptions import MissingExtra
from ...types import ASGIApplication
from ..development import DevelopmentApplication
from ..routing import get_default_application

__all__ = ["Command"]

# The same words as Django's.
_BIND_ERRORS = {
    errno.EACCES: "You don't have permission to access that port.",
    errno.EADDRINUSE: "That port is already in use.",
    errno.EADDRNOTAVAIL: "That IP address can't be assigned to.",
}

# Ctrl-C should end the server, not wait for the pages that are still open.
_GRACE_S = 1


class Command(runserver.Command):
    """Serve ``ASGI_APPLICATION`` for development, with reload; static files as well, where Django's app for them is."""

    # What Django's handle() leaves for the rest.
    addr: str
    port: str
    use_ipv6: bool

    help = "Starts a development server for the project's ASGI application: HTTP and WebSockets."

    def add_arguments(self, parser: CommandParser) -> None:
        """Take Django's arguments, and those of the runserver for static files."""
        super().add_arguments(parser)
        if apps.is_installed("django.contrib.staticfiles"):
            parser.add_argument(
                "--nostatic",
                action="store_false",
                dest="use_static_handler",
                help="Tells Django to NOT automatically serve static files at STATIC_URL.",
            )
            parser.add_argument(
                "--insecure",
                action="store_true",
                dest="insecure_serving",
                help="Allows serving static files even if DEBUG is False.",
            )

    def handle(self, *args: Any, **options: Any) -> None:
        """Check that there is a server to run, and run it."""
        if find_spec("uvicorn") is None:
            raise CommandError(str(MissingExtra.of("uvicorn", "server", "runserver")))
        if not getattr(settings, "ASGI_APPLICATION", None):
            raise CommandError(
                'You must set settings.ASGI_APPLICATION, the dotted path of the application, such as "mysite.asgi.application".'
            )
        super().handle(*args, **options)

    def get_handler(self, *args: Any, **options: Any) -> ASGIApplication:  # type: ignore[override]  # ASGI, not WSGI
        """Return the application to serve."""
        wanted = options.get("use_static_handler", False)
        serve_static = wanted and (settings.DEBUG or options.get("insecure_serving", False))
        return DevelopmentApplication(get_default_application(), serve_static=serve_static)

    def inner_run(self, *args: Any, **options: Any) -> None:
        """Check the project and serve it: what the reloader starts again after each change."""
        autoreload.raise_last_exception()
        if not options["skip_checks"]:
            self.stdout.write("Performing system checks...\n\n")
            # Django's runserver asks for no checks before the reloader starts, and for all of them here.
            what: Any = BaseCommand.get_check_kwargs(self, options)
            self.check(**what, display_num_errors=True)
        self.check_migrations()
        for connection in connections.all(initialized_only=True):
            connection.close()
        try:
            handler = self.get_handler(*args, **options)
            listener = self._bind()
        except OSError as exc:
            self.stderr.write(f"Error: {_BIND_ERRORS.get(exc.errno or 0, exc)}")
            # The reloader runs this on a thread, from which sys.exit() would not end the process.
            os._exit(1)
        try:
            self.stdout.write(
                f"Serving {settings.ASGI_APPLICATION} with uvicorn {version('uvicorn')}: HTTP and WebSockets\n"
            )
            self.on_bind(listener.getsockname()[1])
            self._serve(handler, listener)
        except KeyboardInterrupt:
            pass
        finally:
            listener.close()
        if options.get("shutdown_message"):
            self.stdout.write(options["shutdown_message"])
        if not options["use_reloader"]:
            sys.exit(0)

    def _bind(self) -> socket.socket:
        """Open the port ourselves: uvicorn would end the process with words of its own."""
        family = socket.AF_INET6 if self.use_ipv6 else socket.AF_INET
        return socket.create_server((self.addr, int(self.port)), family=family, backlog=2048)

    def _serve(self, handler: ASGIApplication, listener: socket.socket) -> None:
        import uvicorn

        from ...server import HTTPProtocol, WebSocketProtocol

        config = uvicorn.Config(
            handler,
            http=HTTPProtocol,
            ws=WebSocketProtocol,
            log_config=None,  # the project's LOGGING is in force already
            access_log=False,  # DevelopmentApplication writes Django's line
            timeout_graceful_shutdown=_GRACE_S,
            proxy_headers=False,
            server_header=False,
        )
        uvicorn.Server(config).run(sockets=[listener])
