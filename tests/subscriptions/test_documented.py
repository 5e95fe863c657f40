"""The document against the code: every limit with its default, every method, every number that it names."""

from __future__ import annotations

import inspect
import re
from pathlib import Path

from antiphon.consumers.base import AsyncConsumer
from antiphon.subscriptions import SubscriptionConsumer
from antiphon.wire.centrifuge import tables
from antiphon.wire.codes import REASONS

TEXT = (Path(__file__).resolve().parents[2] / "docs" / "subscriptions.md").read_text()


def test_every_limit_is_documented_with_its_default() -> None:
    documented: dict[str, str] = {}
    for row in re.findall(r"^\| `(.+)` \| (.+?) \|", TEXT.partition("## Limits")[2], re.MULTILINE):
        documented.update(zip(row[0].split("`, `"), row[1].split(", "), strict=True))
    annotated = inspect.get_annotations(SubscriptionConsumer)
    limits = {name for name in annotated if not name.startswith("_")} - {"overflow", "close_protocol"}
    assert documented.keys() == limits
    for name, shown in documented.items():
        value = getattr(SubscriptionConsumer, name)
        assert shown == (f'"{value}"' if isinstance(value, str) else str(value)), name


def test_every_method_of_an_application_is_documented() -> None:
    names = {
        name for name, value in vars(SubscriptionConsumer).items() if callable(value) or isinstance(value, property)
    }
    events = {name for name in names if name.startswith(("websocket_", "http_", "subscription_", "_"))}
    known = {name for name in names - events if not hasattr(AsyncConsumer, name)}
    assert [name for name in sorted(known) if not re.search(rf"\b{name}\b", TEXT)] == []


def test_every_number_is_one_of_the_tables() -> None:
    numbers = {int(number) for number in re.findall(r"\b([1-9]\d\d|[23]\d\d\d)\b", TEXT.partition("## The end")[2])}
    known = {error.code for error in tables.ERRORS.values()} | {413}
    known |= {why.code for why in tables.DISCONNECTS.values()} | {why.code for why in tables.UNSUBSCRIBES.values()}
    known |= {codes.centrifuge for codes in REASONS.values()} | {128, 200, 300}
    assert numbers <= known | {100}
