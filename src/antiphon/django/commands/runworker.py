"""``manage.py runworker``: consumers that read worker channels instead of serving a client."""

from __future__ import annotations

import logging
from argparse import ArgumentTypeError
from typing import Any

from django.core.exceptions import ImproperlyConfigured
from django.core.management import BaseCommand, CommandError, CommandParser

from ...consumers.worker import Worker
from ...exceptions import InvalidChannelLayerError
from ...layer.memory import InMemoryChannelLayer
from ...layer.registry import DEFAULT_CHANNEL_LAYER, get_channel_layer
from ..routing import get_default_application

__all__ = ["Command"]

logger = logging.getLogger("antiphon.worker")


def _positive(text: str) -> int:
    try:
        number = int(text)
    except ValueError:
        number = 0
    if number < 1:
        raise ArgumentTypeError(f"expected a whole number above 0; got {text!r}")
    return number


class Command(BaseCommand):
    """Read worker channels, and hand each message to the consumer that ChannelNameRouter names."""

    help = "Reads worker channels and runs their consumers (the 'channel' part of ASGI_APPLICATION)."
    leave_locale_alone = True
    worker_class: type[Worker] = Worker

    def add_arguments(self, parser: CommandParser) -> None:
        """Take the channels, the layer, and how many messages a channel may have in work."""
        parser.add_argument("channels", nargs="+", help="Channels to listen on.")
        parser.add_argument(
            "--layer",
            default=DEFAULT_CHANNEL_LAYER,
            help="Channel layer alias to use, if not the default.",
        )
        parser.add_argument(
            "--concurrency",
            type=_positive,
            default=1,
            metavar="N",
            help="How many messages of one channel are worked on at a time (default: 1, in order).",
        )

    def handle(self, *args: Any, **options: Any) -> None:
        """Run until stopped."""
        self.verbosity = options.get("verbosity", 1)
        alias = options.get("layer", DEFAULT_CHANNEL_LAYER)
        try:
            self.channel_layer = get_channel_layer(alias)
        except InvalidChannelLayerError as exc:
            raise CommandError(str(exc)) from exc
        if self.channel_layer is None:
            raise CommandError("You do not have any CHANNEL_LAYERS configured.")
        if isinstance(self.channel_layer, InMemoryChannelLayer):
            raise CommandError(
                f"The layer {alias!r} is in memory: what other processes send never reaches this one. Configure a "
                "layer that crosses processes (embedded, Redis/Valkey), or run antiphon.worker.Worker inside the "
                "process that sends."
            )
        try:
            application = get_default_application()
        except ImproperlyConfigured as exc:
            raise CommandError(str(exc)) from exc
        channels = options["channels"]
        logger.info("Running worker for channels %s", channels)
        # Passed only when it was asked for: a worker_class written for Channels does not know it.
        more = {} if options["concurrency"] == 1 else {"concurrency": options["concurrency"]}
        self.worker_class(application=application, channels=channels, channel_layer=self.channel_layer, **more).run()
