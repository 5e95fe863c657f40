"""How what waits for a commit leaves: in batches and in order, tried again with the same id, and late but once."""

from __future__ import annotations

import logging
import time
from collections.abc import Sequence
from typing import Any

import pytest
from asgiref.sync import async_to_sync
from django.db import transaction
from django.test import TestCase

from antiphon import group_send, groups_send, send, user_send
from antiphon.envelope import FLAG_AGAIN
from antiphon.layer import deferred
from antiphon.layer.gate import Gate
from antiphon.layer.sends import Packed
from antiphon.layers import channel_layers
from antiphon.types import Receipt
from tests.layer.members import HELLO
from tests.layer.sync.flaky import Flaky, rolled_back


def batches(layer: Flaky, monkeypatch: pytest.MonkeyPatch) -> list[list[str]]:
    """Note which topics leave in one batch."""
    seen: list[list[str]] = []
    publish = layer.publish_in_line

    def noting(packed: Sequence[Packed]) -> tuple[list[Receipt], Exception | None]:
        seen.append([topic for topic, _, _ in packed])
        return publish(packed)

    monkeypatch.setattr(layer, "publish_in_line", noting)
    return seen


@pytest.mark.django_db(transaction=True)
def test_what_is_tried_again_has_the_same_id_and_says_so(layer: Flaky) -> None:
    layer.failures, layer.lose_replies = 2, True
    with transaction.atomic():
        group_send("g", {"type": "t", "n": 1})
        group_send("g", {"type": "t", "n": 2})
    first = [envelope for _, envelope in layer.taken if envelope.message()["n"] == 1]
    assert len({envelope.id for envelope in first}) == 1
    assert [bool(envelope.payload[3] & FLAG_AGAIN) for envelope in first] == [False, True, True]


@pytest.mark.django_db(transaction=True)
@pytest.mark.parametrize("failures", [0, 1, 2, 3])
@pytest.mark.parametrize("lose_replies", [False, True])
def test_through_failures_each_arrives_once_and_in_order(layer: Flaky, failures: int, lose_replies: bool) -> None:
    layer.failures, layer.lose_replies = failures, lose_replies
    with transaction.atomic():
        for n in range(1, 6):
            group_send("g" if n % 2 else "h", {"type": "t", "n": n})
        groups_send(["g", "h"], {"type": "t", "n": 6})
    group_send("g", {"type": "t", "n": 7})
    gate = Gate()
    let_in = [(topic, envelope.message()["n"]) for topic, envelope in layer.taken if gate.admit(envelope)]
    assert [n for topic, n in let_in if topic == "g:g"] == [1, 3, 5, 6, 7]
    assert [n for topic, n in let_in if topic == "g:h"] == [2, 4, 6]
    assert gate.duplicates == (failures if lose_replies else 0)


@pytest.mark.django_db(transaction=True)
def test_sends_that_follow_one_another_leave_as_one_batch(layer: Flaky, monkeypatch: pytest.MonkeyPatch) -> None:
    seen = batches(layer, monkeypatch)
    with transaction.atomic():
        for group in "abc":
            group_send(group, HELLO)
    assert seen == [["g:a", "g:b", "g:c"]]


@pytest.mark.django_db(transaction=True)
def test_a_large_transaction_leaves_in_several(layer: Flaky, monkeypatch: pytest.MonkeyPatch) -> None:
    seen = batches(layer, monkeypatch)
    with transaction.atomic():
        for _ in range(deferred.BATCH * 2 + 1):
            group_send("g", HELLO)
    assert [len(batch) for batch in seen] == [deferred.BATCH, deferred.BATCH, 1]


@pytest.mark.django_db(transaction=True)
def test_a_hook_of_the_application_keeps_its_place_between_them(layer: Flaky) -> None:
    taken: list[int] = []
    with transaction.atomic():
        group_send("a", HELLO)
        group_send("b", HELLO)
        transaction.on_commit(lambda: taken.append(len(layer.taken)))
        group_send("c", HELLO)
    assert taken == [2]
    assert [topic for topic, _ in layer.taken] == ["g:a", "g:b", "g:c"]


@pytest.mark.django_db(transaction=True)
def test_savepoints_part_the_batches_and_take_their_own_with_them(
    layer: Flaky, monkeypatch: pytest.MonkeyPatch
) -> None:
    seen = batches(layer, monkeypatch)
    with transaction.atomic():
        group_send("a", HELLO)
        with rolled_back():
            group_send("no", HELLO)
            with transaction.atomic():
                group_send("no", HELLO)
        group_send("b", HELLO)
        with transaction.atomic():
            group_send("c", HELLO)
            group_send("d", HELLO)
            with rolled_back():
                group_send("no", HELLO)
        group_send("e", HELLO)
        with transaction.atomic(savepoint=False):
            group_send("f", HELLO)
        user_send(7, HELLO)
    assert [topic for batch in seen for topic in batch] == ["g:a", "g:b", "g:c", "g:d", "g:e", "g:f", "u:7"]
    assert ["g:a", "g:b"] in seen  # what stood between them is gone
    assert ["g:c", "g:d"] in seen


@pytest.mark.django_db(transaction=True)
def test_the_next_transaction_starts_afresh(layer: Flaky, monkeypatch: pytest.MonkeyPatch, settings: Any) -> None:
    settings.ANTIPHON = {"publish_retry_s": 0.03}
    channel_layers.set("default", layer)
    seen = batches(layer, monkeypatch)
    layer.failures = 99
    with transaction.atomic():
        group_send("a", HELLO)
    layer.failures = 1
    with rolled_back():
        group_send("no", HELLO)
    with transaction.atomic():
        group_send("b", HELLO)
    assert [topic for topic, _ in layer.taken] == ["g:b"]
    assert seen[-2:] == [["g:b"], ["g:b"]]


@pytest.mark.django_db(transaction=True)
def test_a_dead_engine_costs_a_commit_its_time_for_retries_once(
    layer: Flaky, settings: Any, caplog: pytest.LogCaptureFixture
) -> None:
    told: list[str] = []
    settings.ANTIPHON = {"publish_retry_s": 2.0, "on_publish_error": lambda exc, send: told.append(send.target)}
    channel_layers.set("default", layer)
    other = Flaky()
    channel_layers.set("other", other)
    layer.failures = 10**6
    with transaction.atomic():
        for n in range(20):
            group_send(f"g{n}", HELLO)
            transaction.on_commit(lambda: None)
        for n in range(20, 40):
            group_send(f"g{n}", HELLO)
        send("thumbs", HELLO)
        group_send("g", HELLO, layer="other")
        before = time.monotonic()
    assert time.monotonic() - before < 20  # and not 21 times the two seconds
    assert told == [f"g{n}" for n in range(40)] + ["thumbs"]
    assert layer.stats()["drops"] == {"publish_failed": 41}
    assert len(other.taken) == 1
    records = [record for record in caplog.records if record.levelno >= logging.WARNING]
    assert len([record for record in records if record.exc_info]) == 1
    assert len(records) == 21  # 20 alone, between hooks of the application, and the rest together
    assert "21 messages, the first <send to group 'g20'" in records[-1].getMessage()
    async_to_sync(other.close)()


@pytest.mark.django_db(transaction=True)
def test_one_that_cannot_be_mended_does_not_hold_up_the_others(layer: Flaky, caplog: pytest.LogCaptureFixture) -> None:
    layer.failures, layer.error = 1, RuntimeError
    with transaction.atomic():
        for group in "abc":
            group_send(group, HELLO)
    assert [topic for topic, _ in layer.taken] == ["g:b", "g:c"]
    assert layer.stats()["drops"] == {"publish_failed": 1}
    assert layer.stats()["drops_by_group"] == {"a:publish_failed": 1}


class InATestCase(TestCase):
    """What waits in the transaction of a test that never commits, as Django's own tools run it."""

    def test_each_send_is_a_hook_of_its_own(self) -> None:
        layer = Flaky()
        channel_layers.set("default", layer)
        group_send("before", HELLO)
        with self.captureOnCommitCallbacks() as callbacks:
            group_send("a", HELLO)
            group_send("b", HELLO)
        assert len(callbacks) == 2
        callbacks[1]()
        assert [topic for topic, _ in layer.taken] == ["g:b"]
        callbacks[1]()
        callbacks[0]()
        assert [topic for topic, _ in layer.taken] == ["g:b", "g:a"]

    def test_hooks_that_were_run_are_not_joined_by_what_comes_later(self) -> None:
        layer = Flaky()
        channel_layers.set("default", layer)
        for group in "abc":
            with self.captureOnCommitCallbacks(execute=True) as callbacks:
                group_send(group, HELLO)
            assert len(callbacks) == 1
        assert [topic for topic, _ in layer.taken] == ["g:a", "g:b", "g:c"]
