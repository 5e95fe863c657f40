"""What the blocking publisher does to get one command answered.

What fails is one of three things. *Not sent*: tried again until ``timeout_s``. *Refused*: raised, or followed where the
reply names another server. *Undecided* (written, never answered): raised as such, or sent again within ``retry_s``,
flagged so that whoever had it the first time drops it.
"""

from __future__ import annotations

import random
import time
from collections.abc import Iterator
from dataclasses import replace
from time import monotonic
from typing import TYPE_CHECKING, Any

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

from ...exceptions import EngineUnavailable
from ...types import Keep
from .advice import advised
from .dial import DialError, pack
from .hosts import Address
from .line import Line, Severed, Undecided
from .pool import NotPrimary, Pool

if TYPE_CHECKING:
    from .publisher import BlockingPublisher

__all__ = ["PROBE_S", "Effort"]

PROBE_S = 0.5  # how long a server that failed just now may take to show that it is back, to those who do not wait
_FIRST_PAUSE_S, _LONGEST_PAUSE_S = 0.02, 0.4
_REDIRECTS = 3  # followed at once; after that a cluster gets time to agree
# What another server, or this one in a moment, would not reply. None of it has run.
_PASSING = (BusyLoadingError, ClusterDownError, ReadOnlyError, TryAgainError)
_ASKING = pack("ASKING")


class Effort:
    """What is done to get one command answered.

    A server that failed within the last second, in whichever thread, is tried once (``once``), so that a site whose
    server is away does not hang in every request.
    """

    __slots__ = ("asking", "deadline", "keep", "key", "limit_s", "once", "origin", "packed", "pauses", "payload",
                 "pool", "publisher", "redirect", "redirects", "suspect", "told", "undecided")  # fmt: skip

    def __init__(
        self,
        publisher: BlockingPublisher,
        pool: Pool,
        key: bytes,
        packed: bytes,
        payload: bytes | None,
        keep: Keep | None = None,
        *,
        origin: bool = False,
    ) -> None:
        self.publisher = publisher
        self.pool = pool
        self.key = key
        self.packed = packed
        self.payload = payload
        self.keep = keep
        self.origin = origin  # ``packed`` has ORIGIN in the place of the server's
        self.limit_s = publisher.timeout_s
        self.deadline = monotonic() + max(publisher.timeout_s, publisher.retry_s)
        self.once: bool | None = None if pool.failures else False  # None: not known yet
        self.suspect: object = None  # whose fault a failure is
        self.redirect: Address | None = None
        self.redirects = 0
        self.asking = self.undecided = False
        self.pauses: Iterator[float] | None = None
        self.told: BaseException | None = None  # the failure that says most

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
        try:
            packed = line.with_origin(self.packed, self.limit_s) if self.origin else self.packed
            if self.asking:
                return True, line.calls(_ASKING + packed, self.limit_s, 2)[-1]
            return True, line.call(packed, self.limit_s)
        except BaseException as exc:
            self.failed_on(line, exc)
        return False, None

    def failed_on(self, line: Line, exc: BaseException) -> None:
        """Learn what became of the command on ``line``; raises unless it is to be tried again."""
        self.suspect = line.address
        if isinstance(exc, ResponseError):
            self._refused(line, exc)
            return
        self.pool.end(line)  # its reply may come yet, and would be taken for the next one's
        if isinstance(exc, Undecided):
            self._unanswered(exc)
        elif isinstance(exc, (AuthenticationError, BusyLoadingError)):
            self._failed(exc)
        elif not isinstance(exc, Severed):
            raise exc
        elif line.fresh:  # an older one may have died of age
            self._failed(exc)

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
        quick_s = min(PROBE_S, self.limit_s)
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
        return EngineUnavailable(f"{advised(text, self.publisher.prefix)}; {fate}")

    def _failed(self, exc: BaseException) -> None:
        """Wait for the next attempt at what has certainly not run, or give up."""
        pool = self.pool
        pool.failures[self.suspect if self.suspect is not None else pool.guide_of(self.key)] = monotonic()
        pool.forget(self.key)
        self.redirect, self.asking = None, False
        remaining = self.deadline - monotonic()
        if self.told is None or self.limit_s >= PROBE_S:
            self.told = exc  # one that had no time to go far knows only that
        if self.once or remaining <= 0:
            raise self._error(f"{self._name()} cannot be reached: {self.told}") from self.told
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
                f"{self._name()} did not answer: {str(exc).rstrip('.')}; what was sent may have taken effect or not"
            ) from cause
        if not self.undecided:
            self.undecided = True
            self.once = False
            self.deadline = monotonic() + publisher.retry_s
            self.packed = publisher.packed_again(self.key, self.payload, self.keep)
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
            raise EngineUnavailable(advised(f"{line.address.name} refused: {exc}", self.publisher.prefix)) from exc


def _pauses() -> Iterator[float]:
    pause = _FIRST_PAUSE_S
    while True:
        yield pause * random.uniform(0.5, 1.0)  # noqa: S311  # spreads attempts, guards nothing
        pause = min(pause * 2, _LONGEST_PAUSE_S)
