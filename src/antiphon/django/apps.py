"""The app: what happens once, when Django is ready."""

from __future__ import annotations

import logging

from django.apps import AppConfig, apps
from django.conf import settings

__all__ = ["AntiphonConfig", "note_missing_app", "start"]

# Whether start() ran, or its absence was noted: both happen once a process.
_settled = False


def start() -> None:
    """Register the system checks and connect the receivers. May be called again."""
    global _settled
    _settled = True
    from . import (
        checks,
        framework,  # noqa: F401  -- connects to setting_changed
        signals,
    )

    checks.register()
    signals.connect()
    if settings.DEBUG:
        _show_warnings()


def note_missing_app() -> None:
    """Log one line when Django is set up without the app, which start() would have been called by."""
    global _settled
    if not _settled and apps.ready:
        _settled = True
        if settings.DEBUG:
            _show_warnings()
        logging.getLogger("antiphon.server").warning(
            '"antiphon" is not in INSTALLED_APPS: there are no checks, no commands, and neither a log-out nor a changed '
            "password closes sockets. Put it first there"
        )


def _show_warnings() -> None:
    """Let a developer who configured no logging see warnings, as Django does with its own."""
    logger = logging.getLogger("antiphon")
    handlers = [*logger.handlers, *logging.getLogger().handlers]
    if logging.lastResort is not None and all(isinstance(handler, logging.NullHandler) for handler in handlers):
        logger.addHandler(logging.lastResort)


class AntiphonConfig(AppConfig):
    """``INSTALLED_APPS = ["antiphon", …]``, before ``django.contrib.staticfiles`` so that its runserver counts."""

    name = "antiphon"
    label = "antiphon"
    verbose_name = "Antiphon"

    def ready(self) -> None:
        """Start."""
        start()
