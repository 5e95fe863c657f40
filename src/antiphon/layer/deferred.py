"""``Send``: one send of synchronous code, that leaves now or after a commit. Knows no engine and no web framework.

Each send that waits is a commit hook of its own, so that it lives and dies with the savepoint it was made in. Where
nothing can come between the hooks of several, the first to run takes the others along, in one batch.

A message is packed once, when its turn comes: what is sent again has the same id and its place in the lane, and whoever
had it drops it. After the commit nothing raises: what failed for good is counted, logged once, and given to
``on_publish_error``.
"""

from __future__ import annotations

import asyncio
import logging
import time
from collections import deque
from collections.abc import Callable, Iterable, Sequence
from itertools import groupby
from time import monotonic
from typing import Any

from .. import framework, options
from ..envelope import mark_again
from ..exceptions import CrossProcessError, EngineUnavailable
from ..types import Message, Receipt
from .background import background_loop
from .capture import Sent, record, recorders
from .drops import Drop, resolve_hook
from .histories import Terms
from .layer import ChannelLayer
from .sends import Packed

__all__ = ["Send"]

logger = logging.getLogger("antiphon.layer")

_FIRST_PAUSE_S, _LONGEST_PAUSE_S = 0.02, 0.4
# How many messages travel in one batch: few enough that sending them all again costs little.
BATCH = 100


class Send:
    """One send, checked and encoded.

    ``kind``: group, user or channel. ``target``: the group's name, a tuple of them, the user's key, or the channel.
    ``message``, ``exclude``, ``alias`` (of the layer): as they were given.
    """

    __slots__ = ("_author", "_body", "_keeps", "_topics", "alias", "exclude", "kind", "layer", "message", "target")

    def __init__(
        self,
        kind: str,
        target: str | tuple[str, ...],
        topics: list[str],
        message: Message,
        layer: ChannelLayer,
        *,
        alias: str,
        exclude: tuple[str, ...] = (),
        exclude_author: Any = None,
        terms: Terms | None = None,
    ) -> None:
        self.kind, self.target, self.alias, self.layer = kind, target, alias, layer
        self.message, self.exclude = message, exclude
        self._topics = topics
        self._author = exclude_author
        self._keeps = [layer.keep(topic, terms) for topic in topics]
        self._body = layer.encode(message)
        # Now, not after the commit, where it could only be logged.
        layer.require_reach()

    def __repr__(self) -> str:
        return f"<send to {self.kind} {self.target!r} on {self.alias!r}: {self.message.get('type')!r}>"

    @property
    def to_queue(self) -> bool:
        """Whether it goes to a worker channel: put there once, never again, for a queue knows no repetition."""
        return self.kind == "channel" and self._topics[0][:2] == "q:"

    def go(self, database: str | None) -> Receipt:
        """Send after the commit of the transaction that is open on ``database``; at once if there is none, or None."""
        deferred = database is not None and _defer(self, database)
        if recorders:
            record(Sent(self.kind, self.target, self.message, self.exclude, deferred, self.alias, database))
        if deferred:
            return Receipt(state="deferred")
        if self.to_queue:
            return self.put()
        return self.settled(self.layer.publish_blocking(self._topics, self._body, self._extra, self._keeps))

    def put(self) -> Receipt:
        """Put it into its worker channel. Raises ChannelFull."""
        [(_, payload, _)] = self.pack()
        putting = self.layer._put(str(self.target), payload)
        asyncio.run_coroutine_threadsafe(putting, background_loop()).result()
        return Receipt(delivered=1, dropped=0)

    def pack(self) -> list[Packed]:
        """Return [(topic, payload, keep)]: its place in this thread's lane is taken now."""
        return self.layer.pack(self._topics, self._body, self._extra, self._keeps)

    def settled(self, receipt: Receipt) -> Receipt:
        """Take the engine's word for it."""
        if self.kind == "channel" and receipt.nodes == 0:
            self.layer._lose("no_channel", str(self.target))
        return receipt

    @property
    def _extra(self) -> dict[str, Any] | None:
        if self.kind == "channel":
            return None if self.to_queue else {"c": self.target}
        extra = self.layer.excluding(list(self.exclude), self._author, kept=any(self._keeps)) or {}
        if len(self._topics) > 1:
            extra["t"] = self._topics
        return extra or None


class _Commit:
    """What the sends of one transaction share when it commits: how long failures are mended, and what was given up."""

    __slots__ = ("_deadline_s", "_given_up", "_retry_s")

    def __init__(self) -> None:
        self._retry_s: float = options.get("publish_retry_s")
        self._deadline_s: float | None = None
        self._given_up: dict[ChannelLayer, Exception] = {}

    @property
    def begun(self) -> bool:
        return self._deadline_s is not None

    def publish(self, sends: Iterable[Send]) -> None:
        """Publish in order; what fails for good is reported, never raised."""
        if self._deadline_s is None:
            self._deadline_s = monotonic() + self._retry_s
        known = bool(self._given_up)
        failed: list[tuple[Send, Exception]] = []
        for (layer, to_queue), run in groupby(sends, key=lambda send: (send.layer, send.to_queue)):
            if layer in self._given_up:
                failed += [(send, self._given_up[layer]) for send in run]
            elif to_queue:
                failed += self._put(run, self._deadline_s)
            else:
                failed += self._publish(layer, run, self._deadline_s)
        if failed:
            _report(failed, brief=known)

    def _put(self, sends: Iterable[Send], deadline_s: float) -> list[tuple[Send, Exception]]:
        failed: list[tuple[Send, Exception]] = []
        for send in sends:
            try:
                if send.layer in self._given_up:
                    raise self._given_up[send.layer]
                send.put()
            except Exception as exc:
                failed.append((send, exc))
                if _mendable(exc) and monotonic() > deadline_s:
                    self._given_up[send.layer] = exc  # it has had its time-out: the next would only wait as long
        return failed

    def _publish(self, layer: ChannelLayer, sends: Iterable[Send], deadline_s: float) -> list[tuple[Send, Exception]]:
        waiting = deque(sends)
        line: list[tuple[Send, list[Packed]]] = []  # packed, in order
        failed: list[tuple[Send, Exception]] = []
        pause = _FIRST_PAUSE_S
        while waiting or line:
            while waiting and len(line) < BATCH:
                send = waiting.popleft()
                line.append((send, send.pack()))
            receipts, exc = layer.publish_in_line([copy for _, copies in line for copy in copies])
            while line and len(receipts) >= len(line[0][1]):
                send, copies = line.pop(0)
                send.settled(receipts[0])
                del receipts[: len(copies)]
            if exc is None:
                pause = _FIRST_PAUSE_S
                continue
            # Those after the first that failed may have arrived, or not, just as well.
            line = [(send, [(t, mark_again(payload), keep) for t, payload, keep in copies]) for send, copies in line]
            if not _mendable(exc):
                failed.append((line.pop(0)[0], exc))
            elif monotonic() + pause > deadline_s:
                self._given_up[layer] = exc
                return [*failed, *((send, exc) for send, _ in line), *((send, exc) for send in waiting)]
            else:
                time.sleep(pause)
                pause = min(pause * 2, _LONGEST_PAUSE_S)
        return failed


class _Batch:
    """Sends whose hooks stand one after the other and can only run, or be rolled back, together."""

    __slots__ = ("commit", "hooks")

    def __init__(self, commit: _Commit) -> None:
        self.commit = commit
        self.hooks: list[_Hook] = []


class _Hook:
    """The commit hook of one send."""

    __slots__ = ("batch", "left", "number", "send")

    def __init__(self, send: Send, batch: _Batch) -> None:
        self.send = send
        self.batch = batch
        self.number = len(batch.hooks)
        self.left = False

    def after_commit(self) -> None:
        """Publish it, and those that follow; nothing if it went with one before."""
        if self.left:
            return
        # A test may run hooks one by one, and any of them first.
        going = [hook for hook in self.batch.hooks[self.number :] if not hook.left]
        for hook in going:
            hook.left = True
        self.batch.commit.publish([hook.send for hook in going])


def _defer(send: Send, database: str) -> bool:
    """Let a send wait for the commit of the transaction that is open on this thread; False: there is none."""
    current = framework.current()
    batch: _Batch | None = None
    last = True
    for hook, shares_fate in current.commit_hooks(database):
        earlier = getattr(hook, "__self__", None)
        if type(earlier) is _Hook:
            # Tests run hooks and leave them in line: such a commit is over.
            if not earlier.batch.commit.begun:
                batch = earlier.batch if last and shares_fate else _Batch(earlier.batch.commit)
            break
        last = False
    mine = _Hook(send, batch or _Batch(_Commit()))
    if not current.on_commit(mine.after_commit, database):
        return False
    mine.batch.hooks.append(mine)
    return True


def _mendable(exc: Exception) -> bool:
    # What another try cannot mend fails at once; nobody's commit hook should sleep for nothing.
    return isinstance(exc, EngineUnavailable) and not isinstance(exc, CrossProcessError)


def _report(failed: Sequence[tuple[Send, Exception]], *, brief: bool) -> None:
    """Count, log and hand on what failed. ``brief``: this commit has had a traceback logged."""
    for send, _ in failed:
        group = send.target if send.kind == "group" and isinstance(send.target, str) else None
        send.layer.drops.add(Drop("publish_failed", group, repr(send)), log=False)
    first, exc = failed[0]
    what = repr(first) if len(failed) == 1 else f"{len(failed)} messages, the first {first!r}"
    logger.error("Not sent after the commit: %s: %s", what, exc, exc_info=None if brief else exc)
    tell: Callable[[Exception, Send], None] | None = resolve_hook(options.get("on_publish_error"))
    if tell is None:
        return
    for send, exc in failed:
        try:
            tell(exc, send)
        except Exception:
            logger.exception("on_publish_error raised")
