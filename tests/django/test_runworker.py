from __future__ import annotations

from typing import Any

import pytest
from django.core.management import call_command
from django.core.management.base import CommandError

from antiphon.django.commands import runworker
from antiphon.layers import channel_layers


class Shared:
    """Stands for a layer that crosses processes."""


@pytest.fixture
def ran(monkeypatch: pytest.MonkeyPatch) -> list[dict[str, Any]]:
    calls: list[dict[str, Any]] = []

    class Worker:
        def __init__(self, **kwargs: Any) -> None:
            calls.append(kwargs)

        def run(self) -> None:
            calls.append({})

    monkeypatch.setattr(runworker.Command, "worker_class", Worker)
    return calls


def test_the_layer_in_memory_is_refused_with_the_layers_that_would_do(ran: list[Any]) -> None:
    with pytest.raises(CommandError, match=r"'default' is in memory.*embedded, Redis/Valkey"):
        call_command("runworker", "thumbnails")
    assert ran == []


def test_channels_layer_and_concurrency_reach_the_worker(ran: list[Any], settings: Any) -> None:
    settings.CHANNEL_LAYERS = {"shared": {"BACKEND": f"{__name__}.Shared"}}
    call_command("runworker", "thumbnails", "mail", "--layer", "shared", "--concurrency", "4")
    made, run = ran
    assert made["channels"] == ["thumbnails", "mail"]
    assert made["concurrency"] == 4
    assert made["channel_layer"] is channel_layers["shared"]
    assert run == {}


def test_a_worker_class_written_for_channels_still_works(ran: list[Any], settings: Any) -> None:
    settings.CHANNEL_LAYERS = {"default": {"BACKEND": f"{__name__}.Shared"}}
    call_command("runworker", "thumbnails")
    assert set(ran[0]) == {"application", "channels", "channel_layer"}


def test_an_unknown_layer_names_those_there_are(ran: list[Any]) -> None:
    with pytest.raises(CommandError, match="no channel layer 'other'; configured: 'default'"):
        call_command("runworker", "x", "--layer", "other")


@pytest.mark.parametrize("number", ["0", "-1", "many"])
def test_concurrency_is_a_number_above_zero(ran: list[Any], number: str) -> None:
    with pytest.raises(CommandError, match=f"expected a whole number above 0; got '{number}'"):
        call_command("runworker", "x", f"--concurrency={number}")


def test_a_missing_application_is_one_line(ran: list[Any], settings: Any) -> None:
    settings.CHANNEL_LAYERS = {"default": {"BACKEND": f"{__name__}.Shared"}}
    settings.ASGI_APPLICATION = None
    with pytest.raises(CommandError, match="ASGI_APPLICATION"):
        call_command("runworker", "x")
