"""The plain functions in Django's transactions: after the commit, or never; and never an error into committed data."""

from __future__ import annotations

import logging
from collections.abc import Callable
from typing import Any

import pytest
from asgiref.sync import async_to_sync
from django.db import transaction

from antiphon import group_send, groups_send, send, user_send
from antiphon.exceptions import CrossProcessError, EngineUnavailable, MessageTooLarge
from antiphon.layer.capture import Sent, recorders
from antiphon.layers import channel_layers
from antiphon.types import Receipt
from tests.layer.members import HELLO
from tests.layer.sync.flaky import Flaky, arrived, member, rolled_back


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
        assert layer.tries == 1  # what another try cannot mend is not tried again


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


@pytest.mark.django_db(transaction=True)
def test_a_task_leaves_after_the_commit_that_it_needs(layer: Flaky, caplog: pytest.LogCaptureFixture) -> None:
    with rolled_back():
        send("thumbs", {"type": "make", "n": 0})
    with transaction.atomic():
        assert send("thumbs", {"type": "make", "n": 1}).state == "deferred"
        group_send("g", HELLO)
        send("thumbs", {"type": "make", "n": 2})
        assert not layer.stats()["worker_channels"]
    assert layer.stats()["worker_channels"] == {"thumbs": 2}
    assert [async_to_sync(layer.receive)("thumbs")["n"] for _ in range(2)] == [1, 2]
    for _ in range(layer.capacity):
        send("thumbs", HELLO)
    with transaction.atomic():
        send("thumbs", HELLO)
    assert layer.stats()["drops"] == {"publish_failed": 1}
    assert "Not sent after the commit: <send to channel 'thumbs'" in caplog.text


@pytest.mark.django_db(transaction=True)
def test_groups_send_reaches_a_member_of_several_once(layer: Flaky) -> None:
    channel = member(layer, "a")
    async_to_sync(layer.group_add)("b", channel)
    with transaction.atomic():
        assert groups_send(["a", "b", "a"], {"type": "t", "n": 1}).state == "deferred"
        groups_send(["b"], {"type": "t", "n": 2}, exclude=["a!b"])
        groups_send(["a", "b"], {"type": "t", "n": 3}, exclude=[channel])
        group_send("a", {"type": "t", "n": 4})
    assert [async_to_sync(layer.receive)(channel)["n"] for _ in range(3)] == [1, 2, 4]
    assert groups_send([], HELLO) == Receipt(nodes=0, delivered=0, dropped=0)
    with pytest.raises(TypeError, match="expected a list of groups"):
        groups_send("abc", HELLO)
