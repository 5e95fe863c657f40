"""Captured messages: recorded at the call, waiting for a commit, gone with a rollback."""

from __future__ import annotations

import unittest
from typing import Any

import pytest
from asgiref.sync import async_to_sync, sync_to_async
from django.db import transaction
from django.test import TestCase, TransactionTestCase

import antiphon
from antiphon import framework, get_channel_layer
from antiphon.layer.capture import recorders
from antiphon.testing import CapturedMessages, GroupMessagesMixin, capture_messages, fresh_layer

HELLO = {"type": "chat.message", "text": "hello"}


@pytest.fixture
def _no_framework() -> None:
    framework.install(framework.Framework())


@pytest.mark.usefixtures("_no_framework")
def test_sends_of_each_kind_are_recorded_in_order() -> None:
    with fresh_layer(), capture_messages() as captured:
        antiphon.group_send("room", HELLO, exclude=["specific.a!b"])
        antiphon.user_send(42, HELLO)
        antiphon.group_send("other", HELLO)
    antiphon.group_send("room", {"type": "after"})
    assert [(sent.kind, sent.target) for sent in captured] == [("group", "room"), ("user", "42"), ("group", "other")]
    assert captured[0].exclude == ("specific.a!b",)
    assert captured[0].layer == "default"
    assert not any(sent.deferred or sent.waits_for_commit or sent.rolled_back for sent in captured)
    assert captured.to("room") == captured.to("other") == captured.to_user(42) == [HELLO]
    assert captured.to("nobody") == captured.to_channel("room") == []
    assert captured.commit() == 0
    captured.clear()
    assert len(captured) == 0


async def test_awaited_sends_are_recorded_and_one_to_several_groups_counts_for_each() -> None:
    layer = get_channel_layer()
    with capture_messages() as captured:
        await layer.groups_send(["a", "b"], HELLO)
        await layer.send_many([("a", {"type": "x"}), ("c", {"type": "y"})])
        await layer.send("worker", {"type": "job"})
    assert captured.to("a") == [HELLO, {"type": "x"}]
    assert captured.to("b") == [HELLO]
    assert captured.to_channel("worker") == [{"type": "job"}]
    await layer.close()


@pytest.mark.usefixtures("_no_framework")
def test_a_record_is_what_was_sent_whatever_the_sender_does_to_it_later() -> None:
    message: dict[str, Any] = {"type": "x", "list": [1], "view": memoryview(b"ab")}
    nested: dict[str, Any] = {"type": "x", "list": [1]}
    with fresh_layer(), capture_messages() as captured:
        antiphon.group_send("room", message)
        antiphon.group_send("room", nested)
        message["list"] = nested["type"] = "changed"
        nested["list"].append(2)
    assert captured.to("room") == [{"type": "x", "list": [1], "view": b"ab"}, {"type": "x", "list": [1]}]


def test_a_block_that_raises_stops_recording_and_runs_no_hook() -> None:
    before = list(recorders)
    with pytest.raises(ZeroDivisionError), capture_messages(execute=True):
        raise ZeroDivisionError
    assert recorders == before


class InsideATransaction(GroupMessagesMixin, TestCase):
    """The transaction of a TestCase never commits."""

    def test_a_send_waits_until_the_test_commits(self) -> None:
        receipt = antiphon.group_send("room", HELLO)
        assert receipt.state == "deferred"
        (sent,) = self.group_messages
        assert sent.deferred
        assert sent.waits_for_commit
        assert self.group_messages.waiting == [sent]
        assert self.group_messages.to("room") == [HELLO]
        assert self.group_messages.commit() >= 1
        assert not sent.waits_for_commit
        assert not sent.rolled_back
        assert self.group_messages.waiting == []
        assert self.group_messages.commit() == 0

    def test_a_commit_delivers(self) -> None:
        layer = get_channel_layer()
        channel = async_to_sync(layer.new_channel)()
        async_to_sync(layer.group_add)("room", channel)
        antiphon.group_send("room", HELLO)
        assert layer.stats()["waiting"] == 0
        self.group_messages.commit()
        assert async_to_sync(layer.receive)(channel) == HELLO

    def test_a_send_of_a_rolled_back_block_never_left(self) -> None:
        with transaction.atomic():
            antiphon.group_send("room", HELLO)
            transaction.set_rollback(True)
        (sent,) = self.group_messages
        assert sent.rolled_back
        assert not sent.waits_for_commit
        assert self.group_messages.to("room") == []
        assert self.group_messages.commit() == 0

    def test_a_send_that_asks_for_no_commit_does_not_wait(self) -> None:
        antiphon.group_send("room", HELLO, on_commit=False)
        assert not self.group_messages[0].deferred
        assert self.group_messages.to("room") == [HELLO]

    def test_the_hooks_of_the_application_run_too_and_those_they_register(self) -> None:
        ran = []

        def first() -> None:
            ran.append("first")
            transaction.on_commit(lambda: ran.append("second"))

        with capture_messages(execute=True) as captured:
            transaction.on_commit(first)
            assert ran == []
        assert ran == ["first", "second"]
        assert len(captured) == 0

    def test_a_hook_registered_before_is_not_run(self) -> None:
        ran = []
        transaction.on_commit(lambda: ran.append("before"))
        with capture_messages(execute=True):
            transaction.on_commit(lambda: ran.append("inside"))
        assert ran == ["inside"]

    def test_a_hook_that_fails_raises_unless_it_is_robust(self) -> None:
        def fails() -> None:
            raise ZeroDivisionError

        transaction.on_commit(fails, robust=True)
        with self.assertLogs("antiphon.testing", "ERROR"):
            assert self.group_messages.commit() == 1
        transaction.on_commit(fails)
        with pytest.raises(ZeroDivisionError):
            self.group_messages.commit()

    def test_djangos_own_helper_marks_the_records_too(self) -> None:
        with self.captureOnCommitCallbacks(execute=True):
            antiphon.group_send("room", HELLO)
            assert len(self.group_messages.waiting) == 1
        assert self.group_messages.waiting == []

    async def test_an_asynchronous_test_commits(self) -> None:
        await sync_to_async(antiphon.group_send)("room", HELLO)
        assert len(self.group_messages.waiting) == 1
        assert await self.group_messages.acommit() >= 1
        assert self.group_messages.waiting == []


class WithRealCommits(GroupMessagesMixin, TransactionTestCase):
    """Where transactions end, records follow."""

    def test_a_commit_is_seen(self) -> None:
        with transaction.atomic():
            antiphon.group_send("room", HELLO)
            assert self.group_messages[0].waits_for_commit
        assert not self.group_messages[0].waits_for_commit
        assert not self.group_messages[0].rolled_back

    def test_a_rollback_is_seen(self) -> None:
        with transaction.atomic():
            antiphon.group_send("room", HELLO)
            transaction.set_rollback(True)
        assert self.group_messages[0].rolled_back


class WithoutAnyDatabase(GroupMessagesMixin, unittest.TestCase):
    def test_the_mixin_records(self) -> None:
        with fresh_layer():
            antiphon.group_send("room", HELLO)
        assert self.group_messages.to("room") == [HELLO]
        assert isinstance(self.group_messages, CapturedMessages)
