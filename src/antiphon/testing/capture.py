"""What an application sends, recorded at the call: to groups, users and channels. Knows no test runner.

A send inside a transaction waits for the commit. The tests of Django run in a transaction that never commits, so the
records know whether they wait, and ``commit()`` runs what waits.
"""

from __future__ import annotations

import copy
import weakref
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, overload
from unittest import TestCase

from asgiref.sync import sync_to_async

from .. import framework
from ..framework import user_key
from ..layer import capture
from ..types import Message
from .commits import CommitHooks

__all__ = ["CapturedMessage", "CapturedMessages", "GroupMessagesMixin", "capture_messages"]


@dataclass(slots=True)
class CapturedMessage:
    """One send, as it was at the call.

    ``kind``: group, user or channel. ``target``: the name, the user's key, or a tuple of the groups of one send to
    several. ``deferred``: it was sent inside a transaction. ``layer``: the layer's alias, where it has one.
    """

    kind: str
    target: str | tuple[str, ...]
    message: Message
    exclude: tuple[str, ...] = ()
    deferred: bool = False
    layer: str | None = None
    _committed: bool = field(default=False, repr=False, compare=False)
    _hook: Callable[[], object] | None = field(default=None, repr=False, compare=False)

    @property
    def waits_for_commit(self) -> bool:
        """Whether the transaction it was sent in is still open."""
        return self.deferred and not self._committed and self._alive()

    @property
    def rolled_back(self) -> bool:
        """Whether the transaction it was sent in was rolled back, so that it never left."""
        return self.deferred and not self._committed and not self._alive()

    def _alive(self) -> bool:
        return self._hook is None or self._hook() is not None

    def _watch(self, database: str) -> None:
        """Learn what becomes of the transaction: the hook runs with the commit, and is freed by a rollback."""

        def committed() -> None:
            self._committed = True

        if framework.current().on_commit(committed, database):
            self._hook = weakref.ref(committed)


class CapturedMessages(Sequence[CapturedMessage]):
    """The sends of a test, in order."""

    def __init__(self, database: str = "default") -> None:
        self._records: list[CapturedMessage] = []
        self._hooks = CommitHooks(database)

    def __repr__(self) -> str:
        return f"<CapturedMessages {self._records!r}>"

    def __len__(self) -> int:
        return len(self._records)

    @overload
    def __getitem__(self, index: int) -> CapturedMessage: ...
    @overload
    def __getitem__(self, index: slice) -> list[CapturedMessage]: ...
    def __getitem__(self, index: int | slice) -> CapturedMessage | list[CapturedMessage]:
        return self._records[index]

    def to(self, group: str) -> list[Message]:
        """Return the messages sent to a group, those that wait for a commit included, without those rolled back."""
        return self._to("group", group)

    def to_user(self, user: Any) -> list[Message]:
        """Return the messages sent to a user (object or primary key)."""
        return self._to("user", user_key(user))

    def to_channel(self, channel: str) -> list[Message]:
        """Return the messages sent to one channel."""
        return self._to("channel", channel)

    @property
    def waiting(self) -> list[CapturedMessage]:
        """The records that wait for a commit."""
        return [record for record in self._records if record.waits_for_commit]

    def commit(self) -> int:
        """Run the ``on_commit`` hooks that wait, ours and the application's, as a commit would; return how many.

        For tests inside a transaction of Django (``TestCase``, ``pytest.mark.django_db``), on the thread of that
        transaction. Elsewhere nothing waits, and it does nothing.
        """
        return self._hooks.run()

    async def acommit(self) -> int:
        """Run the hooks that wait, from an asynchronous test."""
        return await sync_to_async(self.commit)()

    def clear(self) -> None:
        """Forget the records so far."""
        self._records.clear()

    def _to(self, kind: str, name: str) -> list[Message]:
        return [
            record.message
            for record in self._records
            if record.kind == kind
            and (name == record.target or (isinstance(record.target, tuple) and name in record.target))
            and not record.rolled_back
        ]

    def _record(self, sent: capture.Sent) -> None:
        # A copy: the sender may go on to change its dict.
        try:
            message = copy.deepcopy(sent.message)
        except TypeError:  # a memoryview can be sent and not be copied
            message = dict(sent.message)
        record = CapturedMessage(sent.kind, sent.target, message, sent.exclude, sent.deferred, sent.layer)
        if sent.deferred:
            record._watch(sent.database or "default")
        self._records.append(record)


@contextmanager
def capture_messages(*, execute: bool = False, database: str = "default") -> Iterator[CapturedMessages]:
    """Record every send of the process inside the block.

    ``execute``: at the end of the block run the ``on_commit`` hooks that were registered in it on ``database``, as
    Django's ``captureOnCommitCallbacks`` does; not if the block raised.
    """
    captured = CapturedMessages(database)
    recorder = captured._record
    capture.recorders.append(recorder)
    try:
        yield captured
        if execute:
            captured.commit()
    finally:
        if recorder in capture.recorders:
            capture.recorders.remove(recorder)


if TYPE_CHECKING:
    _Mixin = TestCase  # what it is mixed into
else:
    _Mixin = object


class GroupMessagesMixin(_Mixin):
    """For ``unittest`` and Django test cases: ``self.group_messages`` holds what the test has sent.

    Put it before the test case in the list of bases; a ``setUp`` of your own must call ``super().setUp()``.
    """

    group_messages: CapturedMessages

    def setUp(self) -> None:
        """Begin to record."""
        super().setUp()
        self.group_messages = self.enterContext(capture_messages())
