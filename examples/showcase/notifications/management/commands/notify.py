"""``manage.py notify grace "Tea is ready"``: what a cron job or a shell would run."""

from django.contrib.auth import get_user_model
from django.core.management.base import BaseCommand, CommandError

from notifications.sending import notify


class Command(BaseCommand):
    help = "Send a notification to a user."

    def add_arguments(self, parser):
        parser.add_argument("recipient", help="Username of who gets it.")
        parser.add_argument("text")
        parser.add_argument("--sender", default="ada", help="Username of who sends it (default: ada).")

    def handle(self, *, recipient, text, sender, **options):
        users = get_user_model().objects.in_bulk([recipient, sender], field_name="username")
        for name in (recipient, sender):
            if name not in users:
                raise CommandError(f"No user {name!r}; `manage.py demo` creates ada and grace.")
        notify(users[sender], users[recipient], text, "command")
