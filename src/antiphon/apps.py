"""The app configuration, where Django looks for it: the public door of :mod:`antiphon.django.apps`."""

from __future__ import annotations

from .django.apps import AntiphonConfig

__all__ = ["AntiphonConfig"]
