"""``runworker`` of the app ``channels``: the same command as that of the app ``antiphon``."""

from __future__ import annotations

from antiphon.django.commands.runworker import Command, logger

__all__ = ["Command", "logger"]
