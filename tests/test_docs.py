"""The documents against the code: every block is Python, every name exists, every option and counter is explained."""

from __future__ import annotations

import ast
import dataclasses
import importlib
import inspect
import re
from collections.abc import Iterator
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

from antiphon import get_channel_layer
from antiphon.generic.websocket import AsyncJsonWebsocketConsumer
from antiphon.layer import drops, losses
from antiphon.layer.layer import ChannelLayer
from antiphon.layers import EmbeddedChannelLayer, InMemoryChannelLayer, RedisChannelLayer
from antiphon.options import OPTIONS
from antiphon.testing import ApplicationCommunicator, WebsocketCommunicator
from antiphon.wire.codes import REASONS

ROOT = Path(__file__).resolve().parents[1]
DOCUMENTS = sorted([*ROOT.glob("*.md"), *ROOT.glob("docs/**/*.md")])


def python_blocks() -> Iterator[tuple[str, str]]:
    for path in DOCUMENTS:
        for number, text in enumerate(
            re.findall(r"^```python\n(.*?)^```$", path.read_text(), re.DOTALL | re.MULTILINE)
        ):
            yield f"{path.stem}-{number}", text


def block(document: str, containing: str) -> dict[str, Any]:
    """Run one block of a document and return its names."""
    found = [text for where, text in python_blocks() if where.startswith(document) and containing in text]
    assert len(found) == 1
    names: dict[str, Any] = {"__name__": document}
    exec(found[0], names)
    return names


def rows(document: str) -> dict[str, list[str]]:
    """Return the rows of the tables of a document whose first cell is one name in backquotes, by that name."""
    found = {}
    for line in (ROOT / "docs" / document).read_text().splitlines():
        cells = [cell.strip() for cell in line.strip().strip("|").split(" | ")]
        if line.startswith("| `") and (name := re.match(r"`(\w+)`", cells[0])):
            found[name[1]] = cells[1:]
    return found


@pytest.mark.parametrize("text", [pytest.param(text, id=where) for where, text in python_blocks()])
def test_a_block_is_python_and_imports_what_exists(text: str) -> None:
    for node in ast.walk(ast.parse(text)):
        if isinstance(node, ast.ImportFrom) and (node.module or "").split(".")[0] == "antiphon":
            module = importlib.import_module(node.module or "")
            assert [alias.name for alias in node.names if not hasattr(module, alias.name)] == []
        if isinstance(node, ast.Attribute) and isinstance(node.value, ast.Name) and node.value.id == "antiphon":
            assert hasattr(importlib.import_module("antiphon"), node.attr)


async def test_the_application_without_django_echoes() -> None:
    async with WebsocketCommunicator(block("consumers", "Starlette")["app"], "/ws/echo/") as client:
        await client.send_to(text_data="hello")
        assert await client.receive_from() == "hello"


async def test_the_stream_sends_what_the_layer_brings_and_ends_with_its_client() -> None:
    client = ApplicationCommunicator(
        block("consumers", "class Ticker")["Ticker"].as_asgi(),
        {"type": "http", "method": "GET", "path": "/", "headers": [], "query_string": b""},
    )
    await client.send_input({"type": "http.request", "body": b""})
    assert (await client.receive_output())["status"] == 200
    assert (await client.receive_output())["body"] == b": hello\n\n"
    await get_channel_layer().group_send("ticks", {"type": "tick", "value": 7})
    assert (await client.receive_output())["body"] == b"data: 7\n\n"
    await client.send_input({"type": "http.disconnect"})
    await client.wait()


async def test_the_room_denies_who_is_not_signed_in() -> None:
    room = block("consumers", "class RoomConsumer")["RoomConsumer"].as_asgi()
    for signed_in in (True, False):
        client = WebsocketCommunicator(room, "/ws/room/x/")
        user = SimpleNamespace(is_authenticated=signed_in, pk=1)
        client.scope.update(url_route={"kwargs": {"room": "x"}}, user=user)
        assert (await client.connect())[0] is signed_in
        if signed_in:
            await client.send_json_to({"text": "hello"})
            assert await client.receive_json_from() == {"text": "hello"}
            await client.disconnect()


async def test_a_kiosk_can_be_closed_by_a_message_whose_name_it_opened() -> None:
    names: dict[str, Any] = {"AsyncJsonWebsocketConsumer": AsyncJsonWebsocketConsumer}
    text = next(text for _, text in python_blocks() if "class Kiosk" in text)
    exec(text, names)

    listed: Any = type("Listed", (names["Kiosk"],), {"groups": ("kiosks",)})
    client = WebsocketCommunicator(listed.as_asgi(), "/")
    await client.connect()
    await get_channel_layer().group_send("kiosks", {"type": "kiosk.close"})
    assert (await client.expect_close())[0] == 4000


def test_what_was_sent_can_be_seen() -> None:
    block("testing", "with capture_messages")


def test_every_option_is_documented_with_its_default() -> None:
    documented = rows("configuration.md")
    for option in OPTIONS.values():
        assert documented[option.name][0] == str(option.default), option.name


def test_every_option_of_a_layer_is_documented_with_its_default() -> None:
    documented = rows("configuration.md")
    for name, parameter in inspect.signature(ChannelLayer).parameters.items():
        if parameter.kind is inspect.Parameter.KEYWORD_ONLY:
            shown = {None: "`{}`", "drop_new": '`"drop_new"`'}.get(parameter.default, str(parameter.default))
            assert documented[name][0] == shown, name


@pytest.mark.parametrize("layer", [RedisChannelLayer, EmbeddedChannelLayer])
def test_every_option_of_a_layer_with_a_server_is_documented_with_its_default(layer: type[ChannelLayer]) -> None:
    documented = rows("configuration.md")
    for name, parameter in inspect.signature(layer).parameters.items():
        if parameter.kind is not inspect.Parameter.VAR_KEYWORD and name != "channel_capacity":  # None there means {}
            shown = f'`"{parameter.default}"`' if isinstance(parameter.default, str) else str(parameter.default)
            assert documented[name][0] == shown, name


def test_a_loss_is_documented() -> None:
    documented = (ROOT / "docs" / "guarantees.md").read_text().partition("| of a `Loss`")[2].partition("\n\n")[0]
    for field in dataclasses.fields(losses.Loss):
        assert re.search(rf"^\| (\w+, )*{field.name}(, \w+)* \|", documented, re.MULTILINE), field.name
    assert block("guarantees", "def on_lost")["on_lost"] is not None


def test_every_close_reason_is_documented_with_its_code() -> None:
    documented = rows("guarantees.md")
    for reason, codes in REASONS.items():
        # Two tables name "slow"; the one with codes comes last.
        assert documented[reason][:2] == [str(codes.plain), "yes" if codes.final else "no"], reason


def test_every_reason_to_drop_is_documented() -> None:
    text = (ROOT / "docs" / "guarantees.md").read_text()
    assert [reason for reason in (*drops._WHY, "publish_failed") if f"| `{reason}` |" not in text] == []


def test_every_key_of_stats_is_documented_and_no_other() -> None:
    documented = rows("logging.md").keys()
    assert documented == InMemoryChannelLayer().stats().keys() | RedisChannelLayer().stats().keys()


def test_every_logger_of_the_sources_is_documented() -> None:
    text = (ROOT / "docs" / "logging.md").read_text()
    sources = "".join(path.read_text() for path in (ROOT / "src").rglob("*.py"))
    named = set(re.findall(r'getLogger\("(antiphon[\w.]*)"\)', sources)) - {"antiphon"}
    assert [name for name in sorted(named) if f"| `{name}` |" not in text] == []
