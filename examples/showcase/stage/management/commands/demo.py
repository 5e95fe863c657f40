"""``manage.py demo``: everything a first look needs, in as many processes as you like."""

import asyncio
import os
import socket

from antiphon.exceptions import MissingExtra
from antiphon.layers import get_channel_layer
from django.conf import settings
from django.core.management import call_command
from django.core.management.base import BaseCommand, CommandError
from django.db import connections

from stage import people


class Command(BaseCommand):
    help = "Prepare the database, create Ada and Grace, and serve the showcase on 127.0.0.1."

    def add_arguments(self, parser):
        parser.add_argument("--port", type=int, default=8000, help="Port to listen on (default: 8000).")
        parser.add_argument("--workers", type=int, default=2, help="Processes that serve (default: 2).")

    def handle(self, *, port, workers, **options):
        if not 0 < port < 65536:
            raise CommandError(f"--port: expected 1 to 65535; got {port}")
        if workers < 1:
            raise CommandError(f"--workers: expected 1 or more; got {workers}")
        try:
            get_channel_layer()
        except MissingExtra as exc:
            raise CommandError(f"{exc}\nHere, LAYER=memory serves from one process.") from exc
        call_command("migrate", interactive=False, verbosity=0)
        people.seed()
        connections.close_all()
        welcome = self.style.SUCCESS(f"Open http://127.0.0.1:{port}/  (stop with Ctrl-C)")
        if settings.LAYER == "memory":
            self.say(welcome)
            # No reload: the pages show that they survive a restart, and you choose when. `runserver` reloads.
            call_command("runserver", f"127.0.0.1:{port}", use_reloader=False)
            return
        from stage.supervisor import Supervisor  # what it needs does not exist on Windows, where LAYER is memory

        try:
            listener = socket.create_server(("127.0.0.1", port), backlog=2048)
        except OSError as exc:
            raise CommandError(f"Port {port}: {os.strerror(exc.errno)}") from exc
        self.say(welcome)

        async def serve():
            await Supervisor(listener, workers, self.say).run()

        asyncio.run(serve())

    def say(self, line):
        """Print a line at once, even into a file."""
        self.stdout.write(line)
        self.stdout.flush()
