"""The plain functions and Django's transactions: after the commit, or never; and never an error into committed data."""

from __future__ import annotations

import logging
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager, suppress
from typing import Any

import pytest
from asgiref.sync import async_to_sync
from django.db import transaction
from django.test import TestCase

import antiphon
from antiphon import group_send, groups_send, send, user_send
from antiphon.envelope import FLAG_AGAIN, HeadedEnvelope, unpack
from antiphon.exceptions import ChannelFull, CrossProcessError, EngineUnavailable, MessageTooLarge
from antiphon.layer import deferred
from antiphon.layer.base import BaseChannelLayer
from antiphon.layer.capture import Sent, recorders
from antiphon.layer.gate import Gate
from antiphon.layers import InMemoryChannelLayer, channel_layers
from antiphon.types import Receipt

HELLO = {"type": "hello"}


class Flaky(InMemoryChannelLayer):
    """A layer whose engine cannot be reached for the next ``failures`` publishes, and notes what it takes."""

    failures = 0
    error: type[Exception] = EngineUnavailable
    tries = 0
    lose_replies = False  # what fails has arrived all the same

    def __init__(self) -> None:
        super().__init__()
        self.taken: list[tuple[str, HeadedEnvelope]] = []
        self._reach = self._bus.publish_blocking
        self._bus.publish_blocking = self._try  # type: ignore[method-assign]

    def _try(self, topic: str, payload: bytes) -> Receipt:
        self.tries += 1
        if self.failures > 0:
            self.failures -= 1
            if self.lose_replies:
                self.taken.append((topic, unpack(payload, topic)))
            raise self.error("not now")
        self.taken.append((topic, unpack(payload, topic)))
        return self._reach(topic, payload)


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


# How what waits for a commit leaves


def batches(layer: Flaky, monkeypatch: pytest.MonkeyPatch) -> list[list[str]]:
    """Note which topics leave in one batch."""
    seen: list[list[str]] = []
    publish = layer.publish_in_line

    def noting(packed: Sequence[tuple[str, bytes]]) -> tuple[list[Receipt], Exception | None]:
        seen.append([topic for topic, _ in packed])
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
    settings.ANTIPHON = {"publish_retry_s": 0.2, "on_publish_error": lambda exc, send: told.append(send.target)}
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
    assert time.monotonic() - before < 1.0
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


# Single channels, several groups


def test_send_reaches_a_connection_and_a_worker_channel(layer: Flaky) -> None:
    antiphon.configure()
    channel_layers.set("default", layer)
    channel = member(layer)
    assert send(channel, HELLO).state == "sent"
    assert send("thumbs", {"type": "make", "n": 1}).delivered == 1
    assert async_to_sync(layer.receive)(channel) == HELLO
    assert async_to_sync(layer.receive)("thumbs") == {"type": "make", "n": 1}


def test_send_to_a_channel_that_is_gone_is_counted(layer: Flaky) -> None:
    antiphon.configure()
    channel_layers.set("default", layer)
    member(layer)
    assert send("specific.abc!1", HELLO).nodes == 0
    assert layer.stats()["drops"] == {"no_channel": 1}


def test_a_full_worker_channel_raises_where_the_sender_can_hear_it(layer: Flaky) -> None:
    antiphon.configure()
    channel_layers.set("default", layer)
    for _ in range(layer.capacity):
        send("thumbs", HELLO)
    with pytest.raises(ChannelFull):
        send("thumbs", HELLO)


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


def test_what_is_recorded_of_each(layer: Flaky) -> None:
    antiphon.configure()
    channel_layers.set("default", layer)
    seen: list[Sent] = []
    recorders.append(seen.append)
    send("thumbs", HELLO)
    groups_send(["a", "b"], HELLO)
    user_send(7, HELLO, exclude=["a!b"])
    assert [(sent.kind, sent.target, sent.exclude) for sent in seen] == [
        ("channel", "thumbs", ()),
        ("group", ("a", "b"), ()),
        ("user", "7", ("a!b",)),
    ]


async def test_on_a_running_loop_each_says_what_to_await(layer: Flaky) -> None:
    calls: tuple[Callable[[], object], ...] = (
        lambda: send("thumbs", HELLO),
        lambda: group_send("g", HELLO),
        lambda: groups_send(["g"], HELLO),
        lambda: user_send(7, HELLO),
    )
    for call in calls:
        with pytest.raises(RuntimeError, match=r"await get_channel_layer\(\)\.\w*send\("):
            call()
