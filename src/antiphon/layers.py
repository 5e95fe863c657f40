"""Channel layers: what ``CHANNEL_LAYERS`` names and ``get_channel_layer`` returns."""

from .layer.base import BaseChannelLayer
from .layer.layer import ChannelLayer
from .layer.members import Channels, Count
from .layer.memory import InMemoryChannelLayer
from .layer.registry import DEFAULT_CHANNEL_LAYER, ChannelLayerManager, channel_layers, get_channel_layer

__all__ = [
    "DEFAULT_CHANNEL_LAYER",
    "BaseChannelLayer",
    "ChannelLayer",
    "ChannelLayerManager",
    "Channels",
    "Count",
    "InMemoryChannelLayer",
    "channel_layers",
    "get_channel_layer",
]
