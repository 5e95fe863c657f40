"""The app ``daphne``: it only brings the command ``runserver``, as the real one does."""

from __future__ import annotations

from django.apps import AppConfig

__all__ = ["DaphneConfig"]


class DaphneConfig(AppConfig):
    """The app ``daphne``; its ``runserver`` is Antiphon's."""

    name = "daphne"
    verbose_name = "Daphne (Antiphon's stand-in)"
