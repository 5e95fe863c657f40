"""Publishing from any thread without an event loop: honest about what became of each message.

Knows nothing of nodes and links. What is done about a failure is in ``effort.py``, what travels together in ``batch.py``.
"""

from __future__ import annotations

import logging
import os
from collections.abc import Callable, Sequence
from time import monotonic
from typing import Any, Protocol

from redis.exceptions import MovedError, NoScriptError, ResponseError

from ...envelope import mark_again
from ...exceptions import EngineUnavailable
from ...types import Keep, Receipt
from .advice import advised
from .append import ORIGIN, append_command, receipt_of
from .batch import Messages, publish_many
from .dial import DialError, pack
from .effort import PROBE_S, Effort
from .history_scripts import APPEND
from .hosts import Host
from .keys import Keys
from .line import BoundTable, Line, Severed, Undecided, bound_queues
from .pool import NotPrimary, Pool

__all__ = ["Begun", "BlockingPublisher"]

logger = logging.getLogger("antiphon.engine")

_POLL_S = 1.0  # how often a registry of bound queues that is not announced is read while there is traffic


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
        self.prefix = keys.prefix
        self._keys = keys
        command = b"SPUBLISH" if cluster else b"PUBLISH"
        self._publish = b"*3\r\n$%d\r\n%b\r\n" % (len(command), command) + b"$%d\r\n%b\r\n$%d\r\n%b\r\n"
        self._pool = Pool(hosts, cluster=cluster, greet=self._greet)
        self._polled: BoundTable = {}
        self._polled_at: float | None = None
        self._silent: dict[str, bool] = {}  # servers that announce nothing -> whether that was said

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

    def publish(self, topic: str, payload: bytes, keep: Keep | None = None) -> Any:
        """Publish, and keep in the topic's log as ``keep`` says; return what ``receipt_of`` reads: without a log, an int.

        That is how many nodes got it; in a cluster, of those connected to the topic's server. Raises EngineUnavailable,
        which says whether the message may have been published all the same.
        """
        channel = self._keys.channel(topic)
        command = self.command(channel, payload, keep)
        return self._published(topic, payload, *self._run_publish(channel, command, payload, keep))

    def command(self, channel: bytes, payload: bytes, keep: Keep | None) -> bytes:
        """Return the command of a publish; with a log it has ORIGIN in the origin's place."""
        if keep is not None:
            return append_command(channel, payload, keep, sharded=self._pool.cluster)
        return self._publish % (len(channel), channel, len(payload), payload)

    def begin(self, topic: str, payload: bytes, keep: Keep | None = None) -> Begun:
        """Write a publish, if a connection is at hand; whoever has the result reads the reply."""
        channel = self._keys.channel(topic)
        packed = self.command(channel, payload, keep)
        line = self._pool.at_hand(channel)
        if line is not None:
            try:
                wire = packed if keep is None else line.with_origin(packed, self.timeout_s)
                line.ask(wire, self.timeout_s)
            except Severed:
                self._pool.end(line)  # old age, perhaps: finish() finds another
                line = None
            except BaseException:
                self._pool.end(line)
                raise
        return Begun(self, topic, payload, keep, channel, packed, line)

    def _published(self, topic: str, payload: bytes, line: Line, reply: Any) -> Any:
        line.sent += 1
        if self.on_bound is None or receipt_of(reply).state in ("duplicate", "suppressed"):
            self._pool.give(line)
            return reply
        try:
            table = line.bound if line.tracked and not line.stale else self._bound(line)
        except BaseException:
            self._pool.end(line)
            raise
        self._pool.give(line)  # before the callback, which may need it
        queues = bound_queues(table, topic.encode()) if table else ()
        if queues:
            self.on_bound(topic, payload, queues)
        return reply

    def publish_many(self, messages: Messages) -> tuple[list[Any], Exception | None]:
        """Publish [(topic, payload, keep)] in order, in few writes, up to the first that fails.

        Returns what ``publish`` returns for those before it, and the error. What became of those after it is unknown.
        """
        return publish_many(self, messages)

    def script(self, script: Script, key: bytes, keys: Sequence[bytes], args: Sequence[bytes | str | int]) -> Any:
        """Run a script on the server where ``key`` lives. Raises EngineUnavailable, as ``publish``.

        It is never sent again once its outcome is unknown.
        """
        rest = (len(keys), *keys, *args)
        origin = ORIGIN in args
        try:
            line, reply = self._run(key, pack("EVALSHA", script.sha, *rest), origin=origin)
        except NoScriptError:
            line, reply = self._run(key, pack("EVAL", script.text, *rest), origin=origin)
        self._pool.give(line)
        return reply

    def close(self) -> None:
        """Drop the idle connections."""
        self._pool.close()

    def _run(
        self, key: bytes, packed: bytes, payload: bytes | None = None, keep: Keep | None = None, *, origin: bool = False
    ) -> tuple[Line, Any]:
        """Send until answered. The line comes with the reply and is the caller's to give back.

        ``payload``, ``keep``: the message, where ``packed`` is a publish that may be repeated. ``origin``: it has
        ORIGIN in the origin's place.
        """
        if self._pool.pid != os.getpid():  # a fork that Python did not see
            self._pool.after_fork()
        return Effort(self, self._pool, key, packed, payload, keep, origin=origin).run()

    def _run_publish(self, channel: bytes, packed: bytes, payload: bytes, keep: Keep | None) -> tuple[Line, Any]:
        if keep is None:
            return self._run(channel, packed, payload)
        try:
            return self._run(channel, packed, payload, keep, origin=True)
        except NoScriptError:
            return self._run_loaded(channel, packed, payload, keep)

    def _run_loaded(self, channel: bytes, packed: bytes, payload: bytes, keep: Keep) -> tuple[Line, Any]:
        """Send an append that was refused because the server had no script for it."""
        line, _ = self._run(channel, pack("SCRIPT", "LOAD", APPEND.text))
        self._pool.give(line)
        try:
            return self._run(channel, packed, payload, keep, origin=True)
        except NoScriptError as exc:
            raise EngineUnavailable(f"the server does not keep its scripts: {exc}; nothing was sent") from exc

    def packed_again(self, channel: bytes, payload: bytes, keep: Keep | None) -> bytes:
        """Return the command that publishes a message which may have been published before."""
        return self.command(channel, mark_again(payload), keep)

    # --- worker channels that are members of groups

    def _greet(self, line: Line, limit_s: float) -> None:
        if self.on_bound is None or self._pool.known_address_of(self._keys.bound) != line.address:
            return
        if not line.track(self._keys.bound, limit_s):
            self._silent.setdefault(line.address.name, False)

    def _say_silent(self, server: str) -> None:
        # Once a publish has succeeded: an account that may not even do that has another trouble, to be heard of first.
        self._silent[server] = True
        logger.warning(
            "%s does not announce changes of keys (CLIENT TRACKING): synchronous senders learn up to %g s late that"
            " a worker channel has joined a group",
            server,
            _POLL_S,
        )

    def _bound(self, line: Line) -> BoundTable:
        """Return the registry as it is for the message that ``line`` has just published."""
        if self._silent.get(line.address.name) is False:
            self._say_silent(line.address.name)
        try:
            if line.tracked:
                return line.current_bound(min(PROBE_S, self.timeout_s))
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
            said = f"MOVED {exc}" if isinstance(exc, MovedError) else str(exc)  # redis-py takes the code off
            reason = advised(said, self.prefix)
            logger.warning("Which worker channels belong to groups cannot be read now: %s", reason)
            self._polled = self._polled or last
        self._polled_at = now
        return self._polled

    def _read_bound(self) -> BoundTable:
        pool, key = self._pool, self._keys.bound
        line = pool.take(pool.address_of(key, PROBE_S), PROBE_S)
        try:
            table = line.load_bound(key, PROBE_S)
        except BaseException as exc:
            pool.end(line)
            if isinstance(exc, MovedError):
                pool.forget(key)
            raise
        pool.give(line)
        return table


class Begun:
    """A publish that may have been written, and whose reply nobody has read. Dropped, it takes its connection along."""

    __slots__ = ("_channel", "_keep", "_line", "_packed", "_payload", "_publisher", "_topic")

    def __init__(
        self,
        publisher: BlockingPublisher,
        topic: str,
        payload: bytes,
        keep: Keep | None,
        channel: bytes,
        packed: bytes,
        line: Line | None,
    ) -> None:
        self._publisher = publisher
        self._topic = topic
        self._payload = payload
        self._keep = keep
        self._channel = channel
        self._packed = packed
        self._line = line

    def __repr__(self) -> str:
        return f"<Begun publish on {self._topic!r}, {'not ' if self._line is None else ''}written>"

    def receipt(self) -> Receipt:
        """``finish``, and what came of it."""
        return receipt_of(self.finish())

    def finish(self) -> Any:
        """Do the rest of ``publish``; to be called once."""
        publisher, publish = self._publisher, (self._channel, self._packed, self._payload, self._keep)
        line, self._line = self._line, None
        if line is None:
            line, reply = publisher._run_publish(*publish)
        else:
            try:
                reply = line.answer()
            except BaseException as exc:
                line, reply = self._despite(exc, line)
        return publisher._published(self._topic, self._payload, line, reply)

    def _despite(self, exc: BaseException, line: Line) -> tuple[Line, Any]:
        publisher, keep = self._publisher, self._keep
        effort = Effort(
            publisher, publisher._pool, self._channel, self._packed, self._payload, keep, origin=keep is not None
        )
        try:
            effort.failed_on(line, exc)
            return effort.run()
        except NoScriptError:
            if keep is None:
                raise
            return publisher._run_loaded(self._channel, self._packed, self._payload, keep)

    def __del__(self) -> None:
        if self._line is not None:
            self._publisher._pool.end(self._line)
