"""The layers of a process by alias, made on first use from the framework's settings. Knows no framework."""

from __future__ import annotations

import importlib
from collections.abc import Mapping
from typing import Any

from .. import framework
from ..exceptions import InvalidChannelLayerError, OptionError
from ..options import validate
from .memory import InMemoryChannelLayer

__all__ = ["DEFAULT_CHANNEL_LAYER", "ChannelLayerManager", "channel_layers", "configure", "get_channel_layer"]

DEFAULT_CHANNEL_LAYER = "default"


class ChannelLayerManager:
    """Makes layers from their configuration, one an alias: ``{"BACKEND": …, "CONFIG": {…}, "TEST_CONFIG": {…}}``."""

    def __init__(self) -> None:
        self.backends: dict[str, Any] = {}

    def _reset_backends(self, setting: str, **kwargs: Any) -> None:
        """Forget the layers when their settings change; a receiver of Django's ``setting_changed``."""
        if setting == "CHANNEL_LAYERS":
            self.backends = {}

    @property
    def configs(self) -> Mapping[str, Mapping[str, Any]]:
        """The configuration: alias -> its parts."""
        return framework.current().layer_configs()

    def make_backend(self, name: str) -> Any:
        """Make a layer from its ``CONFIG``; with nothing configured, ``default`` is the in-memory layer."""
        configs = self.configs
        if not configs and name == DEFAULT_CHANNEL_LAYER:
            return InMemoryChannelLayer()
        return self._make_backend(name, configs[name].get("CONFIG", {}))

    def make_test_backend(self, name: str) -> Any:
        """Make a layer from its ``TEST_CONFIG``."""
        try:
            config = self.configs[name]["TEST_CONFIG"]
        except KeyError:
            raise InvalidChannelLayerError(f"No TEST_CONFIG specified for {name}") from None
        return self._make_backend(name, config)

    def _make_backend(self, name: str, config: Mapping[str, Any]) -> Any:
        parts = self.configs[name]
        if "ROUTING" in parts:
            raise InvalidChannelLayerError(
                f"ROUTING key found for {name} - this is no longer needed in Channels 2. Routes belong to the ASGI "
                "application."
            )
        try:
            path = parts["BACKEND"]
        except KeyError:
            raise InvalidChannelLayerError(f"No BACKEND specified for {name}") from None
        module, _, attribute = path.rpartition(".")
        try:
            backend = getattr(importlib.import_module(module), attribute)
        except (ImportError, AttributeError, ValueError) as exc:
            raise InvalidChannelLayerError(f"Cannot import BACKEND {path!r} specified for {name}: {exc}") from exc
        return backend(**config)

    def __getitem__(self, key: str) -> Any:
        if key not in self.backends:
            self.backends[key] = self.make_backend(key)
        return self.backends[key]

    def __contains__(self, key: str) -> bool:
        return key in self.configs

    def set(self, key: str, layer: Any) -> Any:
        """Put ``layer`` (or None) under an alias; return the one it replaces, or None. For tests."""
        old = self.backends.get(key)
        self.backends[key] = layer
        return old


channel_layers = ChannelLayerManager()


def get_channel_layer(alias: str = DEFAULT_CHANNEL_LAYER) -> Any:
    """Return the layer of an alias: with nothing configured, ``default`` is an in-memory layer.

    Raises InvalidChannelLayerError for an alias that is not configured (returns None under install_as_channels()).
    """
    backend = channel_layers.backends.get(alias)
    if backend is not None:
        return backend
    configs = channel_layers.configs
    if alias in configs or alias in channel_layers.backends or (not configs and alias == DEFAULT_CHANNEL_LAYER):
        return channel_layers[alias]
    if framework.compat:
        return None
    known = ", ".join(map(repr, configs)) or "none; 'default' is then the in-memory layer"
    raise InvalidChannelLayerError(f"no channel layer {alias!r}; configured: {known}")


def configure(layers: Mapping[str, Mapping[str, Any]] | None = None, **options: Any) -> None:
    """Configure Antiphon without Django: ``layers`` as ``CHANNEL_LAYERS``, options as ``ANTIPHON`` in Django.

    Raises OptionError for an unknown option. Calling it again replaces all of it.
    """
    problems = validate(options)
    if problems:
        raise OptionError("; ".join(problems))
    framework.install(framework.Framework(layers, **options))
    channel_layers._reset_backends("CHANNEL_LAYERS")
