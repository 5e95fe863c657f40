"""``manage.py runserver``: the door of :mod:`antiphon.django.commands.runserver`."""

from __future__ import annotations

from ...django.commands.runserver import Command

__all__ = ["Command"]
