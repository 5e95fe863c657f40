"""What ``import channels`` gives under ``install_as_channels()``. The version is that of the interface matched."""

from __future__ import annotations

from typing import Final

__all__ = ["DEFAULT_CHANNEL_LAYER", "__version__"]

__version__: Final[str] = "4.3.2"

DEFAULT_CHANNEL_LAYER: Final[str] = "default"
