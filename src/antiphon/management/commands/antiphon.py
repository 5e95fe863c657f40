"""``manage.py antiphon``: the door of :mod:`antiphon.django.commands.antiphon`."""

from __future__ import annotations

from ...django.commands.antiphon import Command

__all__ = ["Command"]
