"""The plain functions and Django's transactions: after the commit, or never; and never an error into committed data."""

from __future__ import annotations

import logging
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from typing import Any

import pytest
from asgiref.sync import async_to_sync
from django.db import transaction

import antiphon
from antiphon import group_send, user_send
from antiphon.exceptions import CrossProcessError, EngineUnavailable, MessageTooLarge
from antiphon.layer.base import BaseChannelLayer
from antiphon.layer.capture import Sent, recorders
from antiphon.layers import InMemoryChannelLayer, channel_layers
from antiphon.types import Receipt

HELLO = {"type": "hello"}


class Flaky(InMemoryChannelLayer):
    """A layer whose engine cannot be reached for the first ``failures`` sends."""

    failures = 0
    error: type[Exception] = EngineUnavailable

    def publish_blocking(self, topics: list[str], body: bytes, extra: dict[str, Any] | None) -> Receipt:
        if self.failures > 0:
            self.failures -= 1
            raise self.error("not now")
        return super().publish_blocking(topics, body, extra)


@pytest.fixture
def layer() -> Iterator[Flaky]:
    layer = Flaky()
    channel_layers.set("default", layer)
    yield layer
    async_to_sync(layer.close)()


def member(layer: InMemoryChannelLayer, group: str = "g") -> str:
    channel: str = async_to_sync(layer.new_channel)()
    async_to_sync(layer.group_add)(group, channel)
    return channel


@contextmanager
def rolled_back() -> Iterator[None]:
    """Open a transaction, or a savepoint in one, that fails at its end."""
    with suppress(ZeroDivisionError), transaction.atomic():
        yield
        raise ZeroDivisionError


def arrived(layer: InMemoryChannelLayer) -> int:
    return int(layer.stats()["sent"])


def test_outside_a_transaction_it_is_sent_at_once(layer: Flaky) -> None:
    antiphon.configure()  # no framework at all
    channel_layers.set("default", layer)
    channel = member(layer)
    assert group_send("g", HELLO).state == "sent"
    assert async_to_sync(layer.receive)(channel) == HELLO


@pytest.mark.django_db(transaction=True)
def test_inside_a_transaction_it_waits_for_the_commit(layer: Flaky) -> None:
    channel = member(layer)
    assert group_send("g", {"type": "t", "n": 0}).state == "sent"
    with transaction.atomic():
        assert group_send("g", {"type": "t", "n": 1}) == Receipt(state="deferred")
        with transaction.atomic():
            group_send("g", {"type": "t", "n": 2})
        assert user_send(7, HELLO).state == "deferred"
        assert arrived(layer) == 1
    assert arrived(layer) == 4
    assert [async_to_sync(layer.receive)(channel)["n"] for _ in range(3)] == [0, 1, 2]


@pytest.mark.django_db(transaction=True)
def test_what_is_sent_is_what_the_message_was_at_the_call(layer: Flaky) -> None:
    channel = member(layer)
    message: dict[str, Any] = {"type": "t", "list": [1]}
    with transaction.atomic():
        group_send("g", message)
        message["list"].append(2)
    assert async_to_sync(layer.receive)(channel) == {"type": "t", "list": [1]}


@pytest.mark.django_db(transaction=True)
def test_a_rollback_takes_the_send_with_it(layer: Flaky) -> None:
    with rolled_back():
        group_send("g", HELLO)
    assert arrived(layer) == 0


@pytest.mark.django_db(transaction=True)
def test_a_rolled_back_savepoint_takes_only_its_own_sends_with_it(layer: Flaky) -> None:
    channel = member(layer)
    with transaction.atomic():
        group_send("g", {"type": "t", "n": 1})
        with rolled_back():
            group_send("g", {"type": "t", "n": 2})
        group_send("g", {"type": "t", "n": 3})
    assert [async_to_sync(layer.receive)(channel)["n"] for _ in range(2)] == [1, 3]
    assert arrived(layer) == 2


@pytest.mark.django_db(transaction=True)
def test_on_commit_false_sends_at_once_and_survives_the_rollback(layer: Flaky) -> None:
    with rolled_back():
        assert group_send("g", HELLO, on_commit=False).state == "sent"
    assert arrived(layer) == 1


@pytest.mark.django_db
def test_inside_a_test_s_own_transaction_it_waits_and_is_recorded_as_waiting(layer: Flaky) -> None:
    seen: list[Sent] = []
    recorders.append(seen.append)
    group_send("g", HELLO, exclude=["a!b"])
    user_send(7, HELLO, on_commit=False)
    assert [(sent.kind, sent.target, sent.exclude, sent.deferred, sent.layer) for sent in seen] == [
        ("group", "g", ("a!b",), True, "default"),
        ("user", "7", (), False, "default"),
    ]
    assert arrived(layer) == 1


@pytest.mark.django_db(transaction=True)
def test_what_is_wrong_fails_at_the_call_and_not_at_the_commit(layer: Flaky) -> None:
    with transaction.atomic():
        wrong: tuple[Callable[[], Receipt], ...] = (
            lambda: group_send("a b", HELLO),
            lambda: group_send("g", {"type": "t", "v": object()}),
            lambda: group_send("g", {"n": 1}),
            lambda: group_send("g", HELLO, exclude="abc"),
            lambda: user_send(None, HELLO),
        )
        for call in wrong:
            with pytest.raises(TypeError):
                call()
        with pytest.raises(MessageTooLarge):
            group_send("g", {"type": "t", "v": "x" * (1 << 20)})
        with pytest.raises(ValueError, match="no channel layer 'other'"):
            group_send("g", HELLO, layer="other")
    assert arrived(layer) == 0


@pytest.mark.django_db(transaction=True)
def test_a_failure_after_the_commit_is_tried_again(layer: Flaky, caplog: pytest.LogCaptureFixture) -> None:
    channel = member(layer)
    layer.failures = 2
    with transaction.atomic():
        group_send("g", HELLO)
    assert async_to_sync(layer.receive)(channel) == HELLO
    assert not caplog.records
    assert layer.stats()["drops"] == {}


@pytest.mark.django_db(transaction=True)
@pytest.mark.parametrize("error", [EngineUnavailable, CrossProcessError, RuntimeError])
def test_a_failure_that_lasts_is_logged_counted_and_given_to_the_hook_and_never_raised(
    layer: Flaky, settings: Any, caplog: pytest.LogCaptureFixture, error: type[Exception]
) -> None:
    told: list[tuple[Exception, Any]] = []
    settings.ANTIPHON = {"publish_retry_s": 0.05, "on_publish_error": lambda exc, send: told.append((exc, send))}
    channel_layers.set("default", layer)
    layer.failures, layer.error = 99, error
    after: list[int] = []
    with transaction.atomic():
        group_send("g", HELLO)
        transaction.on_commit(lambda: after.append(1))
    assert after == [1]
    [record] = [record for record in caplog.records if record.levelno == logging.ERROR]
    assert record.name == "antiphon.layer"
    assert "Not sent after the commit: <send to group 'g' on 'default': 'hello'>: not now" in record.getMessage()
    assert record.exc_info
    assert layer.stats()["drops"] == {"publish_failed": 1}
    [(exc, send)] = told
    assert type(exc) is error
    assert send.target == "g"
    if error is not EngineUnavailable:
        assert layer.failures == 98  # what another try cannot mend is not tried again


@pytest.mark.django_db(transaction=True)
def test_a_hook_that_raises_is_logged_and_never_raised(
    layer: Flaky, settings: Any, caplog: pytest.LogCaptureFixture
) -> None:
    def hook(exc: Exception, send: Any) -> None:
        raise ZeroDivisionError

    settings.ANTIPHON = {"publish_retry_s": 0, "on_publish_error": hook}
    channel_layers.set("default", layer)
    layer.failures = 99
    with transaction.atomic():
        group_send("g", HELLO)
    assert "on_publish_error raised" in [record.getMessage() for record in caplog.records]


def test_outside_a_transaction_a_failure_is_the_caller_s_to_see(layer: Flaky) -> None:
    antiphon.configure()
    channel_layers.set("default", layer)
    layer.failures = 1
    with pytest.raises(EngineUnavailable):
        group_send("g", HELLO)


def test_a_layer_of_somebody_else_is_told_with_what_to_do() -> None:
    antiphon.configure()
    channel_layers.set("default", BaseChannelLayer())
    with pytest.raises(TypeError, match=r"antiphon\.group_send\(\) needs a layer of Antiphon.*BaseChannelLayer"):
        group_send("g", HELLO)
    with pytest.raises(TypeError, match=r"antiphon\.close_channel\(\) needs a layer of Antiphon"):
        antiphon.close_channel("a!b")
