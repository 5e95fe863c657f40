"""Channel layers: what ``CHANNEL_LAYERS`` names and ``get_channel_layer`` returns."""

from .layer.base import BaseChannelLayer
from .layer.embedded import EmbeddedChannelLayer
from .layer.layer import ChannelLayer
from .layer.losses import Loss
from .layer.members import Channels, Count, Described
from .layer.memory import InMemoryChannelLayer
from .layer.redis import RedisChannelLayer
from .layer.registry import DEFAULT_CHANNEL_LAYER, ChannelLayerManager, channel_layers, get_channel_layer
from .layer.worker_channels import Lease

__all__ = [
    "DEFAULT_CHANNEL_LAYER",
    "BaseChannelLayer",
    "ChannelLayer",
    "ChannelLayerManager",
    "Channels",
    "Count",
    "Described",
    "EmbeddedChannelLayer",
    "InMemoryChannelLayer",
    "Lease",
    "Loss",
    "RedisChannelLayer",
    "channel_layers",
    "get_channel_layer",
]
