"""The app that ``"channels"`` in INSTALLED_APPS gives. Its name stays, so ``apps.is_installed("channels")`` is true."""

from __future__ import annotations

from django.apps import AppConfig

from antiphon.django.apps import start

__all__ = ["ChannelsConfig"]


class ChannelsConfig(AppConfig):
    """The app ``channels``; it may stand beside the app ``antiphon``, and does the same where that one is missing."""

    name = "channels"
    verbose_name = "Channels"

    def ready(self) -> None:
        """Start."""
        start()
