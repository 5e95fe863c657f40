"""``manage.py demo``: everything a first look needs, in one process."""

from django.core.management import call_command
from django.core.management.base import BaseCommand, CommandError

from stage import people


class Command(BaseCommand):
    help = "Prepare the database, create Ada and Grace, and serve the showcase on 127.0.0.1."

    def add_arguments(self, parser):
        parser.add_argument("--port", type=int, default=8000, help="Port to listen on (default: 8000).")

    def handle(self, *, port, **options):
        if not 0 < port < 65536:
            raise CommandError(f"--port: expected 1 to 65535; got {port}")
        call_command("migrate", interactive=False, verbosity=0)
        people.seed()
        self.stdout.write(self.style.SUCCESS(f"Open http://127.0.0.1:{port}/  (stop with Ctrl-C)"))
        self.stdout.flush()
        # No reload: the pages show that they survive a restart, and you choose when. `runserver` reloads.
        call_command("runserver", f"127.0.0.1:{port}", use_reloader=False)
