"""What ``"daphne"`` in INSTALLED_APPS gives under ``install_as_channels()`` where Daphne is not installed."""

from __future__ import annotations
