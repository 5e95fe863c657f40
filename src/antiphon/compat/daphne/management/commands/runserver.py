"""``runserver`` of the app ``daphne``: the same command as that of the app ``antiphon``."""

from __future__ import annotations

from antiphon.django.commands.runserver import Command

__all__ = ["Command"]
