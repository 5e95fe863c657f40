"""Publishing from any thread without an event loop: honest about what became of each message.

Knows nothing of nodes and links. What fails is one of three things. *Not sent*: tried again until ``timeout_s``.
*Refused*: raised, or followed where the reply names another server. *Undecided* (written, never answered): raised as
such, or sent again within ``retry_s``, flagged so that whoever had it the first time drops it.
"""

from __future__ import annotations

import logging
import os
import random
import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import replace
from time import monotonic
from typing import Any, Protocol

from redis.exceptions import (
    AskError,
    AuthenticationError,
    BusyLoadingError,
    ClusterDownError,
    MovedError,
    NoScriptError,
    ReadOnlyError,
    ResponseError,
    TryAgainError,
)

from ...envelope import mark_again
from ...exceptions import EngineUnavailable
from .batch import publish_many
from .dial import DialError, pack
from .hosts import Address, Host
from .keys import Keys
from .line import BoundTable, Line, Severed, Undecided, bound_queues
from .pool import NotPrimary, Pool

__all__ = ["BlockingPublisher"]

logger = logging.getLogger(__name__)

_PROBE_S = 0.5  # how long a server that failed just now may take to show that it is back, to those who do not wait
_POLL_S = 1.0  # how often a registry of bound queues that is not announced is read while there is traffic
_FIRST_PAUSE_S, _LONGEST_PAUSE_S = 0.02, 0.4
_REDIRECTS = 3  # followed at once; after that a cluster gets time to agree
# What another server, or this one in a moment, would not reply. None of it has run.
_PASSING = (BusyLoadingError, ClusterDownError, ReadOnlyError, TryAgainError)
_ASKING = pack("ASKING")


class Script(Protocol):
    """What is read of a Lua script."""

    @property
    def text(self) -> str: ...
    @property
    def sha(self) -> str: ...


class BlockingPublisher:
    """A process's publisher: any thread may call it, before and after a fork.

    ``on_bound(topic, payload, queues)``, when set, is called in the publishing thread after a publish on a topic that
    worker channels are bound to. ``timeout_s`` is for a call in total; ``retry_s`` (0: never) is for how long a message
    whose fate is unknown is sent again. ``close`` drops the connections; a later call makes new ones.
    """

    def __init__(self, hosts: Sequence[Host], *, cluster: bool, keys: Keys, timeout_s: float, retry_s: float) -> None:
        self.timeout_s = timeout_s
        self.retry_s = retry_s
        self.on_bound: Callable[[str, bytes, list[str]], None] | None = None
        self._keys = keys
        command = b"SPUBLISH" if cluster else b"PUBLISH"
        self._publish = b"*3\r\n$%d\r\n%b\r\n" % (len(command), command) + b"$%d\r\n%b\r\n$%d\r\n%b\r\n"
        self._pool = Pool(hosts, cluster=cluster, greet=self._greet)
        self._polled: BoundTable = {}
        self._polled_at: float | None = None
        self._warned: set[str] = set()

    def __repr__(self) -> str:
        return f"<BlockingPublisher {self._pool!r} sent={self.sent}>"

    @property
    def sent(self) -> int:
        """How many publishes servers have confirmed."""
        return self._pool.sent

    @property
    def connections_made(self) -> int:
        """How many connections were made to publish on, ever."""
        return self._pool.connections_made

    def publish(self, topic: str, payload: bytes) -> int:
        """Publish and return how many nodes got it (in a cluster: of those connected to the topic's server).

        Raises EngineUnavailable, which says whether the message may have been published all the same.
        """
        channel = self._keys.channel(topic)
        packed = self._publish % (len(channel), channel, len(payload), payload)
        line, nodes = self._run(channel, packed, payload)
        line.sent += 1
        if self.on_bound is None:
            self._pool.give(line)
            return nodes  # type: ignore[no-any-return]  # the reply to PUBLISH
        try:
            table = line.bound if line.tracked and not line.stale else self._bound(line)
        except BaseException:
            self._pool.end(line)
            raise
        self._pool.give(line)  # before the callback, which may need it
        queues = bound_queues(table, topic.encode()) if table else ()
        if queues:
            self.on_bound(topic, payload, queues)
        return nodes  # type: ignore[no-any-return]  # the reply to PUBLISH

    def publish_many(self, messages: Sequence[tuple[str, bytes]]) -> tuple[list[int], Exception | None]:
        """Publish [(topic, payload)] in order, in few writes, up to the first that fails.

        Returns what ``publish`` returns for those before it, and the error. What became of those after it is unknown.
        """
        return publish_many(self, messages)

    def script(self, script: Script, key: bytes, keys: Sequence[bytes], args: Sequence[bytes | str | int]) -> Any:
        """Run a script on the server where ``key`` lives. Raises EngineUnavailable, as ``publish``.

        It is never sent again once its outcome is unknown.
        """
        rest = (len(keys), *keys, *args)
        try:
            line, reply = self._run(key, pack("EVALSHA", script.sha, *rest))
        except NoScriptError:
            line, reply = self._run(key, pack("EVAL", script.text, *rest))
        self._pool.give(line)
        return reply

    def close(self) -> None:
        """Drop the idle connections."""
        self._pool.close()

    def _run(self, key: bytes, packed: bytes, payload: bytes | None = None) -> tuple[Line, Any]:
        """Send until answered. The line comes with the reply and is the caller's to give back.

        ``payload``: the message, where ``packed`` is a publish that may be repeated.
        """
        if self._pool.pid != os.getpid():  # a fork that Python did not see
            self._pool.after_fork()
        return _Effort(self, self._pool, key, packed, payload).run()

    def packed_again(self, channel: bytes, payload: bytes) -> bytes:
        """Return the command that publishes a message which may have been published before."""
        marked = mark_again(payload)
        return self._publish % (len(channel), channel, len(marked), marked)

    # --- worker channels that are members of groups

    def _greet(self, line: Line, limit_s: float) -> None:
        if self.on_bound is None or self._pool.known_address_of(self._keys.bound) != line.address:
            return
        if not line.track(self._keys.bound, limit_s) and line.address.name not in self._warned:
            self._warned.add(line.address.name)
            logger.warning(
                "%s does not announce changes of keys (CLIENT TRACKING): synchronous senders learn up to %g s late that"
                " a worker channel has joined a group",
                line.address.name,
                _POLL_S,
            )

    def _bound(self, line: Line) -> BoundTable:
        """Return the registry as it is for the message that ``line`` has just published."""
        try:
            if line.tracked:
                return line.current_bound(min(_PROBE_S, self.timeout_s))
        except ResponseError:
            line.tracked = False  # the registry's slot has moved away, or a right was withdrawn
        except (Severed, Undecided):
            line.close()  # given back so, it is found dead by who takes it next
            self._polled_at = None
        return self._poll(line.bound)

    def _poll(self, last: BoundTable) -> BoundTable:
        now = monotonic()
        if self._polled_at is not None:
            if now - self._polled_at < _POLL_S:
                return self._polled
            self._polled_at = now  # other threads go on with what is known while this one asks
        try:
            self._polled = self._read_bound()
        except (EngineUnavailable, Severed, Undecided, NotPrimary, *DialError) as exc:
            logger.warning("which worker channels belong to groups cannot be read now: %s", exc)
            self._polled = self._polled or last
        self._polled_at = now
        return self._polled

    def _read_bound(self) -> BoundTable:
        pool, key = self._pool, self._keys.bound
        line = pool.take(pool.address_of(key, _PROBE_S), _PROBE_S)
        try:
            table = line.load_bound(key, _PROBE_S)
        except BaseException as exc:
            pool.end(line)
            if isinstance(exc, MovedError):
                pool.forget(key)
            raise
        pool.give(line)
        return table


class _Effort:
    """What is done to get one command answered.

    A server that failed within the last second, in whichever thread, is tried once (``once``), so that a site whose
    server is away does not hang in every request.
    """

    __slots__ = ("asking", "deadline", "key", "limit_s", "once", "packed", "pauses", "payload", "pool", "publisher",
                 "redirect", "redirects", "suspect", "undecided")  # fmt: skip

    def __init__(
        self, publisher: BlockingPublisher, pool: Pool, key: bytes, packed: bytes, payload: bytes | None
    ) -> None:
        self.publisher = publisher
        self.pool = pool
        self.key = key
        self.packed = packed
        self.payload = payload
        self.limit_s = publisher.timeout_s
        self.deadline = monotonic() + max(publisher.timeout_s, publisher.retry_s)
        self.once: bool | None = None if pool.failures else False  # None: not known yet
        self.suspect: object = None  # whose fault a failure is
        self.redirect: Address | None = None
        self.redirects = 0
        self.asking = self.undecided = False
        self.pauses: Iterator[float] | None = None

    def run(self) -> tuple[Line, Any]:
        """Return the line that carried the command, and the reply. Raises EngineUnavailable or NoScriptError."""
        pool = self.pool
        while True:
            try:
                line = self._line()
            except AuthenticationError as exc:
                raise self._error(f"{self._name()} refuses our credentials: {exc}") from exc
            except _PASSING as exc:
                self._failed(exc)
                continue
            except ResponseError as exc:
                raise self._error(f"{self._name()} refuses our connection: {exc}") from exc
            except (EngineUnavailable, Severed, NotPrimary, *DialError) as exc:
                self._failed(exc)
                continue
            answered, reply = self._exchange(line)
            if answered:
                if pool.failures:
                    pool.answered(line.address, self.key)
                return line, reply

    def _exchange(self, line: Line) -> tuple[bool, Any]:
        """Send the command once; (False, None) when it is to be tried again."""
        pool = self.pool
        try:
            if self.asking:
                return True, line.calls(_ASKING + self.packed, self.limit_s, 2)[-1]
            return True, line.call(self.packed, self.limit_s)
        except Severed as exc:
            pool.end(line)
            if line.fresh:  # an older one may have died of age
                self._failed(exc)
        except Undecided as exc:
            pool.end(line)
            self._unanswered(exc)
        except ResponseError as exc:
            self._refused(line, exc)
        except (AuthenticationError, BusyLoadingError) as exc:
            pool.end(line)
            self._failed(exc)
        except BaseException:
            pool.end(line)  # its reply may come yet, and would be taken for the next one's
            raise
        return False, None

    def _line(self) -> Line:
        pool = self.pool
        if not pool.failures:
            self.suspect = None
            self.suspect = address = self.redirect or pool.address_of(self.key, self.limit_s)
            return pool.take(address, self.limit_s)
        self.suspect = guide = pool.guide_of(self.key)
        known = self.once is not None
        if not known:
            self.once = pool.is_down(guide)
        quick_s = min(_PROBE_S, self.limit_s)
        self.suspect = address = self.redirect or pool.address_of(self.key, quick_s if self.once else self.limit_s)
        down = pool.is_down(address)
        if not known:
            self.once = self.once or down
        return pool.take(address, quick_s if self.once else self.limit_s, probe=down)

    def _name(self) -> str:
        return self.suspect.name if isinstance(self.suspect, Address) else "the server"

    def _error(self, text: str) -> EngineUnavailable:
        if self.undecided:
            fate = "an attempt before was not answered, so what was sent may have taken effect or not"
        else:
            fate = "nothing was sent"
        return EngineUnavailable(f"{text}; {fate}")

    def _failed(self, exc: BaseException) -> None:
        """Wait for the next attempt at what has certainly not run, or give up."""
        pool = self.pool
        pool.failures[self.suspect if self.suspect is not None else pool.guide_of(self.key)] = monotonic()
        pool.forget(self.key)
        self.redirect, self.asking = None, False
        remaining = self.deadline - monotonic()
        if self.once or remaining <= 0:
            raise self._error(f"{self._name()} cannot be reached: {exc}") from exc
        if self.pauses is None:
            self.once = False
            self.pauses = _pauses()
        time.sleep(min(next(self.pauses), remaining))
        self.limit_s = min(self.publisher.timeout_s, max(self.deadline - monotonic(), 0.01))

    def _unanswered(self, exc: BaseException) -> None:
        """Send again what may have run, where that is allowed, or give up."""
        publisher = self.publisher
        self.pool.failures[self.suspect] = monotonic()
        self.pool.forget(self.key)
        if self.payload is None or publisher.retry_s <= 0 or (self.undecided and monotonic() >= self.deadline):
            cause = exc.__cause__ or exc
            raise EngineUnavailable(
                f"{self._name()} did not answer: {exc}; what was sent may have taken effect or not"
            ) from cause
        if not self.undecided:
            self.undecided = True
            self.once = False
            self.deadline = monotonic() + publisher.retry_s
            self.packed = publisher.packed_again(self.key, self.payload)
        self.redirect, self.asking = None, False
        self.limit_s = min(publisher.timeout_s, max(self.deadline - monotonic(), 0.01))

    def _refused(self, line: Line, exc: ResponseError) -> None:
        """Follow or wait out a refusal that is about the place or the moment, or raise."""
        pool = self.pool
        if isinstance(exc, (MovedError, AskError)):
            pool.give(line)
            self.redirects += 1
            if self.redirects > _REDIRECTS:
                self._failed(exc)
                return
            self.asking = not isinstance(exc, MovedError)  # redis-py's MovedError is an AskError
            if not self.asking:
                pool.forget(self.key)
            self.redirect = replace(line.address, host=exc.host or line.address.host, port=exc.port, path=None)
        elif isinstance(exc, _PASSING) or str(exc).startswith("BUSY"):
            pool.end(line)
            self._failed(exc)
        else:
            pool.give(line)
            if isinstance(exc, NoScriptError):
                raise exc
            raise EngineUnavailable(f"{line.address.name} refused: {exc}") from exc


def _pauses() -> Iterator[float]:
    pause = _FIRST_PAUSE_S
    while True:
        yield pause * random.uniform(0.5, 1.0)  # noqa: S311  # spreads attempts, guards nothing
        pause = min(pause * 2, _LONGEST_PAUSE_S)
