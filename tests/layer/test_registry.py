"""Layers by alias: from Django's settings, from configure(), and from nothing."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import pytest
from django.test import override_settings

import antiphon
from antiphon import framework
from antiphon.exceptions import InvalidChannelLayerError, OptionError
from antiphon.layers import (
    DEFAULT_CHANNEL_LAYER,
    ChannelLayerManager,
    InMemoryChannelLayer,
    channel_layers,
    get_channel_layer,
)

MEMORY = "antiphon.layers.InMemoryChannelLayer"


def test_a_layer_is_made_once_an_alias_from_the_settings() -> None:
    layer = get_channel_layer()
    assert type(layer) is InMemoryChannelLayer
    assert get_channel_layer() is layer
    assert get_channel_layer("default") is layer
    assert channel_layers["default"] is layer
    assert channel_layers.backends == {"default": layer}
    assert DEFAULT_CHANNEL_LAYER == "default"
    assert "default" in channel_layers
    assert "other" not in channel_layers


def test_override_settings_gives_new_layers_and_the_old_settings_come_back() -> None:
    before = get_channel_layer()
    layers = {
        "default": {"BACKEND": MEMORY, "CONFIG": {"capacity": 7}},
        "second": {"BACKEND": MEMORY, "TEST_CONFIG": {"expiry": 3}},
    }
    with override_settings(CHANNEL_LAYERS=layers):
        inside = get_channel_layer()
        assert inside is not before
        assert inside.capacity == 7
        assert get_channel_layer("second") is not inside
        assert channel_layers.make_test_backend("second").expiry == 3
    after = get_channel_layer()
    assert after is not inside
    assert after.capacity == 100
    with pytest.raises(InvalidChannelLayerError):
        get_channel_layer("second")


def test_configure_works_without_any_framework() -> None:
    antiphon.configure({"default": {"BACKEND": MEMORY, "CONFIG": {"capacity": 3}}}, sync_threads=2)
    assert framework.current().name == "none"
    assert get_channel_layer().capacity == 3
    antiphon.configure()
    assert get_channel_layer().capacity == 100


def test_configure_refuses_an_unknown_option_and_changes_nothing() -> None:
    before = framework.current()
    with pytest.raises(OptionError, match="unknown ANTIPHON option 'sync_thread'; did you mean 'sync_threads'"):
        antiphon.configure(sync_thread=2)
    with pytest.raises(OptionError, match="sync_threads"):
        antiphon.configure(sync_threads=0)
    assert framework.current() is before


def test_with_nothing_configured_default_is_a_layer_in_memory() -> None:
    with override_settings(CHANNEL_LAYERS={}):
        layer = get_channel_layer()
        assert type(layer) is InMemoryChannelLayer
        assert get_channel_layer() is layer
        with pytest.raises(InvalidChannelLayerError, match="no channel layer 'other'; configured: none; 'default'"):
            get_channel_layer("other")


def test_an_unknown_alias_is_told_with_the_known_ones() -> None:
    antiphon.configure({"a": {"BACKEND": MEMORY}, "b": {"BACKEND": MEMORY}})
    for alias in ("c", "default"):
        with pytest.raises(InvalidChannelLayerError, match=f"no channel layer '{alias}'; configured: 'a', 'b'"):
            get_channel_layer(alias)
    assert get_channel_layer("a") is not get_channel_layer("b")


@pytest.fixture
def _compat() -> Iterator[None]:
    framework.compat = True
    yield
    framework.compat = False


@pytest.mark.usefixtures("_compat")
def test_an_unknown_alias_is_none_where_channels_way_holds() -> None:
    assert get_channel_layer("other") is None
    assert get_channel_layer() is not None


@pytest.mark.parametrize(
    ("parts", "says"),
    [
        ({}, "No BACKEND specified for default"),
        ({"BACKEND": MEMORY, "ROUTING": "x.y"}, "ROUTING key found for default"),
        ({"BACKEND": "no.such.module.Layer"}, "Cannot import BACKEND 'no.such.module.Layer' specified for default"),
        ({"BACKEND": "antiphon.layers.NoSuchLayer"}, "Cannot import BACKEND"),
        ({"BACKEND": "nodots"}, "Cannot import BACKEND"),
    ],
)
def test_a_wrong_configuration_says_what_is_wrong_and_where(parts: dict[str, Any], says: str) -> None:
    antiphon.configure({"default": parts})
    with pytest.raises(InvalidChannelLayerError, match=says):
        get_channel_layer()


def test_a_wrong_option_of_a_layer_is_told_when_it_is_made() -> None:
    antiphon.configure({"default": {"BACKEND": MEMORY, "CONFIG": {"capacityy": 3}}})
    with pytest.raises(TypeError, match="'capacityy'; did you mean 'capacity'"):
        get_channel_layer()


def test_a_test_backend_needs_a_test_config() -> None:
    antiphon.configure({"default": {"BACKEND": MEMORY, "TEST_CONFIG": {"capacity": 5}}, "bare": {"BACKEND": MEMORY}})
    made = channel_layers.make_test_backend("default")
    assert made.capacity == 5
    assert made is not channel_layers["default"]
    for alias in ("bare", "none"):
        with pytest.raises(InvalidChannelLayerError, match=f"No TEST_CONFIG specified for {alias}"):
            channel_layers.make_test_backend(alias)


def test_set_replaces_a_layer_and_returns_the_one_before() -> None:
    mine = InMemoryChannelLayer()
    assert channel_layers.set("default", mine) is None
    assert get_channel_layer() is mine
    assert channel_layers.set("default", None) is mine
    assert get_channel_layer() is None  # as it was set
    assert channel_layers.set("new", mine) is None
    assert get_channel_layer("new") is mine


def test_a_manager_of_ones_own_has_layers_of_its_own() -> None:
    manager = ChannelLayerManager()
    assert manager["default"] is not channel_layers["default"]
    assert manager.make_backend("default") is not manager["default"]
    manager._reset_backends("SOMETHING_ELSE")
    assert manager.backends
    manager._reset_backends("CHANNEL_LAYERS")
    assert manager.backends == {}
