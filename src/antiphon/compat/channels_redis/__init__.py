"""What ``import channels_redis`` gives under ``install_as_channels()``. The version is that of the interface matched."""

from __future__ import annotations

from typing import Final

__all__ = ["__version__"]

__version__: Final[str] = "4.3.0"
