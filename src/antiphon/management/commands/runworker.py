"""``manage.py runworker``: the door of :mod:`antiphon.django.commands.runworker`."""

from __future__ import annotations

from ...django.commands.runworker import Command

__all__ = ["Command"]
